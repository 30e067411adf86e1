"""The remedy for arguments that launch.py does not have and that users of other tools expect."""

from __future__ import annotations

from slurm.settings import DECIDED, SlurmSettings
from sweeps.study_file import StudyFile, study_names
from sweeps.study_keys import keys_named

SLURM = {
    "p": "partition", "A": "account", "q": "qos", "G": "gpus", "gres": "gpus", "c": "cpus", "t": "time",
    "walltime": "time", "memory": "mem", "C": "constraint", "w": "nodelist", "x": "exclude",
}  # fmt: skip
"""Names of our Slurm settings in sbatch, where they differ."""
EXPECTED = {
    **dict.fromkeys(("out", "output", "out-dir", "output-dir", "results"), "--root names the directory of all results"),
    **dict.fromkeys(("jobs", "workers", "num-workers", "n-jobs", "j"), "--parallel sets the number of trials at once"),
    **dict.fromkeys(
        ("nodes", "N", "ntasks", "n"), "a trial is one process; --parallel sets the number of jobs at once"
    ),
    **dict.fromkeys(("resume", "continue", "restart"), "to resume, run the same command again without it"),
    **dict.fromkeys(("config", "file"), "--study takes the path of a study file"),
    **dict.fromkeys(("force", "overwrite"), "finished trials are kept; for a fresh start choose another --root"),
    **dict.fromkeys(("gpu", "cuda"), "--device cuda trains on the GPU of this machine; --slurm.gpus sets GPUs per job"),
    "dataset": "--data names the data file",
    "modality": "--primary names the student's modality",
    "cpu": "--device cpu trains without a GPU",
    "slurm": "--cluster slurm runs trials as Slurm jobs",
    "local": "--cluster local runs trials on this machine",
    "name": "--as names the table",
    "lr": "the learning rate is tuned; --set defaults.space.learning_rate=0.001 fixes it",
}
"""Options of other tools, with the remedy."""


def advise(argument: str) -> str:
    """Return the remedy for an unknown argument; "" if none is known."""
    name = argument.lstrip("-").partition("=")[0]
    if not argument.startswith("-"):
        return _advise_word(argument)
    if name in EXPECTED:
        return EXPECTED[name]
    setting = SLURM.get(name, name)
    if DECIDED.get(name, "").endswith(" decides it"):
        setting = DECIDED[name].split()[0]
    if setting in SlurmSettings.model_fields:
        return f"did you mean --slurm.{setting}?"
    if name in DECIDED:
        return f"sbatch's {argument} cannot be given: {DECIDED[name]}"
    if keys := keys_named(name.replace("-", "_"), StudyFile):
        return f"it is a key of the study file: --set {keys[0]}=VALUE"
    return ""


def _advise_word(word: str) -> str:
    if word in study_names() or word.endswith(".toml"):
        return f"write --study {word}"
    if word.startswith("="):
        return "write KEY=VALUE without spaces"
    if "=" in word:
        return f"write --set before each KEY=VALUE: --set {word}"
    study = ", such as --study NAME" if word.isidentifier() else ""
    return f"each value needs its option before it{study}, and each option takes one value"
