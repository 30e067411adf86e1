"""Fuzz the readers of files, guided by coverage (atheris): `python tests/campaigns/fuzz.py --seconds 600`.

Each target is fuzzed in a process of its own, which is started again where it dies, until its time is over. A finding
is whatever is not the reader's own refusal: another exception, a crash of C code, more than 20 s or 4 GiB. The input
that led to it is kept under --folder, and `--replay FILE TARGET` runs it again. Needs `pip install atheris`.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_importers import IMPORTERS

SECONDS_AN_INPUT, MEBIBYTES = 20, 4096
INSTRUMENTED = ["mmkd", "h5py"]
"""Python whose coverage guides. C code (HDF5, numpy, pickle) is not instrumented, nor is torch: that takes minutes."""

TOKENS = """\
"cnumpy\\x0adtype\\x0a" "cnumpy\\x0andarray\\x0a" "cnumpy.core.multiarray\\x0a_reconstruct\\x0a"
"cnumpy.core.multiarray\\x0ascalar\\x0a" "cnumpy.core.numeric\\x0a_frombuffer\\x0a" "c_codecs\\x0aencode\\x0a"
"c__builtin__\\x0abytes\\x0a" "K\\x00\\x85C\\x01b\\x87R" "\\x80\\x02" "\\x80\\x04\\x95"
"X\\x02\\x00\\x00\\x00f8" "\\x8c\\x02O8"
"(K\\x01K\\x02\\x85" "\\x89" "tb." "\\x93" "\\x94" "r\\xff\\xff\\xff\\x7f"
"\\x96\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f"
"\\x89HDF\\x0d\\x0a\\x1a\\x0a" "OHDR" "OCHK" "FRHP" "BTHD" "BTLF" "TREE" "HEAP" "SNOD" "GCOL" "FSHD"
"mmkd_layout" "result_version" "metrics" "arrays" "lengths" "labels" "scores" "ids"
"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
"ctorch._utils\\x0a_rebuild_tensor_v2\\x0a" "ccollections\\x0aOrderedDict\\x0a" "ctorch\\x0aFloatStorage\\x0a"
"Q" "\\x8a"
"train" "valid" "test" "vision" "audio" "text" "regression_labels" "audio_lengths" "vision_lengths" "id"
"@data\\x0a" "@classLabel" "@timeStamps" "@targetLabel" ":" "?" "NaN" "inf" "1e39"
"\\x93NUMPY\\x01\\x00" "'descr': '<f8'" "'shape': (" "PK\\x03\\x04" "PK\\x05\\x06" "MATLAB 7.3"
"id,label,split,group\\x0a" "ustar"
"""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def fuzz_pickle(path: Path, content: bytes) -> None:
    """The safe pickle reader; what it returns must hold nothing but plain values."""
    from mmkd.data.safe_pickle import load_arrays
    from mmkd.errors import UserError

    path.write_bytes(content)
    try:
        check_plain(load_arrays(path), 50)
    except UserError:
        return


def check_plain(value: Any, depth: int) -> None:
    """Raises AssertionError for a value that no plain pickle holds."""
    import numpy as np

    if isinstance(value, np.ndarray):
        np.array(value).tobytes()  # reads its memory
        return
    plain = (bool, int, float, complex, str, bytes, bytearray, set, frozenset, np.generic, type(None))
    known = (list, tuple, dict, *plain)
    standing_in = type(value).__module__ == "mmkd.data.safe_pickle" or callable(value)  # harmless, and refused later
    assert isinstance(value, known) or standing_in, type(value)
    if depth and isinstance(value, (list, tuple)):
        for item in value[:100]:
            check_plain(item, depth - 1)


def fuzz_dataset(path: Path, content: bytes) -> None:
    """All readers of a data file."""
    from mmkd.data import check_dataset, read_split, read_statistics
    from mmkd.errors import UserError

    path.write_bytes(content)
    for read in (check_dataset, read_statistics, lambda file: [read_split(file, s) for s in ("train", "test")]):
        try:
            read(path)
        except UserError:
            continue


def fuzz_result(path: Path, content: bytes) -> None:
    """The readers of a result, with the right checksum: it would keep most inputs from being read at all."""
    from mmkd.checksum import checksum_line
    from mmkd.result_file import ResultError, read_result, read_summary

    path.write_bytes(content + checksum_line(content))
    for read in (read_result, read_summary):
        try:
            read(path)
        except ResultError:
            continue


def fuzz_checkpoint(path: Path, content: bytes) -> None:
    """The reader of checkpoints, with the right checksums: `content` is the pickle in the archive that torch writes."""
    import torch

    from mmkd.checksum import checksum_line
    from mmkd.training.checkpoint import CheckpointError, read_checkpoint

    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed_checkpoint(path))) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, content if entry.filename.endswith("/data.pkl") else old.read(entry))
    path.write_bytes(made.getvalue() + checksum_line(made.getvalue()))
    try:
        read_checkpoint(path, "identity", torch.device("cpu"))
    except CheckpointError:
        return


def seed_checkpoint(path: Path, kept: list[bytes] = []) -> bytes:  # noqa: B006 (made once)
    """A small checkpoint as torch writes it, without its checksum."""
    import torch

    from mmkd.training.checkpoint import Progress, save_checkpoint

    if not kept:
        place = path.with_name("seed.pt")
        progress = Progress(1, 2, {"loss": torch.ones(1)}, [{"epoch": 1.0}], 0, 0.5, {"weight": torch.ones(2, 2)}, 1.0)
        save_checkpoint(place, "identity", progress, {"optimizer": {"state": {0: {"step": torch.ones(1)}}}})
        content = place.read_bytes()
        end = content.rindex(b"PK\x05\x06")
        kept.append(content[: end + 22 + int.from_bytes(content[end + 20 : end + 22], "little")])
    return kept[0]


def fuzz_identify(path: Path, content: bytes) -> None:
    """What a wrong file is."""
    from mmkd.data.identify import identify
    from mmkd.terminal import one_line

    path.write_bytes(content)
    said = identify(path)
    assert len(one_line(said)) < 2000


def identify_seeds(path: Path) -> Iterator[bytes]:
    """A file of each kind that is known."""
    yield from pickle_seeds(path)
    yield from dataset_seeds(path)
    yield from (content[1:] for content in IMPORTERS["arrays"][1](path))
    yield next(IMPORTERS["uea"][1](path))
    yield b"MATLAB 5.0 MAT-file"
    yield b"\0\0\0\x18ftypmp42"
    yield b"\0" * 257 + b"ustar" + b"\0" * 300
    yield b"@relation x\n@data\n"


def pickle_seeds(path: Path) -> Iterator[bytes]:
    """Pickles of every protocol, with all kinds of arrays."""
    import pickle

    import numpy as np

    value = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.array([b"id", None, 1.5], dtype=object),
        "d": np.float64(2.5), "e": [1, 2.0, "three", b"four", None, (True, {})],
    }  # fmt: skip
    for protocol in range(6):
        yield pickle.dumps(value, protocol)
        yield pickle.dumps(np.ones(3, ">f4"), protocol).replace(b"numpy._core", b"numpy.core")


def dataset_seeds(path: Path) -> Iterator[bytes]:
    """A small data file of classes and one of scores."""
    import numpy as np

    from mmkd.data import Split, write_dataset

    def split(name: str, scores: Any = None) -> Split:
        arrays = {"video": np.ones((2, 2, 3), "f4"), "audio": np.ones((2, 1, 2), "f2")}
        return Split(arrays=arrays, labels=np.array([0, 1]), scores=scores, ids=[f"{name}{n}" for n in range(2)])

    facts: dict[str, Any] = {"classes": ["a", "b"], "source": "s", "license": "l"}
    write_dataset(path, {n: split(n) for n in ("train", "valid", "test")}, **facts, vectors={"video": 3})
    yield path.read_bytes()
    scored = {n: split(n, np.array([0.0, 1.0])) for n in ("train", "valid", "test")}
    write_dataset(path, scored, **facts, label_kind="score", score_range=(0, 1))
    yield path.read_bytes()


def result_seeds(path: Path) -> Iterator[bytes]:
    """A small result, without its checksum."""
    import numpy as np

    from mmkd.checksum import CHECKSUM_BYTES
    from mmkd.result_file import Predictions, Result, Status, write_result
    from mmkd.rundir import TrialDir

    place = TrialDir(path.parent)
    outputs = Predictions(np.ones((2, 3), "f4"), np.array([0, 1]), ["a", "b"], np.ones(2, "f4"))
    metrics = {"valid": {"loss": 0.5}, "test": {"loss": 0.5}}
    pairs = {"video": (np.ones(2), np.ones(2))}
    result = Result(Status.COMPLETE, {"seed": 1}, metrics=metrics, curves={"loss": [1.0]}, standardisation=pairs)
    for known in (result, Result(Status.PRUNED, {}, predictions={"valid": outputs})):
        write_result(place, known)
        yield place.result.read_bytes()[:-CHECKSUM_BYTES]


def checkpoint_seeds(path: Path) -> Iterator[bytes]:
    """The pickle in a checkpoint's archive."""
    with zipfile.ZipFile(io.BytesIO(seed_checkpoint(path))) as archive:
        yield next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


TARGETS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[Path], Iterator[bytes]]]] = {
    "pickle": (fuzz_pickle, pickle_seeds),
    "dataset": (fuzz_dataset, dataset_seeds),
    "result": (fuzz_result, result_seeds),
    "checkpoint": (fuzz_checkpoint, checkpoint_seeds),
    **IMPORTERS,
    "identify": (fuzz_identify, identify_seeds),
}


def fuzz_here(target: str, options: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with scratch() as folder:
        path, (function, seeds) = folder / "input", TARGETS[target]
        with atheris.instrument_imports(include=INSTRUMENTED):
            function(path, next(seeds(folder / "seed")))  # imports all that the target needs
        atheris.Setup([sys.argv[0], *options], lambda content: function(path, content))
        atheris.Fuzz()


@dataclass
class Tally:
    """What became of one target: `findings` counts each kind, by its last words."""

    executions: int = 0
    starts: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    coverage: int = 0
    findings: dict[str, int] = field(default_factory=dict)


def campaign(target: str, seconds: float, folder: Path) -> Tally:
    """Fuzz a target for so many seconds by the clock, in as many processes as it takes."""
    import psutil

    corpus, found, tally = folder / target, folder / f"{target}-findings", Tally()
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    (folder / "tokens").write_text("\n".join(re.findall(r'"(?:[^"\\]|\\.)+"', TOKENS)) + "\n")
    with scratch() as place:
        for number, content in enumerate(TARGETS[target][1](place / "seed")):
            (corpus / f"seed{number}").write_bytes(content)
    started = time.monotonic()
    while (left := seconds - (time.monotonic() - started)) > 1:
        tally.starts += 1
        limits = [f"-max_total_time={left:.0f}", f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEBIBYTES}"]
        limits += [f"-dict={folder / 'tokens'}", f"-artifact_prefix={found}/", "-print_final_stats=1", "-max_len=65536"]
        command = [sys.executable, __file__, "--fuzz", target, *limits, str(corpus)]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        before = sum(psutil.Process().cpu_times()[2:4])
        said = process.communicate()[1]
        tally.cpu += sum(psutil.Process().cpu_times()[2:4]) - before
        counts = re.findall(r"^#(\d+)\s", said, re.MULTILINE)
        tally.executions += max(map(int, counts), default=0)
        tally.coverage = max([tally.coverage, *map(int, re.findall(r"cov: (\d+)", said))])
        if process.returncode:
            words = last_words(said)
            tally.findings[words] = tally.findings.get(words, 0) + 1
            print(f"{target}: {words}", flush=True)
    tally.seconds = time.monotonic() - started
    return tally


def last_words(said: str) -> str:
    """What ended a process, in a line: the exception and where, or libFuzzer's word for a crash."""
    raised = re.findall(r"^(?: === Uncaught Python exception: ===\n)(.*)$", said, re.MULTILINE)
    where = re.findall(r'File "[^"]*/(\w+\.py)", line (\d+)', said)
    crash = re.findall(r"(?:ERROR|SUMMARY): libFuzzer: (.*)", said)
    place = " at {}:{}".format(*where[-1]) if where else ""
    return (raised[-1][:200] if raised else crash[-1][:200] if crash else said.strip()[-200:]) + place


def main() -> None:
    """Fuzz one target after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target (default: %(default)g)")
    parser.add_argument("--folder", type=Path, default=Path("fuzz"), help="corpora and findings (default: ./fuzz)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the target on this input, and stop")
    if sys.argv[1:2] == ["--fuzz"]:
        return fuzz_here(sys.argv[2], sys.argv[3:])
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(sorted(unknown))} (there are: {', '.join(TARGETS)})")
    if options.replay:
        with scratch() as folder:
            return TARGETS[options.targets[0]][0](folder / "input", options.replay.read_bytes())
    print(f"{'target':12}{'executions':>12}{'seconds':>9}{'of CPU':>9}{'coverage':>10}{'starts':>8}  findings")
    for target in options.targets or TARGETS:
        tally = campaign(target, options.seconds, options.folder)
        kinds = "; ".join(f"{words} ({times})" for words, times in tally.findings.items()) or "none"
        figures = f"{tally.executions:>12,}{tally.seconds:>9.0f}{tally.cpu:>9.0f}{tally.coverage:>10}{tally.starts:>8}"
        print(f"{target:12}{figures}  {kinds}", flush=True)


if __name__ == "__main__":
    main()
