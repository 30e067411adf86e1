"""Weights of auxiliary losses that are learned by looking one step of the student ahead.

The bilevel step of learning to reweight (Ren et al. 2018, Shu et al. 2019), which MSD takes over.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmkd.data.tensors import Samples
from mmkd.models.network import Network


class Weigher(nn.Module):
    """A small network from known logits (B, K) to weights (B, M) that sum to 1, and its optimiser (Adam).

    It begins with equal weights. Its parameters require a gradient within `look_ahead` alone, so that no other
    optimiser takes them: lowering the training loss itself would move all weight to the smallest of its terms.
    """

    def __init__(self, known: int, weights: int, hidden: int, learning_rate: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(known, hidden), nn.ReLU(), nn.Linear(hidden, weights))
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)
        self.requires_grad_(False)
        # The virtual step scales gradients by the student's small learning rate: Adam's usual eps is not small then.
        self.optimizer = torch.optim.Adam(self.parameters(), learning_rate, eps=1e-15)

    def forward(self, known: Tensor) -> Tensor:
        """See the class."""
        weights: Tensor = self.network(known).softmax(-1)
        return weights

    def look_ahead(
        self, student: Network, loss: Callable[[], Tensor], learning_rate: float, held_out: Samples, size: int
    ) -> None:
        """One step of this network, whose weights `loss` reads, down the student's cross-entropy one step ahead.

        theta' = theta - learning_rate d loss(theta, phi) / d theta  (plain gradient descent, unclipped)
        phi    moves by Adam along  d CE(student of theta' on a batch of `size` of the held-out part) / d phi

        The student, theta, is left as it is. Ahead it is in evaluation mode, as it will be judged.
        """
        self.requires_grad_(True)
        theta = dict(student.named_parameters())
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
            value = loss()
        gradients = torch.autograd.grad(value, list(theta.values()), create_graph=True)
        ahead = {
            name: parameter - learning_rate * gradient
            for (name, parameter), gradient in zip(theta.items(), gradients, strict=True)
        }
        # Drawn on the CPU, whose generator a checkpoint holds.
        x, y = held_out.at(torch.randperm(len(held_out))[:size].to(held_out.y.device))
        was_training = student.training
        student.eval()
        criterion = F.cross_entropy(functional_call(student, ahead, (x,)).logits, y)
        student.train(was_training)
        phi = list(self.parameters())
        for parameter, gradient in zip(phi, torch.autograd.grad(criterion, phi), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.requires_grad_(False)

    def get_extra_state(self) -> dict[str, object]:
        """The optimiser's state, so that it is in the module's `state_dict` and in checkpoints."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """See `get_extra_state`."""
        self.optimizer.load_state_dict(state)
