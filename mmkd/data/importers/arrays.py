"""Import a folder of recordings: `MODALITY/SAMPLE.npy` (or .npz, .csv) and a table of labels.

The table is a CSV file with the columns id, label, and optionally split and group (or subject, speaker, video).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mmkd.data.dataset import SPLITS, Array, Split
from mmkd.data.identify import identify
from mmkd.data.importers.importing import DEFAULT, Facts, Options, some, stack_sequences, write_import
from mmkd.data.importers.label_table import Scores, Table, read_labels, read_table
from mmkd.data.importers.parts import draw_parts
from mmkd.data.importers.recordings import ENDINGS, read_recording
from mmkd.errors import UserError
from mmkd.formatting import count


def import_arrays(
    folder: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    scores: Scores | None = None,
    seed: int = 0,
    options: Options = DEFAULT,
) -> str:
    """Write a folder of recordings to `out` in the HDF5 layout; return the fingerprint.

    Args:
        folder: has one folder for each modality with one file (T, F) or (T,) for each sample, named after its id.
        out: the file to write.
        labels: the table; None: `labels.csv` in the folder. Without a column split, a fifth of the samples is for
            test and one for validation, with about equal shares of the classes, and no group in two parts.
        scores: labels are scores with these bins; None: they are classes.
        seed: of the draw of the parts.
        options: repairs, padding, and who hears of them.

    Raises:
        UserError: naming the file, line or sample that is missing, doubled or unreadable; or what an import refuses.
        OSError: `out` cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder of recordings; {identify(folder) or 'name a folder'}")
    table = read_table(Path(labels) if labels else folder / "labels.csv")
    found = _find_folders(folder)
    table = replace(table, ids=_match_ids(table, found))
    files = _check_complete(folder, found, table, options)
    classes, values, numbers = read_labels(table, scores)
    parts = table.splits
    notes = [f"from {folder.name}, labels of {table.path.name}"]
    if not parts:
        drawn = draw_parts(table.ids, values.tolist(), table.groups, ("test", "valid", "train"), seed)
        parts = [drawn[sample] for sample in table.ids]
        notes.append(f"parts drawn {'by group' if table.groups else 'by sample'}, seed {seed}")
    arrays: dict[str, dict[str, list[Array]]] = {part: {m: [] for m in files} for part in SPLITS}
    rows: dict[str, list[int]] = {part: [] for part in SPLITS}
    for row, (sample, part) in enumerate(zip(table.ids, parts, strict=True)):
        options.progress(f"reading sample {row + 1:,} of {len(parts):,}")
        rows[part].append(row)
        for modality, paths in files.items():
            arrays[part][modality].append(read_recording(paths[sample]))
    if empty := [part for part in SPLITS if not rows[part]]:
        raise UserError(f"{table.path}: no sample of {' and '.join(empty)} in the column split")
    _check_features(files, arrays, rows, table)
    stacked, lengths = stack_sequences(arrays)
    splits = {
        part: Split(
            arrays=stacked[part],
            lengths=lengths[part],
            labels=values[rows[part]],
            scores=None if numbers is None else numbers[rows[part]],
            ids=[table.ids[row] for row in rows[part]],
            groups=[table.groups[row] for row in rows[part]] if table.groups else [],
        )
        for part in SPLITS
    }
    bounds = None if scores is None else (scores.first, scores.last)
    facts = Facts(classes, "own recordings", "not stated", bounds)
    return write_import(out, splits, facts, notes, options, "front")


def _find_folders(folder: Path) -> dict[str, dict[str, Path]]:
    """modality -> sample -> file.

    Raises:
        UserError: there is no folder with such files, or one without, or one with two files of a sample.
    """
    found: dict[str, dict[str, Path]] = {}
    for place in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        paths: dict[str, Path] = {}
        for path in sorted(place.iterdir()):
            if path.suffix.lower() not in ENDINGS:
                continue
            if path.stem in paths:
                raise UserError(f"{place}: {paths[path.stem].name} and {path.name} are the same sample; keep one")
            paths[path.stem] = path
        if paths:
            found[place.name] = paths
        elif any(place.iterdir()):
            first = min(place.iterdir())
            known = identify(first)
            raise UserError(
                f"{place}: has no {', '.join(ENDINGS)} file, but {first.name}{known and '; '}{known}; move the folder "
                f"away if it is no modality"
            )
    if not found:
        known = identify(folder)
        raise UserError(
            f"{folder}: has no folders with {', '.join(ENDINGS)} files, one for each modality{known and '; '}{known}"
        )
    return found


def _check_complete(
    folder: Path, found: dict[str, dict[str, Path]], table: Table, options: Options
) -> dict[str, dict[str, Path]]:
    """The files; each modality has all samples of the table.

    Raises:
        UserError: a modality lacks a sample, naming both.
    """
    for modality, paths in found.items():
        missing = [sample for sample in table.ids if sample not in paths]
        if missing:
            raise UserError(
                f"{folder}: {modality} is missing in {count(len(missing), 'sample')} of {table.path.name}: "
                f"{some(missing)}; add the files, or remove the lines"
            )
        if unused := sorted(paths.keys() - set(table.ids)):
            options.report(
                f"{modality}: {count(len(unused), 'file')} without a line in {table.path.name} left out: {some(unused)}"
            )
    return found


def _match_ids(table: Table, found: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """The ids; the table's may be names of files, with their endings."""
    known = set().union(*found.values())
    ids = [
        Path(sample).stem
        if sample not in known and sample.lower().endswith(ENDINGS) and Path(sample).stem in known
        else sample
        for sample in table.ids
    ]
    if len(set(ids)) < len(ids):
        raise UserError(f"{table.path}: an id is there with and without its ending; keep one")
    return ids


def _check_features(
    files: Mapping[str, Mapping[str, Path]],
    arrays: Mapping[str, Mapping[str, list[Array]]],
    rows: Mapping[str, Iterable[int]],
    table: Table,
) -> None:
    """Refuse unlike numbers of features, naming two files."""
    for modality, paths in files.items():
        first: tuple[str, Array] | None = None
        for part in SPLITS:
            for row, array in zip(rows[part], arrays[part][modality], strict=True):
                sample = table.ids[row]
                first = first or (sample, array)
                if array.shape[1] != first[1].shape[1]:
                    turned = array.shape[0] == first[1].shape[1] or array.shape[0] == first[1].shape[0]
                    raise UserError(
                        f"{paths[sample]}: its shape is {array.shape}, but {paths[first[0]].name} has {first[1].shape}"
                        f"; all samples need the same number of features{' (is one transposed?)' if turned else ''}"
                    )
