"""One loop for teachers and students: train, validate, keep the best, checkpoint, resume bit for bit."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.config import Run, Training, derived_seed, identity
from mmkd.data.tensors import epoch_batches
from mmkd.distillation.frozen_teacher import Batch
from mmkd.metrics_log import append_metrics, cut_metrics
from mmkd.models.network import Outputs, autocast, in_float32, tapped_in_float32
from mmkd.rundir import TrialDir
from mmkd.training.augmentation import augment
from mmkd.training.checkpoint import Checkpoint, Progress, save_checkpoint
from mmkd.training.evaluation import evaluate
from mmkd.training.lesson import Lesson

CHECKPOINT_SECONDS = 300.0
"""Within a long epoch a checkpoint is written this often."""


class Diverged(Exception):
    """A loss is not finite; the message names the epoch and the term."""


class Preempted(Exception):
    """The run was asked to end and has written its checkpoint."""


class Pruned(Exception):
    """The controller asked to stop at this epoch; the message is its reason."""


class Trainer:
    """Trains a network to the end of its epochs, from the beginning or from a checkpoint.

    Args:
        config: the run's configuration.
        lesson: network, data, method and teacher.
        directory: the trial's, for metrics and checkpoints.
        checkpoint: the state to resume from; None: begin.
        check_attempt: called before each write; raises if another attempt has taken over.
        asked_to_end: True once a signal has asked the process to end.
    """

    def __init__(
        self,
        config: Run,
        lesson: Lesson,
        directory: TrialDir,
        checkpoint: Checkpoint | None,
        check_attempt: Callable[[], None],
        asked_to_end: Callable[[], bool],
    ) -> None:
        self.config, self.lesson, self.directory = config, lesson, directory
        self.checkpoint = checkpoint
        self.check_attempt, self.asked_to_end = check_attempt, asked_to_end
        modules = nn.ModuleDict({"network": lesson.network})
        if lesson.method is not None:
            modules["method"] = lesson.method
        self.modules = modules
        training = config.training
        if lesson.teacher is not None:
            lesson.teacher.precision = training.precision
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        # A method's own parameters are clipped apart: they must not shrink the student's steps.
        self.clipped = [[p for p in part.parameters() if p.requires_grad] for part in modules.values()]
        # With weight_decay = 0 AdamW is Adam. Fused, one call updates all parameters.
        self.optimizer = torch.optim.AdamW(
            self.parameters, training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.scheduler = make_scheduler(self.optimizer, training)
        self.progress = Progress()

    def run(self) -> Progress:
        """Train to the end; the progress holds the history and the best weights.

        Raises:
            Diverged, Preempted, Pruned: see these.
        """
        self._resume()
        while self.progress.epoch < self.config.training.epochs:
            started = time.perf_counter() - self.progress.seconds
            self._train_epoch(started)
            self._end_epoch(started)
        return self.progress

    def _resume(self) -> None:
        if self.checkpoint is not None:
            self.progress = self.checkpoint.progress
            parts = self.checkpoint.parts
            self.modules.load_state_dict(parts["modules"])
            self.optimizer.load_state_dict(parts["optimizer"])
            self.scheduler.load_state_dict(parts["scheduler"])
            self.lesson.stream.load_state_dict(parts["stream"])
            self.checkpoint.restore_generators()
            self.checkpoint = None
        self.check_attempt()
        cut_metrics(self.directory, self.progress.history)

    def _train_epoch(self, started: float) -> None:
        progress, config = self.progress, self.config
        batches = epoch_batches(len(self.lesson.train), config.training.batch_size, config.seed, progress.epoch)
        self.modules.train()
        saved = time.monotonic()
        for index, x, y in self.lesson.train.draw(batches[progress.step :]):
            assert isinstance(index, Tensor)
            for name, value in self._step(Batch(x, y, index)).items():
                progress.sums[name] = progress.sums.get(name, 0) + value.detach() * len(y)
            progress.step += 1
            due, asked = time.monotonic() - saved > CHECKPOINT_SECONDS, self.asked_to_end()
            if due or asked:
                progress.seconds = time.perf_counter() - started
                self._save()
                saved = time.monotonic()
            if asked:
                raise Preempted(f"asked to end in epoch {progress.epoch + 1}, step {progress.step} of {len(batches)}")

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step on a batch of train before augmentation; the loss terms, and the method's own scalars."""
        lesson, training = self.lesson, self.config.training
        lengths = {m: known[batch.index] for m, known in lesson.train.lengths.items()}
        generator = self._augmenting(batch.y.device)
        batch = replace(batch, x=augment(batch.x, training.augmentation, lesson.info.vectors, generator, lengths))
        if lesson.method is not None:
            rate = self.optimizer.param_groups[0]["lr"]
            with lesson.stream:
                lesson.method.prepare_step(batch, lambda: self._loss(batch)[0], rate)
        loss, terms = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in self.clipped:
            nn.utils.clip_grad_norm_(part, clip_norm(training.clip, lesson.alpha, lesson.beta))
        self.optimizer.step()
        return terms

    def _augmenting(self, device: torch.device) -> torch.Generator:
        """The generator of this step's augmentation: the same for all students on a data set."""
        seed = derived_seed("augmentation", self.config.seed, self.progress.epoch, self.progress.step)
        return torch.Generator(device).manual_seed(seed)

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (Eq. 1); its terms, and the method's own scalars."""
        lesson, method = self.lesson, self.lesson.method
        outputs = self._run(batch)
        smoothing = self.config.training.label_smoothing
        terms = {"classification": F.cross_entropy(outputs.logits, batch.y, label_smoothing=smoothing)}
        loss = lesson.alpha * terms["classification"]
        if method is not None and method.needs_teacher:
            with lesson.stream:
                terms["distillation"] = method(batch, outputs, lesson.teacher)
            loss = loss + lesson.beta * terms["distillation"]
            terms |= method.monitored
        return loss, terms

    def _run(self, batch: Batch) -> Outputs:
        """The network's outputs on a batch, with the method's taps: computed in `precision`, returned in float32."""
        method = self.lesson.method
        with self.lesson.stream:
            taps = method.taps() if method else None
        with autocast(self.config.training.precision, batch.y.device):
            outputs = self.lesson.network(batch.x, taps)
        logits, penultimate = in_float32(outputs.logits), in_float32(outputs.penultimate)
        return Outputs(logits, penultimate, tapped_in_float32(outputs.tapped), outputs.taps)

    def _end_epoch(self, started: float) -> None:
        """Validate, keep the best weights, append to the metrics file, checkpoint, and obey the stop file."""
        progress, lesson = self.progress, self.lesson
        epoch = progress.epoch + 1
        means = {name: float(total) / len(lesson.train) for name, total in progress.sums.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise Diverged(f"epoch {epoch}: the {name} loss of train is {mean}")
        metrics, _ = evaluate(lesson.network, lesson.valid, lesson.info)
        loss = metrics["loss"]
        if not math.isfinite(loss):
            raise Diverged(f"epoch {epoch}: the classification loss of valid is {loss}")
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, epoch
            progress.best = {name: value.detach().clone() for name, value in lesson.network.state_dict().items()}
        line = {
            "epoch": epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **{f"train_{name}": mean for name, mean in means.items()},
            **{f"valid_{name}": metrics[name] for name in ("loss", "accuracy", "weighted_f1", "macro_f1")},
        }
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            with warnings.catch_warnings():
                # torch misses the optimiser's step if a run resumes at the very end of an epoch.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self.scheduler.step()
        progress.history.append(line)
        progress.sums, progress.step, progress.epoch = {}, 0, epoch
        progress.seconds = time.perf_counter() - started
        self.check_attempt()
        append_metrics(self.directory, {**line, "seconds": progress.seconds, "time": time.time()})
        if epoch < self.config.training.epochs:
            self._save()
            if self.directory.stop.exists():
                raise Pruned(self.directory.stop.read_text().strip() or "stopped by the controller")

    def _save(self) -> None:
        self.check_attempt()
        parts = {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "stream": self.lesson.stream.state_dict(),
        }
        save_checkpoint(self.directory.checkpoint, identity(self.config), self.progress, parts)


def clip_norm(clip: float, alpha: float, beta: float) -> float:
    """The largest norm of the gradient of alpha L_c + beta L_KD: `clip` times alpha, or times beta if alpha is 0.

    Adam does not see a common factor of alpha and beta, and with this clipping does not either: (alpha, beta) and
    (c alpha, c beta) train alike, up to Adam's epsilon. With a fixed norm the control, whose alpha is 1, would be
    clipped in most steps, and a row that is tuned to alpha = 0.1 in none.
    """
    return clip * (alpha or beta)


def make_scheduler(
    optimizer: torch.optim.Optimizer, training: Training
) -> torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau:
    """`plateau`: factor after `patience` epochs without a lower validation loss (A.3); `cosine`: to zero at the end."""
    if training.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=training.factor, patience=training.patience)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
