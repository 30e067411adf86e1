"""A trial to run, and its configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmkd.config import Run, StudentConfig, TeacherConfig, digest, from_json, identity, to_json
from mmkd.files import read_json, write_json
from mmkd.formatting import replicate_title, teacher_label
from mmkd.rundir import TrialDir
from sweeps.controller.finalists import Finalist
from sweeps.rows import TUNING_SEED, Row
from sweeps.study_file import merge
from sweeps.teacher_search import TeacherSearch


@dataclass(frozen=True)
class Task:
    """A trial to run: `name` is unique in its root, `label` is for people, `kind` is tuning, final or teacher."""

    name: str
    label: str
    kind: str
    directory: TrialDir
    config: Run


def write_config(task: Task) -> None:
    """Write the task's configuration once; only the path of a data set that has moved is updated."""
    there = read_json(task.directory.config)
    if there is None:
        task.directory.path.mkdir(parents=True, exist_ok=True)
        write_json(task.directory.config, to_json(task.config))
    elif there["data"]["path"] != task.config.data.path:
        write_json(task.directory.config, merge(there, {"data": {"path": task.config.data.path}}))


def teacher_task(row: Row, seed: int) -> Task:
    """Return the task of the teacher that `row` needs for `seed`."""
    config = row.teacher_config(seed)
    assert config is not None
    directory = row.root.teacher(identity(config))
    return _teacher_task(config, directory, row.replicate, f"seed {seed}", f"s{seed}")


def candidate_tasks(search: TeacherSearch) -> list[Task]:
    """Return the tasks of the candidates of a tuned teacher."""
    return [
        _teacher_task(config, directory, search.replicate, f"trial {number}", f"t{number}")
        for number, (directory, config) in enumerate(search.candidates.items())
    ]


def _teacher_task(config: TeacherConfig, directory: TrialDir, replicate: int, which: str, mark: str) -> Task:
    label = f"{replicate_title(teacher_label(config.branch), replicate)} {which}"
    return Task(f"teacher-{directory.path.name[:8]}.{mark}", label, "teacher", directory, config)


def tuning_task(row: Row, number: int, parameters: Mapping[str, float], finalist: Finalist | None = None) -> Task:
    """Return the task of a tuning trial; `finalist`: it is a further run of an earlier one."""
    config = row.config(parameters, TUNING_SEED) if finalist is None else row.finalist_config(parameters, finalist.run)
    again = f" (trial {finalist.trial} again, {finalist.run})" if finalist else ""
    name, label = f"{row.directory.path.name}.t{number}", f"{row.title} trial {number}{again}"
    return Task(name, label, "tuning", row.directory.trial(number), config)


def final_tasks(row: Row, parameters: Mapping[str, float]) -> dict[int, Task]:
    """Return the final runs of the winner with these parameters, by seed."""
    mark = digest({name: float(value) for name, value in parameters.items()})
    return {seed: _final_task(row, seed, parameters, mark) for seed in range(1, row.seeds + 1)}


def _final_task(row: Row, seed: int, parameters: Mapping[str, float], mark: str) -> Task:
    directory = row.directory.final_run(seed, mark)
    name = f"{row.directory.path.name}.s{directory.path.name}"
    return Task(name, f"{row.title} seed {seed}", "final", directory, row.config(parameters, seed))


def stored_parameters(row: Row, number: int) -> dict[str, float] | None:
    """Return the parameters of a trial that has a directory but is missing in the journal, which lost its end."""
    directory = row.directory.trial(number)
    facts = read_json(directory.config)
    config = None if facts is None else from_json(facts, directory.config)
    if not isinstance(config, StudentConfig):
        return None
    parameters = row.parameters_of(config)
    return parameters if identity(row.config(parameters, TUNING_SEED)) == identity(config) else None
