"""Where a number of a table comes from: the right rows, files that are there, and answers to wrong questions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from prunebench import reporting
from prunebench.artifacts import sha256_of
from prunebench.cli import main
from prunebench.criteria.consensus import METRICS
from prunebench.errors import PrunebenchError
from prunebench.reporting import collect, maker, tables
from prunebench.reporting.collect import Tables
from prunebench.reporting.formats import Origin, Table
from prunebench.reporting.trace import Trace, find, report, row_number, trace
from test_reporting import build_suite

ROW = "criterion=cka,operating_point=blocks5,schedule=one-shot"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    suite = build_suite(
        tmp_path_factory.mktemp("trace"), ("consensus", *METRICS, "random", "first"), oracle=True, audited=["cka_released"]
    )
    out = suite.collect(suite.root / "tables")
    tables.write_tables(out)
    return out


@dataclass
class Made:
    """The suite's tables, made once."""

    tidy: Tables
    tables: dict[str, Table]
    suite: Path

    def trace(self, table: str, row: str, column: str) -> Trace:
        return find(self.tables[table], self.tidy, row_number(self.tables[table], row), column)


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    tidy = collect.read_tables(folder)
    places = reporting.shown(reporting.TABLES, tidy.subjects())
    tables_ = {name: maker("TABLES", name, place)(tidy) for name, place in places.items()}
    return Made(tidy, tables_, folder.parent)


@pytest.mark.parametrize("column", ["accuracy_percent_mean", "accuracy_percent_sd", "Accuracy (%)"])
def test_a_mean_comes_from_the_accuracies_of_its_replicates(made: Made, column: str) -> None:
    found = made.trace("accuracy", ROW, column)
    assert [value.row["replicate"] for value in found.values] == [0, 1]
    assert {value.row["quantity"] for value in found.values} == {"accuracy_percent"}
    assert {(value.row["criterion"], value.row["operating_point"]) for value in found.values} == {("cka", "blocks5")}
    mean = np.mean([value.row["value"] for value in found.values])
    shown = made.trace("accuracy", ROW, "Accuracy (%)")
    assert shown.data["accuracy_percent_mean"] == pytest.approx(mean) and f"{mean:.2f}" in shown.text
    assert all((made.suite / value.source).exists() for value in found.values)


def test_lines_are_those_of_the_file(folder: Path, made: Made) -> None:
    lines = (folder / "results.csv").read_text().splitlines()
    for value in made.trace("accuracy", ROW, "Accuracy (%)").values:
        assert lines[value.line - 1].endswith(f"accuracy_percent,{value.row['value']!r},{value.source}")


def test_a_change_comes_from_the_dense_network_too(made: Made) -> None:
    values = made.trace("accuracy", ROW, "change_pp_mean").values
    by = {(value.row["schedule"], value.row["replicate"]): value.row["value"] for value in values}
    assert set(by) == {("one-shot", 0), ("one-shot", 1), ("dense", 0), ("dense", 1)}
    change = np.mean([by["one-shot", r] - by["dense", r] for r in (0, 1)])
    assert made.trace("accuracy", ROW, "Δ after (pp)").data["change_pp_mean"] == pytest.approx(change)


def test_a_comparison_comes_from_the_baseline_and_its_adjustment_from_the_family(made: Made) -> None:
    pairs = made.trace("versus_random", ROW, "p_value").values
    assert {value.row["criterion"] for value in pairs} == {"cka", "random"}
    assert {value.row["draw"] for value in pairs if value.row["criterion"] == "random"} == {0, 1}
    family = made.trace("versus_random", ROW, "p_holm").values
    assert {value.row["criterion"] for value in family} == {"consensus", *METRICS, "random", "first"}
    assert {value.row["schedule"] for value in family} == {"one-shot"}
    assert {value.row["operating_point"] for value in family} == {"blocks5"}
    points = made.trace("versus_random", ROW, "p_holm_all_points").values
    assert {value.row["operating_point"] for value in points} == {"blocks2", "blocks5"} and len(points) == 2 * len(family)


def test_the_headline_comes_from_the_criterion_that_it_names(made: Made) -> None:
    best = made.trace("headline", "1", "best_criterion").text
    values = made.trace("headline", "1", "best_change_pp").values
    assert {value.row["criterion"] for value in values} == {best, "dense"}
    values = made.trace("headline", "1", "first_change_pp").values
    assert {value.row["criterion"] for value in values} == {"first", "dense"}


@pytest.mark.parametrize(
    ("table", "row", "column", "files"),
    [
        ("quality", "criterion=cka,fine_tuning_epochs=1", "tau", {"oracle.csv", "scores.csv"}),
        ("consensus_parts", "metric=cka", "tau_without", {"scores.csv"}),
        ("audit", "1", "lowest_confidence", {"audit.csv"}),
        ("audit_agreement", "1", "hit_percent", {"audit_choices.csv"}),
        ("scoring_cost", "criterion=cka", "seconds_mean", {"scoring.json"}),
        ("cost", "criterion=cka,operating_point=blocks5,schedule=one-shot", "training.energy_kwh", {"training.json"}),
        ("accuracy", ROW, "Blocks removed", {"training.json", "complexity.json"}),
    ],
)
def test_tables_of_other_files_name_files_that_are_there(made: Made, table: str, row: str, column: str, files: set[str]) -> None:
    found = made.trace(table, row, column)
    sources = {value.source for value in found.values}
    assert {source.rpartition("/")[2] for source in sources} == files
    # What the workflow would have written is there; the made-up suite has no scoring.json.
    assert all((made.suite / source).exists() for source in sources if not source.endswith("scoring.json"))


def test_quality_comes_from_every_block_of_its_own_fine_tuning_alone(made: Made) -> None:
    values = made.trace("quality", "criterion=cka,fine_tuning_epochs=1", "tau").values
    losses = [value.row for value in values if value.tidy == "oracle"]
    assert {row["fine_tuning_epochs"] for row in losses} == {1} and len(losses) == 2 * 12
    scores = [value.row for value in values if value.tidy == "scores"]
    assert {(row["criterion"], row["schedule"], row["step"]) for row in scores} == {("cka", "dense", 0)} and len(scores) == 2 * 12


def test_every_column_of_every_table_has_an_origin_or_says_which_row_it_is(folder: Path, made: Made) -> None:
    """A column without one can only name its row: then it reads nothing but keys."""
    keys = {
        "dataset",
        "model",
        "schedule",
        "operating_point",
        "criterion",
        "fine_tuning_epochs",
        "consensus",
        "metric",
        "from",
        "to",
        "replicate",
        "n",
    }
    for name, table in made.tables.items():
        for column in table.columns:
            if column.origins:
                continue
            found = made.trace(name, "1", column.header)
            assert set(found.data) <= keys, f"{name}: {column.header} has no origins"


def test_every_cell_of_every_table_that_shows_a_number_has_rows_behind_it(made: Made) -> None:
    for name, table in made.tables.items():
        for number in {1, len(table.data)}:
            for column in table.columns:
                found = made.trace(name, str(number), column.header)
                assert found.values or not column.origins or found.text == "–", f"{name}, row {number}, {column.header}"


@pytest.mark.parametrize(
    ("table", "row", "column", "answer"),
    [
        ("nothing", "1", "n", "no table of the paper has this name; the tables of this suite are headline, accuracy"),
        ("accuracy", "0", "n", "has rows 1 to"),
        ("accuracy", "criterion=ckaa", "n", "criterion may be dense, consensus, cka"),
        (
            "accuracy",
            "criterion=cka",
            "n",
            r"4 rows of table accuracy \(numbers .*\); narrow it down by schedule=one-shot\|iterative",
        ),
        ("accuracy", "criteria=cka", "n", "expected <column>=<value>"),
        ("accuracy", ROW, "mean", "has no such column; there are Point, Criterion"),
    ],
)
def test_wrong_questions_are_answered_with_what_there_is(folder: Path, table: str, row: str, column: str, answer: str) -> None:
    with pytest.raises(PrunebenchError, match=answer):
        trace(folder / f"{table}.csv", row, column)


def test_the_command_prints_files_digests_and_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = build_suite(tmp_path)
    out = suite.collect(tmp_path / "results" / "tiny" / "tables")
    tables.write_tables(out)
    command = [
        "trace",
        str(out / "accuracy.csv"),
        "--row",
        "Criterion=cka,Point=blocks5,schedule=one-shot",
        "--column",
        "Accuracy (%)",
    ]
    main(command)
    printed = capsys.readouterr().out
    file = out.parent / "digits/resnet32/replicate1/one-shot/cka/draw0/blocks5/evaluations/accuracy.json"
    assert str(file) in printed and sha256_of(file) in printed and "the file holds the same numbers" in printed
    assert "config 000000000000, seed 1, commit abc" in printed and "NOTE" not in printed
    # Somebody changes a result, another one is lost, a third one edits the table: all of it is said.
    content = json.loads(file.read_text())
    content["values"]["accuracy_percent"] += 1
    file.write_text(json.dumps(content))
    (out.parent / "digits/resnet32/replicate0/one-shot/cka/draw0/blocks5/evaluations/accuracy.json").unlink()
    table = out / "accuracy.csv"
    table.write_text(table.read_text().replace("cka", "ckb"))
    main(command)
    printed = capsys.readouterr().out
    assert "DIFFERS: the file has another number of accuracy_percent" in printed
    assert "MISSING" in printed and "NOTE: accuracy.csv has other numbers" in printed


def test_what_the_table_does_not_say_is_not_called_nothing(folder: Path, made: Made) -> None:
    table, number = made.tables["accuracy"], row_number(made.tables["accuracy"], ROW)
    more = replace(table, data=table.data.assign(extra_mean=1.0))
    assert "It is not known which rows this column was made from" in report(find(more, made.tidy, number, "extra_mean"), folder)
    known = replace(more, origins={"extra_*": (Origin("results", "accuracy", "accuracy_percent"),)})
    assert [value.row["replicate"] for value in find(known, made.tidy, number, "extra_mean").values] == [0, 1]
    for column in ("Criterion", "operating_point"):
        assert "it says which row it is" in report(find(table, made.tidy, number, column), folder)


def test_long_lists_are_cut_and_say_so(folder: Path, made: Made) -> None:
    found = made.trace("consensus_parts", "1", "n")
    assert len(found.values) == len(METRICS) * 12 * 2
    assert f"... and {len(found.values) - 5} more (--all)" in report(found, folder, at_most=5)
    assert "more (--all)" not in report(found, folder, at_most=len(found.values))
