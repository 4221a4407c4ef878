"""A suite's results as one document in LaTeX: how they were made, then every table and figure with its caption (``prunebench paper``)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from prunebench import __version__, artifacts, reporting
from prunebench.config import Suite
from prunebench.reporting import Place, maker, shown
from prunebench.reporting.collect import PROVENANCE_COLUMNS, Tables, read_tables
from prunebench.reporting.formats import Table
from prunebench.reporting.latex import captioned, entitled, inline, of_table, restructured
from prunebench.reporting.methods import paragraphs
from prunebench.typesetting import SOURCE, epoch_line

_CAPTIONS = Path(__file__).resolve().parents[2] / "report"
# Point sizes of a page's fonts are those of matplotlib's figures if these stand at their own size.
_POINTS_PER_MM = 72 / 25.4

_PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\IfFileExists{microtype.sty}{\usepackage{microtype}}{}
\usepackage{textcomp}
\usepackage[a4paper,textwidth=%(width)gmm,textheight=247mm]{geometry}
\usepackage{booktabs,longtable,array,graphicx}
\IfFileExists{pdflscape.sty}{\usepackage{pdflscape}}{\usepackage{lscape}}
\usepackage[hidelinks]{hyperref}
\setlength{\tabcolsep}{3pt}
\setlength{\LTcapwidth}{\textwidth}
\setlength{\emergencystretch}{3em}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\renewcommand{\topfraction}{0.95}
\renewcommand{\textfraction}{0.02}
\renewcommand{\floatpagefraction}{0.7}
%% The same results give the same bytes.
\ifdefined\pdftrailerid\pdftrailerid{}\fi
\ifdefined\pdfsuppressptexinfo\pdfsuppressptexinfo=-1\fi
"""


def write_paper(tables: Path, figures: Path, out: Path, suite: Suite) -> Path:
    """Write ``main.tex`` and a copy of each figure that it shows.

    Args:
        tables: The folder of the tidy tables.
        figures: The folder of the figures.
        out: The folder of the document.
        suite: The config that the results were made by.

    Returns:
        The path of ``main.tex``.

    Raises:
        PrunebenchError: a tidy table is missing or corrupt.
    """
    tidy = read_tables(tables)
    provenance = artifacts.read_csv(tables / "provenance.csv", PROVENANCE_COLUMNS)
    made = {name: maker("TABLES", name, place)(tidy) for name, place in shown(reporting.TABLES, tidy.subjects()).items()}
    body = [
        epoch_line(_epoch(provenance)),
        _PREAMBLE % {"width": suite.figures.text_width_mm},
        rf"\title{{Pruning neural networks: the suite \emph{{{inline(suite.suite)}}}}}",
        rf"\author{{made by prunebench {inline(__version__)}}}",
        rf"\date{{{inline(_newest(provenance)[:10])}}}",
        r"\begin{document}",
        r"\maketitle",
        r"\begin{abstract}",
        inline(_abstract(suite, tidy, made)),
        r"\end{abstract}",
        r"\section{How the results were made}",
        *(f"{inline(text)}\n" for text in paragraphs(suite, provenance)),
    ]
    opening = len(body)
    for category, names in _categories(tidy).items():
        body += [r"\clearpage" if len(body) > opening else "", rf"\section{{{inline(category)}}}"]
        for name in names:
            body += _content(name, made.get(name), tidy, figures, out, suite)
    body += [_sources(suite), r"\end{document}", ""]
    path = out / SOURCE
    artifacts.write_text(path, "\n".join(body))
    return path


def _categories(tidy: Tables) -> dict[str, list[str]]:
    """Names of tables and figures by category, as the report's menu has them, without its numbers."""
    places: dict[str, Place] = {}
    for kind in (reporting.TABLES, reporting.FIGURES):
        places |= {name: place for name, place in shown(kind, tidy.subjects()).items() if name not in places}
    found: dict[str, list[str]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].category):
        found.setdefault(re.sub(r"^\d+\. ", "", place.category), []).append(name)
    return found


def _content(name: str, table: Table | None, tidy: Tables, figures: Path, out: Path, suite: Suite) -> Iterator[str]:
    """One subject: its text, its figures, its tables."""
    place = reporting.TABLES.get(name) or reporting.FIGURES[name]
    title = place.content[0].upper() + place.content[1:]
    yield rf"\subsection{{{inline(title)}}}"
    yield captioned(_CAPTIONS / f"{name}.rst") or inline(table.caption if table else "")
    if name in reporting.FIGURES:
        for dataset, model in tidy.designs():
            yield from _figure(
                figures / f"{name}_{dataset}_{model}.pdf", out, title, f"{dataset}, {model}", suite.figures.text_width_mm
            )
    if table is not None:
        yield from of_table(table, title, suite.figures.text_width_mm)


def _figure(path: Path, out: Path, title: str, what: str, width_mm: float) -> Iterator[str]:
    if not path.exists():
        return
    copy = out / "figures" / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    width, height = _size(path)
    page = width_mm * _POINTS_PER_MM
    # At its own size, so that its letters have the size of the document's; smaller only where the page ends.
    scale = min(1.0, page / width, 600.0 / height)
    turned = scale < 0.8 and min(1.0, 640.0 / width, (page - 50) / height) > 1.1 * scale
    if turned:
        scale = min(1.0, 640.0 / width, (page - 50) / height)
    yield r"\begin{landscape}" if turned else ""
    yield r"\begin{figure}[!htbp]\centering"
    yield rf"\includegraphics[width={width * scale:.1f}bp]{{figures/{path.name}}}"
    yield rf"\caption{{{inline(entitled(title, what))}}}"
    yield r"\end{figure}"
    yield r"\end{landscape}" if turned else ""


def _size(path: Path) -> tuple[float, float]:
    """Width and height of a PDF figure in points."""
    box = re.search(rb"/MediaBox \[ *([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) *\]", path.read_bytes())
    if box is None:
        return 400.0, 300.0
    left, bottom, right, top = map(float, box.groups())
    return right - left, top - bottom


def _abstract(suite: Suite, tidy: Tables, made: Mapping[str, Table]) -> str:
    """What was done and what came out, in numbers that the tables have."""
    networks = tidy.results[
        ["dataset", "model", "replicate", "schedule", "criterion", "draw", "operating_point"]
    ].drop_duplicates()
    pruned = networks[networks["schedule"] != "dense"]
    designs = ", ".join(f"{model} on {dataset}" for dataset, model in tidy.designs())
    text = (
        f"We prune {designs}: {len(pruned)} pruned networks by {pruned['criterion'].nunique()} criteria or methods, with "
        f"{suite.replicates} replicate{'s' * (suite.replicates > 1)}, and evaluate each on the test images."
    )
    if "versus_random" in made and len(made["versus_random"].data):
        verdicts = made["versus_random"].data["verdict"].astype(str).str.split().str[0].value_counts()
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.sort_index().items())
        text += (
            f" Of {verdicts.sum()} comparisons of a criterion with random removal at equal FLOPs and equal fine-tuning, paired "
            f"by replicate and adjusted over the criteria of an operating point, the verdicts are: {counts}. Undecided does not mean equal."
        )
    return text + " Every number can be traced to the file that it was read from."


def _newest(provenance: Sequence[Mapping[str, str]]) -> str:
    return max((row["created"] for row in provenance), default="")


def _epoch(provenance: Sequence[Mapping[str, str]]) -> int:
    """The time of the newest result: what a document that is made again may say of its time, so that bytes repeat."""
    newest = _newest(provenance)
    return int(datetime.fromisoformat(newest).timestamp()) if newest else 0


def _sources(suite: Suite) -> str:
    place = f"results/{suite.suite}/tables"
    text = (
        f"Every number of a table comes from rows of the tidy tables in ``{place}/``, and each row names the file that it was read from. "
        f"``prunebench trace {place}/accuracy.csv --row criterion=...,operating_point=...,schedule=... --column accuracy_percent_mean`` "
        "prints the values behind a cell, their files with SHA-256, and config, seed, commit, hardware and versions."
    )
    config = json.dumps(suite.model_dump(mode="json", by_alias=True, exclude_defaults=True), indent=1, ensure_ascii=True)
    lines = [line[start : start + 100] for line in config.splitlines() for start in range(0, max(1, len(line)), 100)]
    return "\n".join(
        [
            r"\clearpage",
            r"\section{Where the numbers come from}",
            restructured(text),
            r"\subsection{The config}",
            "What differs from the defaults:",
            r"{\scriptsize\begin{verbatim}",
            *lines,
            r"\end{verbatim}}",
            r"\begin{thebibliography}{9}",
            r"\bibitem{cka} I.~Pons, B.~Yamamoto, A.~H.~Reali Costa, A.~Jordao: Effective Layer Pruning Through Similarity Metric "
            r"Perspective. ICPR 2024, arXiv:2405.17081.",
            r"\bibitem{consensus} L.~G.~Mugnaini, C.~T.~Duarte, A.~H.~Reali Costa, A.~Jordao: Layer Pruning with Consensus: A Triple-Win "
            r"Solution. arXiv:2411.14345.",
            r"\end{thebibliography}",
        ]
    )
