"""Figures as a person sees them: nothing cut off, nothing on top of each other, no empty panel, no axis without a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from look import flaws
from prunebench import reporting
from prunebench.reporting.collect import Tables, read_tables
from prunebench.reporting.figures import make_figure
from test_reporting import ALL, build_suite


def cut_off(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([1, 2], label="x")
    axes.set(xlabel="x", ylabel="y")
    axes.set_title("a title that is much too long for a figure that is no wider than this one")


def crowded(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([1, 2])
    axes.set_xticks([0, 0.02, 1], ["a long label", "another long label", "z"])


def empty(figure: Figure) -> None:
    one, _ = figure.subplots(1, 2)
    one.plot([1, 2])
    one.set(xlabel="x", ylabel="y")


def unlabelled(figure: Figure) -> None:
    figure.subplots().plot([1, 2])


def covered(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([1, 2], label="a line")
    axes.set(xlabel="x", ylabel="y")
    figure.legend(loc="center")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (cut_off, "cut off at the edge: 'a title"),
        (crowded, "on each other: 'a long label', 'another"),
        (empty, "an empty panel"),
        (unlabelled, "numbers along x without a label"),
        (covered, "the legend lies on a panel"),
    ],
)
def test_a_flaw_is_seen(draw: Callable[[Figure], None], words: str) -> None:
    figure = Figure(figsize=(3, 2))
    draw(figure)
    assert any(words in flaw for flaw in flaws(figure)), flaws(figure)


def test_a_figure_in_order_has_none() -> None:
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], label="a line")
    axes.set(xlabel="x", ylabel="y", title="title")
    figure.legend(loc="outside right upper")
    assert flaws(figure) == []


@pytest.fixture(scope="module", params=["few", "many", "dense networks alone"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("suite")
    if request.param == "many":
        models = ("resnet32", "resnet56")
        made = build_suite(root, ALL, models, points=(2, 5, 8), oracle=True, audited=["theirs", "others"])
        return read_tables(made.collect(root / "tables"))
    read = read_tables(build_suite(root, points=(2,), replicates=1).collect(root / "tables"))
    if request.param == "few":
        return read
    nothing = {name: getattr(read, name).iloc[:0] for name in ("measured", "scores", "removals")}
    return replace(read, results=read.results[read.results["schedule"] == "dense"], **nothing)


@pytest.mark.parametrize("name", reporting.FIGURES)
def test_figures_look_as_they_should(tables: Tables, name: str) -> None:
    """Those that the suite has nothing for are notes that say so."""
    for dataset, model in tables.designs():
        assert flaws(make_figure(name, tables, dataset, model)) == []
