"""The document: whole, readable, the same bytes again; and what happens without LaTeX."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from prunebench import config, reporting, typesetting
from prunebench.cli import main
from prunebench.criteria.consensus import METRICS
from prunebench.errors import PrunebenchError
from prunebench.reporting import drawing, figures, latex, methods, paper, tables
from prunebench.reporting.collect import read_tables
from prunebench.reporting.formats import Column, Table
from shared import REPOSITORY
from test_reporting import build_suite

SUITE = {
    "suite": "tiny",
    "replicates": 2,
    "experiments": [{"dataset": "digits", "model": "resnet32"}],
    "schedules": {"one-shot": {"criteria": ["cka", "consensus", "random"], "draws": 2}},
    "operating_points": [{"blocks": 2}, {"flops_reduction": 54.6}],
    "figures": {"text_width_mm": 160.0},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of tables and figures."""
    suite = build_suite(tmp_path_factory.mktemp("paper"))
    out = suite.collect(suite.root / "tables")
    tables.write_tables(out)
    figures.write_figures(out, suite.root / "figures", drawing.Widths(84, 160))
    return out, suite.root / "figures"


def write(made: tuple[Path, Path], out: Path) -> str:
    return paper.write_paper(*made, out, config.parse(SUITE, "here")).read_text()


def test_the_document_has_every_table_and_figure_and_says_how_they_were_made(made: tuple[Path, Path], tmp_path: Path) -> None:
    text = write(made, tmp_path)
    for name in ("headline", "accuracy", "versus_random", "cost"):
        assert latex.inline(reporting.TABLES[name].content[1:]) in text
    shown = re.findall(r"\\includegraphics\[width=([\d.]+)bp\]\{figures/(.+?)\}", text)
    assert {"accuracy_digits_resnet32.pdf", "removals_digits_resnet32.pdf"} <= {name for _, name in shown}
    for width, name in shown:
        assert (tmp_path / "figures" / name).read_bytes() == (made[1] / name).read_bytes()
        assert float(width) <= 160 / 25.4 * 72 + 0.1 or r"\begin{landscape}" in text
    assert "resnet32 on digits; 2 replicates, seed 0" in text and "2 draws of random ones" in text
    assert r"2 blocks and 54.6 \% of FLOPs" in text and "commit abc" in text and "torch 2.13" in text
    assert r"\textwidth=160mm" in text.replace("textwidth", r"\textwidth", 1) or "textwidth=160mm" in text
    assert re.match(r"% SOURCE_DATE_EPOCH=1\d{9}\n", text)
    assert "prunebench trace results/" in text.replace(r"\allowbreak{}", "")


def test_the_same_results_give_the_same_source(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert write(made, tmp_path / "one") == write(made, tmp_path / "other")


def test_verdicts_are_counted_as_the_table_has_them(made: tuple[Path, Path], tmp_path: Path) -> None:
    verdicts = pd.read_csv(made[0] / "versus_random.csv")["verdict"]
    text = write(made, tmp_path)
    assert f"Of {len(verdicts)} comparisons" in text
    for verdict, count in verdicts.value_counts().items():
        assert f"{count} {verdict}" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of a_b & c#$", r"50 \% of a\_b \& c\#\$"),
        ("−0.5 ± 0.1 µg, Δ, τ", r"$-$0.5 $\pm$ 0.1 \textmu{}g, $\Delta$, $\tau$"),
        ("Müller → 3 ≤ 4", r"Müller $\to$ 3 $\le$ 4"),
        ("\u4e2d", r"\texttt{U+4E2D}"),
        ("1.5, -2", "1.5, -2"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert latex.inline(text) == expected


def test_captions_keep_emphasis_literals_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "x.rst"
    path.write_text("A *b* of ``c_d`` and **e**,\nmore.\n\n- one\n- two\n  lines\n")
    text = latex.captioned(path)
    assert r"A \emph{b} of \texttt{c\_\allowbreak{}d} and \textbf{e}, more." in text
    assert text.count(r"\item") == 2 and "two lines" in text
    assert latex.captioned(tmp_path / "none.rst") == ""
    for caption in sorted((Path(paper.__file__).parents[2] / "report").glob("*.rst")):
        assert "``" not in latex.captioned(caption).replace("``}", ""), caption


def table(columns: int, text: str = "abc", number: str = "1.23 ± 0.45") -> tuple[Table, list[list[str]]]:
    shown = [Column("Name", lambda row: text, right=False)]
    shown += [Column(f"Value {n}", lambda row: number) for n in range(columns)]
    data = pd.DataFrame({"dataset": ["d"], "model": ["m"]})
    return Table("x", "", data, shown, group=("dataset", "model"), rule_after=None), [[text, *[number] * columns]]


def test_wide_tables_shrink_turn_and_are_divided_in_this_order() -> None:
    page = 455.0
    found = {}
    for columns in range(1, 40):
        parts = list(latex.layouts(*table(columns), page))
        # Every column is there, and the name in each part.
        assert sorted({number for numbers, *_ in parts for number in numbers}) == list(range(columns + 1))
        assert all(numbers[0] == 0 for numbers, *_ in parts)
        found[columns] = (len(parts), parts[0][2], parts[0][1])
    states = [(parts > 1, turned) for parts, turned, _ in found.values()]
    assert states[0] == (False, False) and (False, True) in states and states[-1][0]
    assert found[1][2] == r"\small" and {size for _, _, size in found.values()} == {r"\small", r"\footnotesize", r"\scriptsize"}
    long, rows = table(3, text="word " * 40)
    assert len(list(latex.layouts(long, rows, page))) == 1
    assert any("p{" in line for line in latex.of_table(long, "t", 160))


def test_methods_say_what_a_suite_of_delivered_networks_did_not_do() -> None:
    delivered = {"method": "cka_released", "network": "x/{point}", "points": ["a", "b"]}
    experiment = {"dataset": "cifar10", "model": "resnet56", "dense": "data/base.h5", "delivered": [delivered]}
    suite = config.Suite.model_validate({"suite": "r", "experiments": [experiment]})
    text = " ".join(methods.paragraphs(suite, []))
    assert "Taken over from files, not trained here: resnet56 (data/base.h5)" in text
    assert "Nothing is fine-tuned" in text and "cka_released (2 networks of resnet56)" in text


def test_methods_say_what_single_experiments_do_in_another_way() -> None:
    own = {
        "dense_training": {"epochs": 7},
        "fine_tuning": {"epochs_per_block": 4, "learning_rate": 0.01},
        "sample": {"images_per_class": 5},
        "operating_points": [{"blocks": 1}],
        "criteria": ["cka"],
        "oracle": False,
    }
    experiments = [{"dataset": "digits", "model": "resnet32"}, {"dataset": "digits", "model": "resnet20", **own}]
    suite = config.parse({**SUITE, "experiments": experiments, "oracle": {}}, "here")
    text = " ".join(methods.paragraphs(suite, []))
    assert "resnet20 on digits differs: Dense training: epochs 7. Fine tuning: epochs per block 4. " in text
    assert "Images that criteria see: images per class 5. Networks are evaluated when they have lost 1 block. " in text
    assert "Followed are only one-shot cka. The oracle is not asked." in text and "resnet32 on digits differs" not in text


def test_methods_count_rankings_of_ones_own_among_what_is_fine_tuned() -> None:
    suite = config.parse({**SUITE, "schedules": {}, "external": {"rankings": ["mine"]}}, "here")
    text = " ".join(methods.paragraphs(suite, []))
    assert "Nothing is fine-tuned" not in text and "Fine-tuning: 1 epoch for each removed block" in text
    assert "one-shot: mine" in text and "Rankings by rules of one's own: mine" in text


@pytest.mark.parametrize(
    ("criteria", "millimetres"),
    [(["cka", "consensus", "random"], 84.0), (["consensus", *METRICS, "random", "first", "last"], None)],
)
def test_one_panel_stands_in_one_column_unless_its_legend_is_long(
    tmp_path: Path, criteria: list[str], millimetres: float | None
) -> None:
    suite = build_suite(tmp_path, criteria, schedules=("one-shot",))
    tidy = read_tables(suite.collect(tmp_path / "tables"))
    with drawing.printed(drawing.Widths(84, 160)):
        width = figures.make_figure("accuracy", tidy, "digits", "resnet32").get_size_inches()[0]
    assert width == pytest.approx(millimetres / 25.4 if millimetres else 5.2)


def test_without_latex_the_source_is_ready_and_no_old_pdf_is_left(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "main.pdf").write_bytes(b"old")
    os.utime(tmp_path / "main.pdf", (1, 1))
    monkeypatch.setattr(typesetting.shutil, "which", lambda name: None)
    places = ["--tables", str(made[0]), "--figures", str(made[1]), "--out", str(tmp_path)]
    main(["paper", *places, "--suite", json.dumps(SUITE)])
    assert f"prunebench typeset {tmp_path}" in capsys.readouterr().out
    main(["typeset", str(tmp_path)])
    assert "none of latexmk, pdflatex, tectonic is installed" in capsys.readouterr().out
    assert (tmp_path / "main.tex").exists() and not (tmp_path / "main.pdf").exists()


latex_is_there = pytest.mark.skipif(not any(map(shutil.which, typesetting.PROGRAMS)), reason="LaTeX is not installed")


@latex_is_there
def test_latex_makes_the_same_pdf_twice_and_nothing_runs_out_of_the_page(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        write(made, tmp_path / name)
        assert typesetting.typeset(tmp_path / name).endswith("main.pdf")
        found.append((tmp_path / name / "main.pdf").read_bytes())
    assert found[0] == found[1]
    log = (tmp_path / "one" / "main.log").read_text(errors="replace")
    too_wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert all(width < 5 for width in too_wide)
    if shutil.which("pdffonts"):
        fonts = subprocess.run(["pdffonts", tmp_path / "one" / "main.pdf"], capture_output=True, text=True, check=True).stdout
        assert "Type 3" not in fonts


@latex_is_there
def test_an_error_of_latex_is_told(tmp_path: Path) -> None:
    source = tmp_path / "main.tex"
    source.write_text("\\documentclass{article}\\begin{document}\\nonsense\\end{document}\n")
    (tmp_path / "main.pdf").write_bytes(b"old")
    os.utime(tmp_path / "main.pdf", (1, 1))
    with pytest.raises(PrunebenchError, match=r"main\.tex: .*failed: .*Undefined control sequence"):
        typesetting.typeset(tmp_path)
    assert source.exists() and not (tmp_path / "main.pdf").exists()


@latex_is_there
def test_the_pdf_is_made_again_only_for_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, figure = tmp_path / "main.tex", tmp_path / "figures" / "x.pdf"
    figure.parent.mkdir()
    figure.write_bytes(b"")
    source.write_text("\\documentclass{article}\\begin{document}x\\end{document}\n")
    runs, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: (runs.append(command), run(*command, **options))[1])
    for _ in range(2):
        typesetting.typeset(tmp_path)
    once = len(runs)
    assert once and (tmp_path / "main.pdf").exists()
    os.utime(figure)
    typesetting.typeset(tmp_path)
    assert len(runs) == 2 * once


def test_without_a_source_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PrunebenchError, match=r"main\.tex: no such file; write it with `snakemake paper`"):
        typesetting.typeset(tmp_path)


@pytest.mark.parametrize("name", ["'quoted'", "quoted  # a comment"])
def test_make_paper_knows_the_suite_and_typesets_when_nothing_else_is_to_do(tmp_path: Path, name: str) -> None:
    """The Makefile in a folder of its own; snakemake finds nothing to do, and makes no more than the report."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    paper_folder, programs = tmp_path / "results" / "quoted" / "paper", tmp_path / "venv" / "bin"
    for folder in (paper_folder, programs):
        folder.mkdir(parents=True)
    (paper_folder / "main.tex").write_text("\\documentclass{article}\\begin{document}x\\end{document}\n")
    for file in ("requirements.lock", "pyproject.toml", "venv/.installed"):
        (tmp_path / file).touch()
    config_file = tmp_path / "own.yaml"
    config_file.write_text(f"suite: {name}\n{yaml.safe_dump({key: SUITE[key] for key in SUITE if key != 'suite'})}")
    stub(programs / "snakemake", 'for last; do :; done; case "$*" in *--report*) echo report > "$last";; esac')
    stub(programs / "python", f'exec {sys.executable} "$@"')
    stub(programs / "prunebench", f'exec {sys.executable} -m prunebench "$@"')
    run = subprocess.run(
        ["make", "paper", "VENV=venv", "CONFIG=own.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "results" / "quoted" / "report.html").exists()
    assert (paper_folder / "main.pdf").exists() or "no PDF was made" in run.stdout


def stub(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
