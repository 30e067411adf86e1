"""Which self-attention makes the better teacher on UTD-MHAD: keys that stay at the stage's input, or that follow x?

    python benchmarks/self_attention.py utd.h5 --seeds 3

Each subject of the file's train and validation parts is left out once (UTD-MHAD's ids name the subject); the test part
is not read. A teacher of the profile `utd_mhad` is trained on the other subjects for each setting and seed, and printed
is its accuracy on the subject left out, at the epoch of the lowest loss there: too good by that choice, but equally for
both settings.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from mmkd.config import DataSource, Network, TeacherConfig, Training
from mmkd.data import Split, read_info, read_split, write_dataset
from mmkd.data.dataset import Array
from mmkd.result_file import read_result
from mmkd.rundir import TrialDir
from mmkd.trial import run_trial
from sweeps.profile_file import load_profile
from sweeps.study_file import merge

SETTINGS = ("fixed", "updated")


def leave_one_subject_out(path: Path, folder: Path) -> Iterator[tuple[str, DataSource]]:
    """Write a data file per subject of train and valid: it is the valid part, the others are train."""
    info = read_info(path)
    parts = [read_split(path, name, standardise=False) for name in ("train", "valid")]
    arrays = {m: np.concatenate([part.arrays[m] for part in parts]) for m in info.modalities}
    labels = np.concatenate([part.labels for part in parts])
    ids = [name for part in parts for name in part.ids]
    subjects = np.array([name.split("_")[1] for name in ids])
    for subject in sorted(set(subjects)):
        train, valid = (_select(arrays, labels, ids, chosen) for chosen in (subjects != subject, subjects == subject))
        unread = replace(valid, ids=[f"unread {name}" for name in valid.ids])
        made = folder / f"{subject}.h5"
        fingerprint = write_dataset(
            made, {"train": train, "valid": valid, "test": unread}, classes=info.classes, source=info.source,
            license=info.license, vectors=info.vectors,
        )  # fmt: skip
        yield subject, DataSource(path=str(made), fingerprint=fingerprint)


def _select(arrays: dict[str, Array], labels: Array, ids: Sequence[str], chosen: Array) -> Split:
    kept = [name for name, is_chosen in zip(ids, chosen, strict=True) if is_chosen]
    return Split(arrays={m: values[chosen] for m, values in arrays.items()}, labels=labels[chosen], ids=kept)


def accuracy(data: DataSource, setting: str, seed: int, epochs: int, folder: Path) -> float:
    """Train a teacher; its accuracy on the valid part."""
    _, profile = load_profile("utd_mhad", "")
    config = TeacherConfig(
        data=data,
        network=Network.model_validate(merge(profile.teacher, {"self_attention": setting})),
        training=Training.model_validate(merge(profile.training, {"epochs": epochs})),
        seed=seed,
        device="cpu",
    )
    directory = TrialDir(folder / f"{Path(data.path).stem}-{setting}-{seed}")
    directory.path.mkdir()
    run_trial(config, directory.path)
    return read_result(directory.result).metrics["valid"]["accuracy"]


def main() -> None:
    """Print a line per subject and seed, and the mean difference over subjects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a file of `mmkd data import utd-mhad`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, ...]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        folds = list(leave_one_subject_out(options.data, Path(folder)))
        for seed in range(options.seeds):
            for subject, data in folds:
                pair = tuple(accuracy(data, s, seed, options.epochs, Path(folder)) for s in SETTINGS)
                found.setdefault(subject, []).append(pair)
                print(f"{subject} seed {seed}  fixed {pair[0]:.3f}  updated {pair[1]:.3f}", flush=True)
    means = [fmean(pair[s] for pairs in found.values() for pair in pairs) for s in (0, 1)]
    differences = [fmean(updated - fixed for fixed, updated in pairs) for pairs in found.values()]
    print(
        f"mean fixed {means[0]:.3f}, updated {means[1]:.3f}; updated - fixed {fmean(differences):+.3f}, "
        f"SD over {len(differences)} subjects {stdev(differences):.3f}"
    )


if __name__ == "__main__":
    main()
