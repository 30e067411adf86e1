"""How strong each distillation loss pulls: its gradient beside the classification loss's, while a row's trial 0 trains.

`python benchmarks/gradient_scale.py --root runs --study table1-utd-accelerometer`

For each row of a study, trial 0 (the documented default) is trained again in a temporary folder, with the teacher that
the root holds. At every tenth step the gradients of the two losses (before alpha and beta) by the student's
parameters are taken apart. Printed are, for the first epoch and the last quarter of them, the median ratio of norms,
|distillation| / |classification|, and the median cosine between the two. Far below 1 the loss does nothing at any beta
that the search allows, far above 1 it drowns the labels; a cosine below 0 works against them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from mmkd.config import StudentConfig, from_json
from mmkd.distillation.frozen_teacher import Batch
from mmkd.errors import UserError
from mmkd.files import read_json, write_json, write_text
from mmkd.rundir import Root, TrialDir
from mmkd.training.lesson import Lesson, make_lesson, prepare_torch
from mmkd.training.trainer import Trainer

EVERY = 10


class Weighing(Trainer):
    """A trainer that takes the two gradients apart at every tenth step; `seen` has epoch, ratio and cosine."""

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super()._loss(batch)
        if torch.is_grad_enabled() and self.progress.step % EVERY == 0 and "distillation" in terms:
            self._weigh(terms["classification"], terms["distillation"])
        return loss, terms

    def _weigh(self, classification: Tensor, distillation: Tensor) -> None:
        parameters = [p for p in self.lesson.network.parameters() if p.requires_grad]
        ours, theirs = (self._gradient(term, parameters) for term in (classification, distillation))
        ratio = float(theirs.norm() / ours.norm())
        cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
        self.seen.append((self.progress.epoch, ratio, cosine))

    @staticmethod
    def _gradient(term: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
        found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        return torch.cat([g.flatten() for g in flat])

    def weigh(self) -> list[tuple[int, float, float]]:
        """Train to the end; epoch, ratio and cosine of each step that was looked at."""
        self.seen: list[tuple[int, float, float]] = []
        self.run()
        return self.seen


def weigh(config: StudentConfig, root: Root) -> list[tuple[int, float, float]]:
    """See the module; the teacher comes from `root`."""
    device = prepare_torch(config)
    lesson: Lesson = make_lesson(config, TrialDir(root.path / "rows" / "row" / "trials" / "0"), device)
    with tempfile.TemporaryDirectory() as folder:
        directory = TrialDir(Path(folder))
        write_json(directory.config, config.model_dump(mode="json"))
        write_text(directory.attempt, "0\n")
        return Weighing(config, lesson, directory, None, lambda: None, lambda: False).weigh()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--study", required=True, help="a name of studies/*.json")
    options = parser.parse_args()
    root = Root(options.root.absolute())
    study = read_json(root.study(options.study))
    if study is None:
        print(f"error: {root.study(options.study)}: no such study", file=sys.stderr)
        return 2
    print(f"{'row':<28} {'ratio, epoch 1':>15} {'ratio, end':>11} {'cosine, epoch 1':>16} {'cosine, end':>12}")
    for row in study["rows"]:
        directory = TrialDir(root.path / "rows" / row["directory"] / "trials" / "0")
        try:
            config = from_json(read_json(directory.config), directory.config)
            seen = weigh(config, root) if isinstance(config, StudentConfig) and config.teacher else []
        except UserError as error:
            print(f"{row['name']:<28} {error}")
            continue
        if seen:
            last = 3 * config.training.epochs // 4
            early, late = [s for s in seen if s[0] == 0], [s for s in seen if s[0] >= last]
            ratios, cosines = ([median(s[i] for s in part) for part in (early, late)] for i in (1, 2))
            print(
                f"{row['name']:<28} {ratios[0]:15.3g} {ratios[1]:11.3g} {cosines[0]:16.2f} {cosines[1]:12.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
