"""Where a number of a table comes from: the tidy rows that the cell was made from, their files and provenance (``prunebench trace``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from prunebench import reporting
from prunebench.artifacts import read_csv, sha256_of
from prunebench.errors import PrunebenchError
from prunebench.reporting import maker, shown
from prunebench.reporting.collect import DELIVERED, DENSE, PROVENANCE_COLUMNS, SCORING, Tables, read_tables
from prunebench.reporting.formats import Column, Origin, Table

# What a row of a table and a tidy row must have in common, where both have it.
_KEYS = ("dataset", "model", "schedule", "operating_point", "criterion", "replicate", "fine_tuning_epochs")
_AUDIT_KEYS = ("method", "step", "from", "to")
# Columns that say which row it is, in any table: those above, and what a table's rows are about.
_NAMING = {*_KEYS, *_AUDIT_KEYS, "consensus", "metric", "evaluation", "quantity", "control"}


@dataclass(frozen=True)
class Value:
    """A tidy row that a cell was made from.

    Attributes:
        tidy: Its table.
        line: Its line in the CSV file; the header is line 1.
        row: Its columns.
        source: The file it was read from, relative to the suite's folder.
    """

    tidy: str
    line: int
    row: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Trace:
    """A cell and what it was made from.

    Attributes:
        table: Name of the table.
        keys: What the row is.
        column: The column's header, or its name in the CSV file where it is not shown.
        text: The cell as shown.
        data: The columns of the CSV file that the cell shows, with their values.
        values: The tidy rows behind it.
        known: Whether the table says which rows those are; without any, the cell says which row it is, or nothing was measured for it.
        stale: Whether the table's CSV file has something else in this row than the tidy tables give.
    """

    table: str
    keys: dict[str, Any]
    column: str
    text: str
    data: dict[str, Any]
    values: list[Value]
    known: bool
    stale: bool


class _Watched:
    """A row that remembers which of its columns were read."""

    def __init__(self, row: pd.Series[Any]) -> None:
        self._row, self.read = row, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name in self._row.index:
            self.read[name] = self._row[name]
        return self._row[name]

    def __getattr__(self, name: str) -> Any:
        return self[name] if name in self._row.index else getattr(self._row, name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._row.index else default


def trace(table: Path, row: str, column: str) -> Trace:
    """Find what a cell was made from.

    Args:
        table: File of one of the paper's tables, in the folder of the tidy ones.
        row: ``criterion=cka,operating_point=blocks5``: columns of the CSV file or headers as shown, until one row is left; or the
            number of the row in the CSV file, the first below the header being 1.
        column: A column of the CSV file, or a header as shown.

    Raises:
        PrunebenchError: there is no such table, row or column, or several rows; the message says what there is.
    """
    tidy = read_tables(table.parent)
    made = made_by(table, tidy)
    number = row_number(made, row)
    return find(made, tidy, number, column, _stale(table.with_suffix(".csv"), number, made.data.iloc[number]))


def find(made: Table, tidy: Tables, number: int, column: str, stale: bool = False) -> Trace:
    """The same of a table that was made already, by the place of the row in its data.

    Raises:
        PrunebenchError: there is no such column.
    """
    record = made.data.iloc[number]
    header, cell, origins = _column(made, record, column)
    watched = _Watched(record)
    text = cell(watched) if cell else str(record[header])
    data = watched.read if cell else {header: record[header]}
    values = [value for origin in origins for value in _values(tidy, origin, record)]
    # One row may be behind a cell in two ways.
    unique = {(value.tidy, value.line): value for value in values}
    keys = {name: record[name] for name in [*made.group, *_KEYS, *_AUDIT_KEYS] if name in record.index}
    known = bool(origins) or set(data) <= {*_NAMING, *made.group}
    return Trace(made.name, keys, header, text, data, list(unique.values()), known, stale)


def made_by(path: Path, tidy: Tables) -> Table:
    """The table of a file's name, made anew.

    Raises:
        PrunebenchError: the suite has no table of this name.
    """
    places = shown(reporting.TABLES, tidy.subjects())
    if path.stem not in places:
        raise PrunebenchError(f"{path}: no table of the paper has this name; the tables of this suite are {', '.join(places)}")
    table: Table = maker("TABLES", path.stem, places[path.stem])(tidy)
    return table


def row_number(table: Table, wanted: str) -> int:
    """The place of the one row that is wanted (see ``trace``), from 0.

    Raises:
        PrunebenchError: no row is, or several are; the message says what there is.
    """
    if wanted.isdigit():
        if not 1 <= int(wanted) <= len(table.data):
            raise PrunebenchError(f"--row {wanted}: table {table.name} has rows 1 to {len(table.data)}")
        return int(wanted) - 1
    left = list(range(len(table.data)))
    # A comma parts two conditions only before a further `name=`.
    for condition in filter(None, re.split(r",(?=[^,=]+=)", wanted)):
        name, equals, text = (part.strip() for part in condition.partition("="))
        cells = _cells(table, name) if equals else None
        if cells is None:
            names = ", ".join([*map(str, table.data.columns), *(column.header for column in table.columns)])
            raise PrunebenchError(f"--row {condition}: expected <column>=<value> of table {table.name}, with one of {names}")
        found = [number for number in left if text in cells[number]]
        if not found:
            there = ", ".join(dict.fromkeys(cells[number][0] for number in left))
            raise PrunebenchError(f"--row {condition}: no such row of table {table.name}; {name} may be {there}")
        left = found
    if len(left) > 1:
        chosen = table.data.iloc[left]
        apart = [name for name in [*table.group, *chosen.columns] if name in chosen and chosen[name].nunique() > 1]
        values = "; ".join(
            f"{name}={'|'.join(map(str, chosen[name].unique()[:12]))}"
            for name in dict.fromkeys(apart)
            if chosen[name].dtype != float
        )
        lines = ", ".join(str(number + 1) for number in left[:12])
        raise PrunebenchError(
            f"--row {wanted}: {len(left)} rows of table {table.name} (numbers {lines}); narrow it down by {values}"
        )
    return left[0]


def _cells(table: Table, name: str) -> list[tuple[str, ...]] | None:
    """What may be written for each cell of a column: numbers with and without their decimals; ``None`` if there is no such column."""
    if name in table.data.columns:
        return [(str(value), f"{value:g}") if isinstance(value, float) else (str(value),) for value in table.data[name]]
    for column in table.columns:
        if column.header == name:
            return [(column.cell(row),) for _, row in table.data.iterrows()]
    return None


def _column(table: Table, record: pd.Series[Any], name: str) -> tuple[str, Any, Sequence[Origin]]:
    """A column's header, the function that makes its cell (if it is shown), and its origins."""
    for column in table.columns:
        if column.header == name:
            return name, column.cell, column.origins
    if name not in table.data.columns:
        there = [*(column.header for column in table.columns), *map(str, table.data.columns)]
        raise PrunebenchError(f"--column {name}: table {table.name} has no such column; there are {', '.join(there)}")
    for pattern, origins_ in table.origins.items():
        if fnmatchcase(name, pattern):
            return name, None, origins_
    showing = [column for column in table.columns if name in _reads(column, table.data)]
    origins = list(dict.fromkeys(origin for column in showing for origin in column.origins))
    if not origins and "." in name:
        # Columns of quantities that the shown table leaves out are named <evaluation>.<quantity>.
        evaluation, _, quantity = name.partition(".")
        # What words say of an evaluation stands beside its numbers, or was made from its numbers of other work.
        words = {"method": ("*",), "beside": ("other_load_cores", "gpu_use_before_percent")}
        origins = [Origin(tidy, evaluation, words.get(quantity, quantity)) for tidy in ("results", "measured")]
    return name, None, origins


def _reads(column: Column, data: pd.DataFrame) -> set[str]:
    found: set[str] = set()
    # A cell of one row may not look at everything: a dash has nothing to show.
    for _, row in data.iterrows():
        watched = _Watched(row)
        column.cell(watched)
        found |= set(watched.read)
    return found


def _values(tidy: Tables, origin: Origin, record: pd.Series[Any]) -> Iterator[Value]:
    """The rows of a tidy table that an origin stands for."""
    frame: pd.DataFrame = getattr(tidy, origin.tidy)
    wanted: dict[str, tuple[str, ...]] = {name: (str(record[name]),) for name in _KEYS if name in record.index}
    if origin.tidy.startswith("audit"):
        wanted |= {name: (str(record[name]),) for name in _AUDIT_KEYS if name in record.index}
    if origin.schedule is not None:
        wanted["schedule"] = (origin.schedule,)
        if origin.schedule == DENSE and "operating_point" in frame.columns:
            # What scoring cost is kept under the dense network too, by the criterion that scored.
            wanted |= {"operating_point": (DENSE,)} | ({} if origin.evaluation == SCORING else {"criterion": (DENSE,)})
    elif origin.criterion is not None and "*" not in origin.criterion and wanted.get("schedule") == (DELIVERED,):
        # A delivered network meets the baseline of the one-shot schedule (statistics.compare).
        wanted["schedule"] = (DELIVERED, "one-shot")
    if origin.operating_point is not None:
        wanted["operating_point"] = _patterns(origin.operating_point, record)
    if origin.dataset is not None:
        wanted["dataset"] = _patterns(origin.dataset, record)
    if origin.criterion is not None:
        wanted["criterion"] = _patterns(origin.criterion, record)
    if "chain_criterion" in frame.columns and "criterion" not in frame.columns and "criterion" in wanted:
        wanted["chain_criterion"] = wanted.pop("criterion")
    for name, patterns in (("evaluation", origin.evaluation), ("quantity", origin.quantity)):
        wanted[name] = _patterns(patterns, record)
    keep = pd.Series(True, index=frame.index)
    for name in [name for name in wanted if name in frame.columns]:
        known = {value: any(fnmatchcase(str(value), pattern) for pattern in wanted[name]) for value in frame[name].unique()}
        keep &= frame[name].map(known).astype(bool)
    for number, row in zip(frame.index[keep], frame[keep].to_dict("records"), strict=True):
        found = {str(key): value for key, value in row.items()}
        yield Value(origin.tidy, int(number) + 2, found, source_of(origin.tidy, found))


def _patterns(patterns: str | tuple[str, ...], record: pd.Series[Any]) -> tuple[str, ...]:
    """Patterns with ``{column}`` filled in from the table's row."""
    several = (patterns,) if isinstance(patterns, str) else patterns
    return tuple(re.sub(r"\{(\w+)\}", lambda match: str(record.get(match[1], "")), pattern) for pattern in several)


def source_of(tidy: str, row: Mapping[str, Any]) -> str:
    """The file that a tidy row was read from, relative to the suite's folder, by the places of ``docs/data-contracts.md``."""
    if "source" in row:
        return str(row["source"])
    place = f"{row['dataset']}/{row['model']}/replicate{row['replicate']}"
    if tidy.startswith("audit"):
        return f"{place}/delivered/{row['method']}/{'audit' if tidy == 'audit_blocks' else tidy}.csv"
    if tidy == "oracle" or row["schedule"] == DENSE:
        return f"{place}/{DENSE}/{tidy}.csv"
    return f"{place}/{row['schedule']}/{row['chain_criterion']}/draw{row['draw']}/{tidy}.csv"


def _stale(path: Path, number: int, record: pd.Series[Any]) -> bool:
    """Whether the file of the table says something else than the tidy tables do now."""
    rows = read_csv(path, [])
    if number >= len(rows):
        return True
    written = {name: text for name, text in rows[number].items()}
    return written != {str(name): "" if value != value else str(value) for name, value in record.items()}


# --- for people ------------------------------------------------------------------------------------------------------


def report(found: Trace, tables: Path, at_most: int = 30) -> str:
    """What ``prunebench trace`` prints: the cell, the tidy rows behind it, their files and provenance.

    Args:
        found: As ``trace`` returns it.
        tables: The folder of the tables; the suite's folder is above it.
        at_most: How many tidy rows are written out; all files are.
    """
    lines = [f"{found.table}: {', '.join(f'{key} {value}' for key, value in found.keys.items())}"]
    lines.append(f"{found.column}: {found.text}")
    lines += [f"  {name} = {value}" for name, value in found.data.items() if str(value) != found.text]
    if found.stale:
        lines.append(f"NOTE: {found.table}.csv has other numbers than the tidy tables give; make the tables anew")
    if not found.values:
        why = "Nothing was measured for this cell: it says which row it is, or has nothing to show."
        unknown = "It is not known which rows this column was made from: the table does not say."
        return "\n".join([*lines, "", why if found.known else unknown])
    lines += ["", f"Made from {len(found.values)} row{'s' * (len(found.values) > 1)} of the tidy tables:"]
    lines += [f"  {_one_line(value)}" for value in found.values[:at_most]]
    if len(found.values) > at_most:
        lines.append(f"  ... and {len(found.values) - at_most} more (--all)")
    lines += ["", "Read from:"]
    known = {row["source"]: row for row in read_csv(tables / "provenance.csv", PROVENANCE_COLUMNS)}
    settings: dict[str, int] = {}
    for source in dict.fromkeys(value.source for value in found.values):
        path = tables.parent / source
        lines.append(f"  {path}")
        if not path.exists():
            lines.append("    MISSING: the file is not there any more")
        else:
            lines.append(f"    sha256 {sha256_of(path)}")
            lines += [f"    {text}" for text in _check(path, [value for value in found.values if value.source == source])]
        row = next((known[place] for place in _companions(source, known) if place in known), None)
        if row is None:
            lines.append("    no provenance was recorded")
            continue
        made = f"hardware {row['hardware']}\n     versions {row['versions']}"
        where = settings.setdefault(made, len(settings) + 1)
        config, seed = row["config_sha256"][:12], row["seed"] or "none"
        lines.append(f"    config {config}, seed {seed}, commit {row['commit']}, {row['created']}, [{where}]")
    lines += ["", *(f"[{number}] {made}" for made, number in settings.items())]
    return "\n".join(lines).rstrip()


def _one_line(value: Value) -> str:
    row = value.row
    number = row.get("value", row.get("cross_entropy_nats", row.get("score", row.get("similarity", row.get("hits")))))
    left_out = {"suite", "dataset", "model", "source", "value", "method"} if "source" in row else {"suite", "dataset", "model"}
    words = ", ".join(f"{name} {text}" for name, text in row.items() if name not in left_out and text is not number)
    method = f" ({row['method']})" if "source" in row and row.get("method") else ""
    return f"{value.tidy}.csv, line {value.line}: {number!r}{method}; {words}"


def _companions(source: str, known: Mapping[str, Any]) -> Iterator[str]:
    """Files that may hold the provenance of a source: itself, the JSON file beside it, the networks of its chain."""
    yield source
    folder, _, name = source.rpartition("/")
    yield f"{folder}/{ {'scores.csv': 'scoring.json'}.get(name, name.replace('.csv', '.json')) }".replace(" ", "")
    yield from sorted(place for place in known if place.startswith(f"{folder}/") and place.endswith("training.json"))


def _check(path: Path, values: Sequence[Value]) -> Iterator[str]:
    """Whether the file still says what the tidy tables say."""
    if path.suffix != ".json":
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    other = sorted(
        {str(value.row["quantity"]) for value in values if not _holds(content, value.row["quantity"], value.row["value"])}
    )
    if other:
        yield f"DIFFERS: the file has another number of {', '.join(other)}; collect the tables anew"
    else:
        yield "the file holds the same numbers"


def _holds(content: Any, name: str, number: float) -> bool:
    if isinstance(content, dict):
        return content.get(name) == number or any(_holds(each, name, number) for each in content.values())
    return isinstance(content, list) and any(_holds(each, name, number) for each in content)
