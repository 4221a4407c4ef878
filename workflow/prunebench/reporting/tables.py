"""The paper's tables, from the tidy tables alone: each as CSV (numbers in full), Markdown and LaTeX (rounded)."""

from __future__ import annotations

from pathlib import Path

from prunebench import artifacts, reporting
from prunebench.reporting import maker, shown
from prunebench.reporting.collect import read_tables
from prunebench.reporting.comparison import headline_html
from prunebench.reporting.formats import FORMATS, to_latex, to_markdown, write_csv


def write_tables(tables: Path, out: Path | None = None) -> list[Path]:
    """Write ``<name>.csv``, ``<name>.md`` and ``<name>.tex`` for every table of ``reporting.TABLES`` that the suite has something for.

    Args:
        tables: the folder of the tidy tables.
        out: where to write; the same folder by default.

    Returns:
        The files written.

    Raises:
        PrunebenchError: a tidy table is missing or corrupt.
    """
    tidy = read_tables(tables)
    made = {name: maker("TABLES", name, place)(tidy) for name, place in shown(reporting.TABLES, tidy.subjects()).items()}
    written = []
    for table in made.values():
        stem = (out or tables) / table.name
        write_csv(stem.with_suffix(".csv"), table.data)
        artifacts.write_text(stem.with_suffix(".md"), to_markdown(table))
        artifacts.write_text(stem.with_suffix(".tex"), to_latex(table))
        written += [stem.with_suffix(f".{suffix}") for suffix in FORMATS]
    landing = (out or tables) / "headline.html"
    artifacts.write_text(landing, headline_html(made["headline"].data))
    if "autoattack" in tidy.subjects():
        from prunebench.reporting.robustness import write_robustbench

        written.append(write_robustbench(tidy.results, out or tables))
    return [*written, landing]
