"""The site's own shell lines before a job: they act on the script's shell, and a job whose setup fails does not run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from stub_slurm import StubSlurm

from slurm.backend import Job
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend


@pytest.fixture
def ran(stub: StubSlurm, tmp_path: Path):
    """Run a job's script with these setup lines, in bash."""

    def run(*setup: str) -> subprocess.CompletedProcess[str]:
        job = Job("mmkd-1.row.t0.a1", ("python", "-m", "mmkd.trial"), tmp_path / "log" / "1.txt")
        path = tmp_path / "job.sh"
        path.write_text(SlurmBackend(SlurmSettings(setup=setup)).script(job))
        return subprocess.run(["bash", str(path)], capture_output=True, text=True, cwd=tmp_path)

    return run


@pytest.mark.parametrize(
    ("line", "code", "shown"),
    [
        ("module load cuda/99", "127", "module load cuda/99"),
        ("sh -c 'exit 3'", "3", "sh -c 'exit 3'"),
        ("source /gone/activate", "1", "source /gone/activate"),
        ("true\nfalse '%s' \"$HOME\" `id`", "1", "true; false '%s' \"$HOME\" `id`"),
        ("if true; then", r"\d", "if true; then"),
        ("echo 'open", r"\d", "echo 'open"),
    ],
)
def test_a_setup_line_that_fails_ends_the_job_with_that_line_as_its_last_word(
    stub: StubSlurm, ran, line: str, code: str, shown: str
) -> None:
    done = ran("export BEFORE=1", line, "echo never reached")
    assert done.returncode == 1
    said = rf"mmkd: setup line failed \(exit {code}\): {re.escape(shown)}"
    assert re.fullmatch(said, done.stderr.splitlines()[-1])
    assert "never reached" not in done.stdout
    assert stub.calls("srun") == 0


def test_setup_lines_act_on_the_shell_that_starts_the_trial(stub: StubSlurm, ran, tmp_path: Path) -> None:
    (tmp_path / "activate").write_text("false\nexport FROM_SOURCE='a b'\n")
    (tmp_path / "place").mkdir()
    done = ran(
        "source ./activate", "export HERE=$PWD\nif true; then\n  export BLOCK=yes\nfi", "cd place", "export THERE=$PWD",
        "# a comment", "", "set -e", "false || true",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    seen = stub.environment("srun")
    expected = {"FROM_SOURCE": "a b", "HERE": str(tmp_path), "BLOCK": "yes", "THERE": str(tmp_path / "place")}
    assert {name: seen[name] for name in expected} == expected


def test_a_script_shows_each_setup_line_as_the_site_wrote_it(stub: StubSlurm, tmp_path: Path) -> None:
    line = "module load 'cuda/12.4'"
    job = Job("a", ("python",), tmp_path / "log" / "1.txt")
    script = SlurmBackend(SlurmSettings(setup=(line,))).script(job)
    assert f"eval {shlex.quote(line)} || {{ printf " in script
