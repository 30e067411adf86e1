"""Cells as they are shown: rounded, one precision a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from analysis.stats.uncertainty import column_decimals, finest_decimals, pdg_decimals
from analysis.tables.model import Cell, Column, Section, TableRow
from mmkd.formatting import significant

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def with_text(sections: Sequence[Section], columns: Sequence[Column], samples: int) -> Iterator[Section]:
    """The sections with the text of every cell; `samples` of test decide how fine a score may be shown."""
    rows = [row for section in sections for row in section.rows]
    decimals = {column.key: _decimals(column, rows, samples) for column in columns}
    # A difference is as fine as what it is a difference of.
    decimals |= {column.key: decimals["accuracy"] for column in columns if column.style in ("difference", "interval")}
    finest = finest_decimals(samples)
    for section in sections:
        yield Section(section.title, tuple(_row_with_text(row, columns, decimals, finest) for row in section.rows))


def _decimals(column: Column, rows: Sequence[TableRow], samples: int) -> int:
    cells = [row.cells[column.key] for row in rows]
    if column.style == "cost":
        largest = max((cell.value or 0.0 for cell in cells), default=0.0)
        return 0 if largest >= 100 else 1 if largest >= 1 else 2
    return column_decimals([cell.error or cell.spread or 0.0 for cell in cells], samples)


def _row_with_text(row: TableRow, columns: Sequence[Column], decimals: Mapping[str, int], finest: int) -> TableRow:
    cells = {
        column.key: replace(cell, text=cell_text(column, cell, decimals[column.key], finest))
        for column in columns
        for cell in [row.cells[column.key]]
    }
    return replace(row, cells=cells)


def cell_text(column: Column, cell: Cell, decimals: int, finest: int = 0) -> str:
    """A cell as it is shown, with its column's decimals; with up to `finest` where its spread would become zero."""
    if cell.value is None:
        return cell.text
    match column.style:
        case "ratio":
            return f"{cell.n}" if cell.n == cell.wanted else f"{cell.n}/{cell.wanted}"
        case "count":
            return f"{cell.value:z,.0f}".replace("-", MINUS)
        case "times":
            return f"{cell.value:.{2 if cell.value < 10 else 1}f}{TIMES}"
        case "p":
            return "<0.001" if cell.value < 0.001 else f"{cell.value:.3f}"
        case "effect":
            return f"{cell.value:+z.2f}".replace("-", MINUS)
        case "difference":
            return _difference(cell, decimals)
        case "interval":
            return f"[{', '.join(f'{end:+z.{decimals}f}' for end in cell.interval or ())}]".replace("-", MINUS)
        case "gap":
            return _with_interval(f"{cell.value:z,.0f}", [f"{end:z,.0f}" for end in cell.interval or ()])
    if column.style != "spread" or cell.error is None:
        return f"{cell.value:.{decimals}f}"
    error = f"{cell.error:.{decimals}f}"
    if cell.error > 0 and not float(error):
        decimals = max(decimals, min(pdg_decimals(cell.error), finest))
        error = f"{cell.error:.{decimals}f}"
        error = error if float(error) else significant(cell.error, 1)
    return f"{cell.value:.{decimals}f} ± {error}"


def _with_interval(value: str, ends: Sequence[str]) -> str:
    return (f"{value} [{', '.join(ends)}]" if ends else value).replace("-", MINUS)


def _difference(cell: Cell, decimals: int) -> str:
    assert cell.difference is not None
    ends = [end for end in (cell.difference.low, cell.difference.high) if end is not None]
    return _with_interval(f"{cell.difference.value:+z.{decimals}f}", [f"{end:+z.{decimals}f}" for end in ends])
