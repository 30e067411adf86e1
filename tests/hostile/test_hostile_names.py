"""Names that reach a shell, a path, a job's name, an sbatch line, a report or a terminal stay names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import Refusals, run
from small_root import make_small_root

from analysis.__main__ import main as analyse
from analysis.tables.latex import escape
from mmkd.errors import UserError
from mmkd.files import write_json
from mmkd.rundir import Root, check_name
from mmkd.terminal import is_plain, one_line, printable
from slurm.backend import Job, SubmissionRefused
from slurm.monitor import main as monitor
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.launch import main as launch

HOSTILE = {
    "a path upwards": "../../x",
    "an absolute path": "/etc/passwd",
    "two commands": "a;rm -rf x",
    "a line break": "a\nb",
    "a carriage return": "a\rb",
    "a substitution": "$(touch ran)",
    "backticks": "`touch ran`",
    "a variable": "$HOME",
    "quotes": "a'b\"c",
    "an option": "-rf",
    "300 letters": "x" * 300,
    "other letters": "ünïcödé",
    "look-alikes": "сrd",  # noqa: RUF001 (the first letter is Cyrillic)
    "digits of other scripts": "a٣",
    "NUL": "a\0b",
    "an escape sequence": "a\x1b[2Jb",
    "the other direction": "a\u202eb",
    "a space": "a b",
    "a tilde": "~root",
    "a percent sign": "a%jb",
    "a star": "*",
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "a hidden file": ".x",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_such_name_becomes_a_file_or_a_job(refuses: Refusals, small_data: Any, case: str) -> None:
    name = HOSTILE[case]
    with pytest.raises(UserError, match="use 1 to 80 letters, digits"):
        check_name("study", name)
    if name and "\0" not in name:
        options = ["--study", "crd_attention", "--dry-run", "--data", small_data[0], "--cluster", "local"]
        refuses.of(launch, *options, "--root", refuses.folder / "r", f"--as={name}", said="study .*use 1 to 80 letters")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SlurmBackend:
    """Slurm's commands are not needed to write a script, but submitit looks for srun."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:/usr/bin:/bin")
    return SlurmBackend(SlurmSettings(python="python"))


def job(root: Path, **changes: Any) -> Job:
    command = ("python", "-m", "mmkd.trial", str(root / "rows" / "r" / "trials" / "0"))
    return Job(**{"name": "r.t0", "command": command, "log": root / "log" / "1.txt", **changes})


FOLDERS = [
    "a b",
    "it's",
    'a"b',
    "$(touch ran)",
    "`touch ran`",
    "a;touch ran",
    "a&b|c>d",
    "-rf",
    "#x",
    "100%j",
    "ünï",
    "~",
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_root_of_any_name_is_one_word_of_the_script(backend: SlurmBackend, tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    root.mkdir()
    lines = backend.script(job(root, environment={"MMKD_X": f"{folder}\n$(touch ran)"})).splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    for name in ("output", "error"):
        assert shlex.split(options[name]) == [f"{root}/log/1.txt".replace("%", "%%")]
    command = next(line for line in lines if line.startswith("srun "))
    assert shlex.split(command)[-1] == f"{root}/rows/r/trials/0"
    script = "\n".join(lines).replace("srun ", "printf '%s\\n' ")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{root}/rows/r/trials/0", "as the shell reads it"
    assert not list(tmp_path.rglob("ran")), "nothing ran"


@pytest.mark.parametrize("text", ["a\nb", "a\n#SBATCH --uid=0", "a\rb", "a\\", "a\x1b[2J", "a\0"])
def test_what_would_break_out_of_its_line_of_options_is_refused(
    backend: SlurmBackend, tmp_path: Path, text: str
) -> None:
    good = job(tmp_path)
    assert "#SBATCH --job-name=r.t0" in backend.script(good)
    for changes in ({"name": text}, {"log": tmp_path / text / "1.txt"}, {"avoid": ("n1", text)}, {"after": text}):
        with pytest.raises(SubmissionRefused, match="sbatch takes no line breaks"):
            backend.script(job(tmp_path, **changes))


@pytest.mark.parametrize("value", ["a b", "$(touch ran)", "`x`", "a;b", "a'b", "-x", "ünï"])
def test_options_of_a_site_are_one_word_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    name = value.replace(" ", "_")  # a space in a name is refused
    settings = SlurmSettings(partition=name, account=name, constraint=value, extra={"comment": value})
    lines = _backend(monkeypatch, settings, tmp_path).script(job(tmp_path)).splitlines()
    for option, expected in (("partition", name), ("account", name), ("constraint", value), ("comment", value)):
        line = next(line for line in lines if line.startswith(f"#SBATCH --{option}="))
        assert shlex.split(line.partition("=")[2]) == [expected]


def _backend(monkeypatch: pytest.MonkeyPatch, settings: SlurmSettings, folder: Path) -> SlurmBackend:
    srun = folder / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return SlurmBackend(settings)


MARKUP = "<script>alert(1)</script> & \"q\" 'q' \\input{/etc/passwd} $x$ %50 _ ^ ~ # {{7*7}} [red]bold[/]"
STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A root with markup in titles and labels, and markup and escape sequences in classes, messages and file names."""
    text = MARKUP + STEERING
    root = Root(make_small_root(tmp_path / "marked", title=f"Title {MARKUP}"))
    record = json.loads(root.study("demo").read_text())
    record["rows"][0] |= {"label": f"Label {MARKUP}", "group": f"Group {MARKUP}"}
    write_json(root.study("demo"), record)
    row = root.rows()[0]
    facts = json.loads(row.row.read_text())
    facts["data"] |= {"classes": [f"a{text}", "b", "c"], "source": f"synthetic {text}", "modalities": [f"video{text}"]}
    write_json(row.row, facts)
    failed = row.trial(1)
    failed.attempts.mkdir(parents=True)
    failed.config.write_text(row.trial(0).config.read_text())
    failed.attempt.write_text("1\n")
    write_json(
        failed.job_record(1), {"started": 1.0, "host": f"node{text}", "end": "error", "message": f"It broke {text}"}
    )
    failed.log(1).parent.mkdir()
    failed.log(1).write_text(f"log {text}\n")
    (row.path / "trials" / "<i>stray\x1b[2J").mkdir()
    return root.path


@pytest.mark.parametrize(
    ("main", "options"),
    [
        (analyse, ("table", "--no-cache")),
        (analyse, ("doctor", "--no-cache")),
        (monitor, ("--once",)),
        (launch, ("--study", "demo", "--status")),
    ],
)
def test_an_escape_sequence_in_a_title_is_refused_with_file_and_key(
    main: Callable[..., int], options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_small_root(tmp_path / "runs", title=f"Title {STEERING}")
    assert run(main, *options, "--root", root) == (1 if "doctor" in options else 2)
    said = capsys.readouterr()
    assert re.search(r"studies/demo\.json: title: .*give one line", said.out + said.err)
    assert printable(said.out + said.err) == said.out + said.err


def test_nothing_that_files_hold_steers_the_terminal(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, options in (
        (analyse, ["table", "--root", marked, "--no-cache"]),
        (analyse, ["table", "--root", marked, "--no-cache", "--format", "md"]),
        (analyse, ["table", "--root", marked, "--no-cache", "--format", "csv"]),
        (analyse, ["doctor", "--root", marked, "--no-cache"]),
        (analyse, ["compare", "--root", marked, "--no-cache", "kd", "kd"]),
        (monitor, ["--root", marked, "--once"]),
        (monitor, ["--root", marked, "--once", "--log", "kd/trials/1"]),
        (monitor, ["--root", marked, "--json"]),
        (launch, ["--root", marked, "--study", "demo", "--status"]),
    ):
        run(main, *options)
        said = capsys.readouterr()
        for stream in (said.out, said.err):
            assert printable(stream) == stream, (options, stream)
        assert "Traceback" not in said.err


def test_the_monitor_shows_markup_as_it_is_written(
    marked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run(monitor, "--root", marked, "--once") == 0
    shown = capsys.readouterr().out
    assert "It broke <script>" in shown
    assert "[red]bold[/]" in " ".join(shown.split())


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")
def test_html_shows_what_users_wrote_as_text_alone(marked: Path) -> None:
    page = marked / "report.html"
    options = ["--root", marked, "--no-cache", "--out", page, "--figures", "confusion", "learning-loss"]
    assert run(analyse, "report", *options) == 0
    assert run(analyse, "table", "--root", marked, "--no-cache", "--out", marked / "table.html") == 0
    for path in (page, marked / "table.html"):
        text = path.read_text(encoding="utf-8")
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "<script" not in text
        assert "<i>" not in text
        assert "{{7*7}}" in text, "not a template"


def test_latex_shows_what_users_wrote_as_text_alone(marked: Path) -> None:
    assert run(analyse, "table", "--root", marked, "--no-cache", "--out", marked / "table.tex") == 0
    text = (marked / "table.tex").read_text()
    assert "\\input" not in text
    assert r"{\textbackslash}input\{/etc/passwd\}" in text
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert escape("\x1b[2J") == "{}[2J"


def test_complaints_are_one_printable_line() -> None:
    assert one_line(f"a\n b\r\nc{STEERING}") == r"a; b; c\u001b]0;title\u0007\u001b[2J\u009b31m\u202e"
    assert one_line("file \udcff.h5") == r"file \udcff.h5"
    assert printable("ä 漢 ◆ ±\tx\n") == "ä 漢 ◆ ±\tx\n"
    assert [is_plain(text) for text in ("ä b", "", " ", "a\nb", "a\x7f")] == [True, False, False, False, False]
