"""Alternatives in a site file, chosen by the failure classes of earlier attempts."""

from pathlib import Path

import pytest
from stub_slurm import StubSlurm

from mmkd.errors import UserError
from slurm.backend import Job
from slurm.slurm_backend import SlurmBackend
from sweeps.site_file import Site, load_site

SITE = """
[slurm]
partition = "preemptible"
gpus = "h200:1"
mem = "8G"

[[slurm.fallback]]
after = ["preempted", "node_fail"]
partition = "gpu"

[[slurm.fallback]]
after = "out_of_memory"
partition = "big"
gpus = "gpu:a100:2"
constraint = "mem80"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return load_site(path, {"slurm": {"cpus": 2}})


@pytest.mark.parametrize(
    ("failures", "partition", "gpus"),
    [
        ((), "preemptible", "--gpus-per-node=h200:1"),
        (("error", "timeout"), "preemptible", "--gpus-per-node=h200:1"),
        (("out_of_memory",), "preemptible", "--gpus-per-node=h200:1"),
        (("preempted",), "gpu", "--gpus-per-node=h200:1"),
        (("node_fail", "preempted", "preempted"), "gpu", "--gpus-per-node=h200:1"),
        (("preempted", "out_of_memory", "preempted"), "big", "--gres=gpu:a100:2"),
    ],
)
def test_each_failure_may_lead_to_the_next_alternative(
    site: Site, stub: StubSlurm, tmp_path: Path, failures: tuple[str, ...], partition: str, gpus: str
) -> None:
    backend = SlurmBackend(site.slurm)
    job = Job("mine", ("python", "-c", ""), tmp_path / "log" / "2.txt", failures=failures)
    script = backend.script(job)
    assert f"#SBATCH --partition={partition}\n" in script
    assert f"#SBATCH {gpus}\n" in script
    assert "#SBATCH --cpus-per-task=2\n" in script, "the rest is as usual"
    assert "#SBATCH --mem=8192M\n" in script
    assert backend.gpus_for(job) == (2 if partition == "big" else 1)
    assert backend.request_of(job)["partition"] == partition


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("partition = 'gpu'", "slurm.fallback.*after"),
        ("after = 'tired'", "'tired' is no failure class; choose of .*node_fail"),
        ("after = 'preempted'\ngpus = 'two'", "write a number"),
        ("after = 'preempted'\nmem = '9G'", "mem"),
    ],
)
def test_a_wrong_alternative_is_refused(tmp_path: Path, table: str, words: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f"[[slurm.fallback]]\n{table}\n")
    with pytest.raises(UserError, match=words):
        load_site(path, {})
