"""How a table is written: numbers as text, Markdown and LaTeX for readers, CSV with numbers in full."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from prunebench import artifacts
from prunebench.reporting.collect import DENSE
from prunebench.reporting.display import ordered_schedules

FORMATS = ("csv", "md", "tex")

MINUS, PLUS_MINUS, NOTHING = "\u2212", "\u00b1", "\u2013"
_GROUP = ["dataset", "model", "schedule"]
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\u0394": r"$\Delta$",
    "\u03c4": r"$\tau$",
    MINUS: "$-$",
    PLUS_MINUS: r"$\pm$",
    NOTHING: "--",
    "\u00b5": r"\textmu{}",
    "\u221e": r"$\infty$",
    "\u00d7": r"$\times$",
    "\u2020": r"\textdagger{}",
    "\u2021": r"\textdaggerdbl{}",
}
_MATHEMATICS = re.compile(rf"[-+{MINUS}{PLUS_MINUS}<]?[\d.][\d.,+<\[\] {MINUS}{PLUS_MINUS}]*|\[[\d.,+ {MINUS}]*\]")


@dataclass(frozen=True)
class Origin:
    """Which rows of a tidy table the cells of a column were made from (``prunebench trace``).

    They are the rows that have what the table's row says of dataset, model, schedule, operating point, criterion and replicate, as far
    as both have such a column, and of these the ones that match the patterns below. ``*`` in a pattern stands for anything, and
    ``{column}`` for what the table's row has in that column. One pattern of several may match.

    Attributes:
        tidy: Name of the tidy table: ``results``, ``measured``, ``scores``, ``removals``, ``oracle``, ``audit_blocks``, ``audit_choices``.
        evaluation: Its evaluation, where the tidy table has one.
        quantity: Its quantity, where the tidy table has one.
        criterion: In place of the row's own: a baseline, or ``*`` for all that the cell was compared with.
        schedule: In place of the row's own; ``dense`` is the dense network, whatever criterion and operating point the row has.
        dataset: In place of the row's own; ``{column}`` stands for what the table's row has in that column.
        operating_point: In place of the row's own: ``*`` for all that a number was adjusted over.
    """

    tidy: str = "results"
    evaluation: str | tuple[str, ...] = "*"
    quantity: str | tuple[str, ...] = "*"
    criterion: str | tuple[str, ...] | None = None
    schedule: str | None = None
    dataset: str | None = None
    operating_point: str | None = None


@dataclass(frozen=True)
class Column:
    """How a column is shown to readers: its header, the text of its cell in a row, and what the cell was made from.

    ``bold`` says whether a row's cell stands out: only what can be told from something else may (``statistics.among_best``).
    """

    header: str
    cell: Callable[[Any], str]
    right: bool = True
    origins: tuple[Origin, ...] = ()
    bold: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class Table:
    """A table: ``data`` goes to CSV as it is; ``columns`` show it in Markdown and LaTeX, one part for each group of rows.

    ``origins`` says by name what columns of the CSV file were made from that no shown column reads, or reads for a part of its own only;
    patterns will do, and the first that matches holds.
    """

    name: str
    caption: str
    data: pd.DataFrame
    columns: Sequence[Column]
    group: Sequence[str] = tuple(_GROUP)
    rule_after: str | None = "operating_point"
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)


# --- numbers as text -------------------------------------------------------------------------------------------------


def number(value: float, digits: int, sign: bool = False) -> str:
    """A number with fixed digits and a true minus; never a negative zero; a dash for ``nan``."""
    if math.isnan(value):
        return NOTHING
    return format(value, f"{'+' if sign else ''}z.{digits}f").replace("-", MINUS)


def mean_sd(mean: float, sd: float, sign: bool = True, digits: int = 2) -> str:
    """``mean +- sd``; the mean alone where one replicate gives no deviation."""
    if math.isnan(mean) or math.isnan(sd):
        return number(mean, digits, sign)
    return f"{number(mean, digits, sign)} {PLUS_MINUS} {number(sd, digits)}"


def interval(low: float, high: float) -> str:
    """``[low, high]``, or a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return NOTHING
    return f"[{number(low, 2, sign=True)}, {number(high, 2, sign=True)}]"


def difference(mean: float, low: float, high: float, verdict: str = "") -> str:
    """A mean difference, its interval if there is one, and the verdict: ``+1.20 [+0.40, +2.00], better``; a dash for ``nan``."""
    if math.isnan(mean):
        return NOTHING
    bounds = "" if math.isnan(low) else f" {interval(low, high)}"
    return number(mean, 2, sign=True) + bounds + (f", {verdict}" if verdict else "")


def fewer(count: float, n: float) -> str:
    """`` (n = 2)``, to stand behind a number that was made from fewer replicates than its row says; else nothing."""
    return f" (n = {compact(count)})" if 0 < count < n else ""


def p_text(value: float) -> str:
    """A p value with three decimals; smaller ones as ``<0.001``."""
    if math.isnan(value):
        return NOTHING
    return "<0.001" if value < 0.001 else number(value, 3)


def compact(value: float) -> str:
    """A count: no decimals unless a mean over replicates has some."""
    return NOTHING if math.isnan(value) else number(value, 0 if float(value).is_integer() else 1)


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits, as a decimal or with a power of ten where that were too long."""
    if math.isnan(value):
        return NOTHING
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return number(value, max(0, digits - 1 - exponent))
    return f"{value:.{digits - 1}e}".replace("-", MINUS)


def equals(p: str) -> str:
    """``= 0.012`` or ``< 0.001``, to stand behind ``p``."""
    return p.replace("<", "< ") if p.startswith("<") else f"= {p}"


# --- the three formats -----------------------------------------------------------------------------------------------


def write_csv(path: Path, data: pd.DataFrame) -> None:
    """Numbers in full; an empty field for ``nan``."""
    rows = [
        [None if isinstance(value, float) and math.isnan(value) else value for value in row]
        for row in data.astype(object).itertuples(index=False)
    ]
    artifacts.write_csv(path, list(data.columns), rows)


def parts(table: Table) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The groups of a table's rows; the dense network's row leads every schedule of its dataset and model."""
    group = list(table.group)
    if "schedule" not in group:
        for key, rows in table.data.groupby(group, sort=False):
            yield tuple(map(str, key)), rows
        return
    for key, rows in table.data.groupby(["dataset", "model"], sort=False):
        dense = rows[rows["schedule"] == DENSE]
        schedules = ordered_schedules(rows["schedule"])
        for schedule in schedules or [DENSE]:
            chosen = rows[rows["schedule"] == schedule]
            yield (*map(str, key), schedule), pd.concat([dense, chosen]) if schedules else chosen


def cells_of(
    table: Table, rows: pd.DataFrame, escape: Callable[[str], str], embolden: Callable[[str], str]
) -> tuple[list[list[str]], list[int]]:
    """The texts of a part, and the numbers of the rows before which a rule separates another operating point."""
    records = [row for _, row in rows.iterrows()]

    def text(column: Column, record: Any) -> str:
        written = escape(column.cell(record))
        return embolden(written) if column.bold and column.bold(record) else written

    cells = [[text(column, record) for column in table.columns] for record in records]
    if table.rule_after is None:
        return cells, []
    marks = [record[table.rule_after] for record in records]
    return cells, [number for number in range(1, len(marks)) if marks[number] != marks[number - 1]]


def to_markdown(table: Table) -> str:
    """Markdown: the caption, and one pipe table under a heading for each part."""
    text = [f"# {table.name}", "", table.caption, ""]
    for key, rows in parts(table):
        cells, _ = cells_of(table, rows, lambda text: text.replace("|", r"\|"), lambda text: f"**{text}**")
        body = tabulate(
            cells,
            headers=[column.header for column in table.columns],
            tablefmt="pipe",
            disable_numparse=True,
            colalign=["right" if column.right else "left" for column in table.columns],
        )
        text += [f"## {', '.join(key)}", "", body, ""]
    if table.data.empty:
        text += ["No rows: the suite has no values for this table.", ""]
    return "\n".join(text)


def to_latex(table: Table) -> str:
    r"""LaTeX: one ``table`` environment with booktabs rules for each part; needs ``\usepackage{booktabs,graphicx}``."""
    text = ["% Needs \\usepackage{booktabs} and \\usepackage{graphicx}."]
    for key, rows in parts(table):
        # Letters are set in bold by the one, mathematics by the other.
        cells, rules = cells_of(table, rows, latex, lambda text: rf"\textbf{{\boldmath {text}}}")
        text += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.caption)} {latex(', '.join(key))}.}}",
            rf"\label{{tab:{'-'.join((table.name, *key)).replace('_', '-')}}}",
            # A table is shrunk to the text's width if it is wider, and never blown up.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{''.join('r' if column.right else 'l' for column in table.columns)}@{{}}}}",
            r"\toprule",
            " & ".join(latex(column.header) for column in table.columns) + r" \\",
            r"\midrule",
        ]
        for row_number, row in enumerate(cells):
            text += [r"\midrule"] if row_number in rules else []
            text.append(" & ".join(row) + r" \\")
        text += [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
    if table.data.empty:
        text.append("% No rows: the suite has no values for this table.")
    return "\n".join(text) + "\n"


def latex(text: str) -> str:
    """Text or a number for LaTeX: numbers in mathematics with a true minus, every special character escaped."""
    if _MATHEMATICS.fullmatch(text):
        return "$" + text.replace(MINUS, "-").replace(PLUS_MINUS, r"\pm") + "$"
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)
