"""Import time series of the UEA archive (`NAME_TRAIN.ts`, `NAME_TEST.ts`), as several modalities.

After a header of `@key value` lines and `@data`, each line is a case: its dimensions between `:`, their values between
`,`, and the class last. `?` and NaN are missing values. https://www.timeseriesclassification.com
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmkd.data.conversion import narrow
from mmkd.data.dataset import Array, Split
from mmkd.data.identify import identify
from mmkd.data.importers.importing import DEFAULT, Facts, Options, stack_sequences, write_import
from mmkd.data.importers.parts import draw_parts
from mmkd.data.untrusted import memory_for
from mmkd.errors import UserError

_NAME = re.compile(r"(?P<name>.*?)_?(?P<part>train|valid|validation|dev|test)\.ts", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """The cases of one file: the name of the problem, dimensions (T,) of each case, and classes."""

    problem: str
    cases: list[list[Array]]
    labels: list[str]


def import_uea(
    source: str | Path,
    out: str | Path,
    modalities: Mapping[str, Sequence[int]],
    *,
    seed: int = 0,
    options: Options = DEFAULT,
) -> str:
    """Write a problem of the UEA archive to `out` in the HDF5 layout; return the fingerprint.

    The official test part is kept. Validation is a fifth of the training cases, with about equal shares of the classes.

    Args:
        source: a folder with `*_TRAIN.ts` and `*_TEST.ts`, or one of these files.
        out: the file to write.
        modalities: name -> its dimensions, from 0.
        seed: of the draw of validation.
        options: repairs, padding, and who hears of them.

    Raises:
        UserError: naming the file and line that cannot be read, the dimension that does not exist, or what an import
            refuses.
        OSError: `out` cannot be written.
    """
    files = _find(Path(source))
    read = {part: _read(path, options) for part, path in files.items()}
    train = read["train"]
    for part, series in read.items():
        _check_dimensions(files[part], series, modalities)
    classes = tuple(sorted({label for series in read.values() for label in series.labels}, key=_order))
    index = {name: number for number, name in enumerate(classes)}
    names = {part: [f"{part}-{n}" for n in range(len(series.labels))] for part, series in read.items()}
    drawn = "valid" not in read
    chosen = {part: dict.fromkeys(names[part], part) for part in read}
    if drawn:
        chosen["train"] = draw_parts(names["train"], [index[x] for x in train.labels], [], ("valid", "train"), seed)
    splits = _splits(read, names, chosen, modalities, index)
    facts = Facts(classes, f"{train.problem}, UEA archive", "see the archive's page of the problem")
    notes = [f"from {', '.join(path.name for path in files.values())}", *_dimensions(modalities)]
    notes += [f"validation drawn from train, seed {seed}"] if drawn else []
    return write_import(out, splits, facts, notes, options, "front")


def _find(source: Path) -> dict[str, Path]:
    """The files by part, from a folder or one of them."""
    if not source.exists():
        raise UserError(f"{source}: no such file or directory")
    if source.is_file() and source.suffix.lower() != ".ts":
        raise UserError(f"{source}: not a .ts file; {identify(source) or 'name a folder or a .ts file'}")
    folder = source if source.is_dir() else source.parent
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            part = {"validation": "valid", "dev": "valid"}.get(match["part"].lower(), match["part"].lower())
            found.setdefault(match["name"], {})[part] = path
    own = _NAME.fullmatch(source.name) if source.is_file() else None
    if own:
        found = {own["name"]: found[own["name"]]}
    if len(found) != 1:
        held = f"holds the problems {', '.join(found)}; name a .ts file" if found else "has no *_TRAIN.ts and *_TEST.ts"
        known = "" if found else identify(folder)
        raise UserError(f"{source}: {held}{known and '; '}{known}")
    ((name, parts),) = found.items()
    for part in ("train", "test"):
        if part not in parts:
            raise UserError(
                f"{folder}: {name}_{part.upper()}.ts is missing beside {', '.join(p.name for p in parts.values())}"
            )
    return {part: parts[part] for part in ("train", "valid", "test") if part in parts}


def _read(path: Path, options: Options) -> Series:
    """Read a .ts file.

    Raises:
        UserError: naming the line.
    """
    header: dict[str, str] = {}
    cases: list[list[Array]] = []
    labels: list[str] = []
    in_data = False
    size, seen = path.stat().st_size, 0
    try:
        with memory_for(path), path.open(encoding="utf-8", errors="strict") as file:
            for number, line in enumerate(file, 1):
                seen += len(line)
                text = line.strip()
                if not text or text.startswith("#"):
                    continue
                if in_data:
                    options.progress(f"reading {path.name}: {seen / max(size, 1):.0%}")
                    with _in_line(path, number):
                        case, label = _case(text)
                    cases.append(case)
                    labels.append(label)
                elif text.lower() == "@data":
                    _check_header(path, header)
                    in_data = True
                elif text.startswith("@"):
                    key, _, value = text[1:].partition(" ")
                    header[key.lower()] = value.strip()
                else:
                    raise UserError(f"{path}: line {number} is neither a header line @key nor after @data")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; {identify(path) or 'name a .ts file'}") from None
    except MemoryError:
        raise UserError(f"{path}: its lines need more memory than a file of {size} bytes should") from None
    if not cases:
        raise UserError(f"{path}: no case after @data; {identify(path) or 'is it a .ts file?'}")
    return Series(header.get("problemname") or _problem(path), cases, labels)


def _problem(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    return match["name"] if match else path.stem


@contextmanager
def _in_line(path: Path, number: int) -> Iterator[None]:
    """Turn a ValueError in the block into a UserError about a line."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{path}: line {number}: {str(error)[:200]}") from None


def _check_header(path: Path, header: Mapping[str, str]) -> None:
    if header.get("timestamps", "false").lower() == "true":
        raise UserError(f"{path}: has time stamps (@timeStamps true); resample it to even steps, without time stamps")
    if header.get("classlabel", "true").lower().startswith("false") or "targetlabel" in header:
        raise UserError(f"{path}: has no classes (@classLabel); mmkd needs a class for each case")


def _case(text: str) -> tuple[list[Array], str]:
    *dimensions, label = text.split(":")
    if not dimensions:
        raise ValueError("no ':' before a class")
    if not label.strip():
        raise ValueError("no class after the last ':'")
    case = []
    for dimension in dimensions:
        values = ["nan" if value.strip() == "?" else value for value in dimension.split(",")]
        case.append(np.array(values, np.float64))
    return case, label.strip()


def _check_dimensions(path: Path, series: Series, modalities: Mapping[str, Sequence[int]]) -> None:
    counts = sorted({len(case) for case in series.cases})
    if len(counts) > 1:
        raise UserError(f"{path}: cases have {counts[0]} to {counts[-1]} dimensions, not one number")
    for modality, chosen in modalities.items():
        for dimension in chosen:
            if dimension >= counts[0]:
                raise UserError(
                    f"{path}: modality {modality!r} asks for dimension {dimension}, but there are {counts[0]}, from 0 "
                    f"to {counts[0] - 1}"
                )


def _splits(
    read: Mapping[str, Series],
    names: Mapping[str, list[str]],
    chosen: Mapping[str, Mapping[str, str]],
    modalities: Mapping[str, Sequence[int]],
    index: Mapping[str, int],
) -> dict[str, Split]:
    """The cases as splits, in the order of the files."""
    arrays: dict[str, dict[str, list[Array]]] = {p: {m: [] for m in modalities} for p in ("train", "valid", "test")}
    labels: dict[str, list[int]] = {part: [] for part in arrays}
    ids: dict[str, list[str]] = {part: [] for part in arrays}
    for source, series in read.items():
        for name, case, label in zip(names[source], series.cases, series.labels, strict=True):
            part = chosen[source][name]
            for modality, dimensions in modalities.items():
                arrays[part][modality].append(_sequence(f"case {name!r}, {modality}", case, dimensions))
            labels[part].append(index[label])
            ids[part].append(name)
    stacked, lengths = stack_sequences(arrays)
    return {
        part: Split(arrays=stacked[part], lengths=lengths[part], labels=np.array(labels[part]), ids=ids[part])
        for part in arrays
    }


def _sequence(where: str, case: list[Array], dimensions: Sequence[int]) -> Array:
    """(T, F) of some dimensions of a case; steps behind in which all are missing are cut off."""
    chosen = [case[dimension] for dimension in dimensions]
    if len({len(values) for values in chosen}) > 1:
        steps = ", ".join(str(len(values)) for values in chosen)
        raise UserError(f"{where}: its dimensions have {steps} steps; give those of one length to one modality")
    sequence = np.stack(chosen, axis=1)
    there = np.flatnonzero(~np.isnan(sequence).all(axis=1))
    return narrow(where, sequence[: there[-1] + 1] if len(there) else sequence)


def _dimensions(modalities: Mapping[str, Sequence[int]]) -> list[str]:
    return [f"{modality} = dimensions {', '.join(map(str, chosen))}" for modality, chosen in modalities.items()]


def _order(label: str) -> tuple[int, float, str]:
    """Numbers by value, then texts."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
