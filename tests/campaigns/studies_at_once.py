"""Single studies launched at once on one root, with random kills of controllers: all end, nothing is done twice.

`python tests/campaigns/studies_at_once.py --kills 12 --folder at-once` uses this machine, and `--where slurm` a Slurm
started for it, and controllers that run as jobs (--detach), which scancel kills. Exit code 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE.parent)]

from survival import reported, trial_dirs  # noqa: E402
from tiny_study import write_tiny_data  # noqa: E402

from mmkd.attempts import read_attempts  # noqa: E402
from mmkd.rundir import Root  # noqa: E402
from slurm.accounting import scancel, squeue  # noqa: E402
from slurm.devcluster import Options, attach, up  # noqa: E402
from sweeps.controller.job_names import controller_job, job_tag  # noqa: E402
from sweeps.study_file import study_names  # noqa: E402

SIZE = ("--trials", "1", "--seeds", "1", "--epochs", "3", "--primary", "video")
NETWORKS = [
    f"--set={part}.{key}={value}"
    for part in ("teacher", "student")
    for key, value in {"width": 8, "heads": 2, "layers": 1, "fusion_layers": 1}.items()
]
SITE = '[slurm]\ncpus = 1\nmem = "700M"\ngpus = "0"\npoll = 2.0\n[detach]\nmem = "500M"\ntime = "60"\n'


class Launches:
    """The launches of the single studies on one root."""

    def __init__(self, folder: Path, studies: Sequence[str], where: str) -> None:
        self.folder, self.studies, self.where = folder, studies, where
        self.root = Root(folder / "runs")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.done: set[str] = set()
        folder.mkdir(parents=True)
        write_tiny_data(folder / "tiny.h5")
        (folder / "site.toml").write_text(SITE)

    def start(self, study: str) -> None:
        """Launch a study."""
        where = ("--cluster", "local", "--parallel", "1") if self.where == "local" else ("--detach", "--parallel", "2")
        names = ("--root", str(self.root.path), "--as", study, "--site", str(self.folder / "site.toml"))
        data = ("--data", str(self.folder / "tiny.h5"), "--device", "cpu")
        command = [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), "--study", study, *names, *data]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{study}.txt").open("ab") as log:
            self.running[study] = subprocess.Popen(
                [*command, *SIZE, *NETWORKS, *where], stdout=log, stderr=log, env=environment
            )

    def look(self) -> None:
        """Note the studies that are done, and launch again those that were ended."""
        for study, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[study]
            if self.where == "slurm" and code == 0:
                continue  # its controller is a job
            if code == 0:
                self.done.add(study)
            else:
                print(f"{study} ended with {code}, and is launched again", flush=True)
                self.start(study)
        if self.where == "slurm":
            self._look_at_jobs()

    def _look_at_jobs(self) -> None:
        alive = {job.name for job in squeue() if not job.ended}
        for study in self.studies:
            if study in self.done or study in self.running or controller_job(self.root, study) in alive:
                continue
            log = self.root.controller_log(study)
            if log.exists() and "Results saved to" in log.read_text(errors="replace"):
                self.done.add(study)
            else:
                self.start(study)

    def kill(self, chance: random.Random) -> str:
        """Kill a random controller. Return its study, "" if there is none."""
        if self.where == "slurm":
            jobs = [j for j in squeue() if j.state == "RUNNING" and ".controller." in j.name]
            victims = {j.name: j for j in jobs if j.name.startswith(job_tag(self.root))}
            if not victims:
                return ""
            name = chance.choice(sorted(victims))
            scancel([victims[name].id])
            return name.rpartition(".")[2]
        alive = sorted(study for study, process in self.running.items() if process.poll() is None)
        if not alive:
            return ""
        study = chance.choice(alive)
        self.running[study].kill()
        return study

    def end(self) -> None:
        """Leave no process behind."""
        for process in self.running.values():
            process.kill()


def problems(root: Root) -> list[str]:
    """What is wrong under the root."""
    wrong = [f"{trial} was reported {len(said)} times" for trial, said in reported(root.path).items() if len(said) != 1]
    for directory in trial_dirs(root.path):
        complete = sum(attempt.end == "complete" for attempt in read_attempts(directory))
        if complete != 1:
            wrong.append(f"{directory.path}: {complete} attempts ended complete")
    return wrong + [f"{path} is left" for path in root.path.glob("**/*.lock")]


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", choices=["local", "slurm"], default="local")
    parser.add_argument("--folder", type=Path, default=Path("at-once"), help="made anew")
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    studies = [name for name in study_names() if name not in ("table1", "msd")]
    if options.where == "slurm":
        cluster = up(
            Options(nodes=4, gpus_per_node=0, cpus_per_node=8), options.folder.with_name("cluster"), fresh=True
        )
        os.environ.update(cluster.environment)
    began, chance, kills = time.monotonic(), random.Random(options.seed), 0
    launches = Launches(options.folder.absolute(), studies, options.where)
    try:
        for study in studies:
            launches.start(study)
        following = began + 20.0
        while launches.done != set(studies):
            if time.monotonic() - began > 60 * options.minutes:
                print(f"not done after {options.minutes:g} min: {sorted(set(studies) - launches.done)}")
                return 1
            if kills < options.kills and time.monotonic() > following:
                following = time.monotonic() + chance.uniform(2.0, 8.0)
                if victim := launches.kill(chance):
                    kills += 1
                    print(f"{time.monotonic() - began:.0f} s: controller of {victim} killed", flush=True)
            launches.look()
            time.sleep(0.5)
    finally:
        launches.end()
        if options.where == "slurm":
            attach(options.folder.with_name("cluster")).down()
    wrong = problems(launches.root)
    print("\n".join(wrong) or "all is well")
    print(f"{len(studies)} studies, {kills} controllers killed, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
