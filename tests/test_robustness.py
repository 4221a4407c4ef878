"""Robustness as it is shown: numbers by hand, marks, what is not comparable, and figures that hold what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from prunebench.reporting import robustness, robustness_figures, statistics
from prunebench.reporting.collect import DENSE_COLUMNS, RESULT_COLUMNS, Tables
from prunebench.reporting.drawing import style
from prunebench.reporting.formats import Table, to_latex, to_markdown
from prunebench.reporting.trace import _patterns

EPS = {"linf": "robust_accuracy_linf_eps{}_255_percent", "l2": "robust_accuracy_l2_eps{}_percent"}


def network(replicate: int, criterion: str, draw: int = 0, point: str = "blocks5", schedule: str = "one-shot") -> dict[str, Any]:
    dense = criterion == "dense"
    return {
        "suite": "test",
        "dataset": "digits",
        "model": "resnet32",
        "replicate": replicate,
        "schedule": "dense" if dense else schedule,
        "criterion": criterion,
        "draw": draw,
        "operating_point": "dense" if dense else point,
        "blocks_removed": 0 if dense else int(point.removeprefix("blocks")),
    }


def attacked(
    of: dict[str, Any], attack: str, robust: dict[str, float], clean: float, images: int = 100, **flags: float
) -> list[dict[str, Any]]:
    """The rows of one attack on one network, and of its FLOPs."""
    values = {**robust, "clean_accuracy_percent": clean, "images": images, "unreliable": 0.0, **flags}
    rows = [{**of, "evaluation": attack, "quantity": q, "value": float(v), "source": f"{attack}.json"} for q, v in values.items()]
    reduction = 7.0 * of["blocks_removed"]
    return [
        *rows,
        {**of, "evaluation": "complexity", "quantity": "flops_reduction_percent", "value": reduction, "source": "c.json"},
    ]


def tables(rows: list[dict[str, Any]]) -> Tables:
    results = pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).drop_duplicates().reset_index(drop=True)
    empty = pd.DataFrame(columns=list(DENSE_COLUMNS))
    return Tables(**{name: empty for name in Tables.__dataclass_fields__} | {"results": results})


def small() -> Tables:
    """Two replicates; PGD on all networks at two distances, AutoAttack on the dense one and on cka of the first replicate."""
    rows: list[dict[str, Any]] = []
    for replicate, shift in ((0, 0.0), (1, 4.0)):
        for criterion, draw, one, eight in (("dense", 0, 60, 10), ("cka", 0, 62, 13), ("random", 0, 50, 2), ("random", 1, 58, 6)):
            robust = {EPS["linf"].format("1"): one + shift, EPS["linf"].format("8"): eight + shift}
            rows += attacked(network(replicate, criterion, draw), "pgd", robust, 98 - shift)
    rows += attacked(network(0, "dense"), "autoattack", {EPS["linf"].format("1"): 55}, 97, images=64, unreliable_linf_eps1_255=0)
    flagged = {"unreliable_linf_eps1_255": 1.0, "unreliable": 1.0}
    rows += attacked(network(0, "cka"), "autoattack", {EPS["linf"].format("1"): 56.25}, 95, images=64, **flagged)
    return tables(rows)


def test_distances_are_read_from_names() -> None:
    assert robustness.distance("linf_eps0.5_255") == ("linf", 0.5, "0.5/255")
    assert robustness.distance("l2_eps0.25") == ("l2", 0.25, "L2 0.25")


def test_means_are_over_draws_then_replicates() -> None:
    data = robustness.summarise(small().results).set_index("criterion")
    # Draws 50 and 58 of one replicate, 54 and 62 of the other.
    assert data.loc["random", "pgd_linf_eps1_255_mean"] == 56
    assert data.loc["random", "pgd_linf_eps1_255_sd"] == pytest.approx(math.sqrt(8))
    assert data.loc["random", "pgd_n"] == 2
    assert data.loc["cka", "autoattack_n"] == 1
    assert data.loc["cka", "pgd_clean_mean"] == 96
    assert data.loc["cka", "flops_reduction_percent"] == 35
    assert bool(data.loc["cka", "autoattack_linf_eps1_255_unreliable"]) is True
    assert not data.loc["dense", "autoattack_linf_eps1_255_unreliable"]
    changes = robustness.by_network(small().results)
    cka = changes[(changes["criterion"] == "cka") & (changes["threat"] == "linf_eps8_255")]
    assert list(cka["change_pp"]) == [3, 3]


def test_table_tells_different_images_apart_and_marks_what_is_unreliable() -> None:
    text = to_markdown(robustness.TABLES["robustness"](small()))
    assert "No attack (PGD) (%)" in text and "No attack (AutoAttack) (%)" in text
    assert "56.2 (u)" in text
    assert text.count("(u)") == 3  # in a cell and twice in the caption
    row = next(line for line in text.splitlines() if "| random" in line)
    assert "56.0 ± 2.8" in row and "100 / –" in row and "2 / –" in row
    assert "100 / 64" in text and "2 / 1" in text
    latex = to_latex(robustness.TABLES["robustness"](small()))
    assert r"$56.0 \pm 2.8$" in latex
    assert latex.isascii()


def test_attacks_on_the_same_images_share_a_column() -> None:
    rows = attacked(network(0, "dense"), "fgsm", {EPS["linf"].format("8"): 50}, 98)
    rows += attacked(network(0, "dense"), "pgd", {EPS["linf"].format("8"): 40}, 98)
    text = to_markdown(robustness.TABLES["robustness"](tables(rows)))
    assert "No attack (FGSM, PGD) (%)" in text
    last = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert last == ["dense", "dense", "0.00", "98.0", "50.0", "40.0", *["–"] * 4, "100", "1"]


def test_an_attack_that_a_weaker_one_outdoes_is_marked() -> None:
    key = EPS["linf"].format("8")
    rows = attacked(network(0, "dense"), "pgd", {key: 40}, 98)
    rows += attacked(network(0, "cka"), "pgd", {key: 40}, 98)
    rows += attacked(network(0, "dense"), "autoattack", {key: 41}, 98)
    # Other images: nothing follows.
    rows += attacked(network(0, "cka"), "autoattack", {key: 41}, 98, images=50)
    networks = robustness.by_network(tables(rows).results)
    flagged = networks[networks["unreliable"] > 0]
    assert list(zip(flagged["criterion"], flagged["attack"], strict=True)) == [("dense", "autoattack")]


def test_an_attack_that_fgsm_outdoes_is_marked_without_pgd() -> None:
    key = EPS["linf"].format("8")
    rows = attacked(network(0, "dense"), "fgsm", {key: 40}, 98) + attacked(network(0, "dense"), "autoattack", {key: 41}, 98)
    rows += attacked(network(0, "cka"), "fgsm", {key: 41}, 98) + attacked(network(0, "cka"), "autoattack", {key: 40}, 98)
    networks = robustness.by_network(tables(rows).results)
    flagged = networks[networks["unreliable"] > 0]
    assert list(zip(flagged["criterion"], flagged["attack"], strict=True)) == [("dense", "autoattack")]
    # The same where PGD ran on another network alone.
    rows += attacked(network(1, "dense"), "pgd", {key: 30}, 98)
    networks = robustness.by_network(tables(rows).results)
    assert networks["unreliable"].sum() == 1


def compared(of: dict[str, list[float]], without: tuple[str, int] | None = None, dataset: str = "digits") -> list[dict[str, Any]]:
    """PGD at two distances: at 1/255 the dense network keeps half, at 8/255 nothing; criteria keep so much more in each replicate."""
    rows: list[dict[str, Any]] = []
    for criterion, more in {"dense": [0.0] * 3, **of}.items():
        for replicate, each in enumerate(more):
            if (criterion, replicate) != without:
                kept = {EPS["linf"].format("1"): 48 + replicate + each, EPS["linf"].format("8"): 0.0}
                rows += attacked({**network(replicate, criterion), "dataset": dataset}, "pgd", kept, 96)
    return rows


def cells(table: Table, criterion: str) -> dict[str, str]:
    (row,) = [row for _, row in table.data[table.data["criterion"] == criterion].iterrows()]
    return {column.header: column.cell(row) for column in table.columns}


def test_differences_to_dense_and_random_are_paired_and_adjusted() -> None:
    rows = compared({"cka": [4.0, 4.1, 3.9], "taylor": [1.0, -2.0, 1.5], "random": [-1.0, -1.0, -1.5]})
    table = robustness.TABLES["robustness"](tables(rows))
    cka, dense = cells(table, "cka"), cells(table, "dense")
    # t(2) = 4.303 times 0.1 / sqrt(3).
    assert cka["PGD 1/255 against dense (pp)"] == "+4.00 [+3.75, +4.25], better"
    assert cka["PGD 1/255 against random (pp)"].endswith("], better")
    assert cells(table, "taylor")["PGD 1/255 against dense (pp)"].endswith("], undecided")
    assert cells(table, "random")["PGD 1/255 against random (pp)"] == "–"
    assert dense["PGD 1/255 against dense (pp)"] == dense["PGD 1/255 against random (pp)"] == "–"
    own = table.data.set_index("criterion")
    test = statistics.compare(tables(rows).results, "random", "pgd", EPS["linf"].format("1")).set_index("criterion")
    assert own.loc["cka", "pgd_against_random_p_holm"] == test.loc["cka", "p_holm"] > test.loc["cka", "p_value"]
    assert "a family is the criteria of one point under one attack" in table.caption


def test_fewer_pairs_than_replicates_are_said() -> None:
    rows = compared({"cka": [4.0, 4.1, 3.9], "random": [-1.0, -1.0, -1.5]}, without=("random", 0))
    table = robustness.TABLES["robustness"](tables(rows))
    assert cells(table, "cka")["PGD 1/255 against random (pp)"].endswith("(n = 2)")
    assert "(n = " not in cells(table, "cka")["PGD 1/255 against dense (pp)"]


def test_each_dataset_is_compared_at_its_own_main_distance() -> None:
    rows = compared({"cka": [4.0, 4.1, 3.9]})
    turned = {EPS["linf"].format("1"): EPS["linf"].format("8"), EPS["linf"].format("8"): EPS["linf"].format("1")}
    other = [
        {**row, "quantity": turned.get(row["quantity"], row["quantity"])}
        for row in compared({"cka": [4.0, 4.1, 3.9]}, dataset="other")
    ]
    table = robustness.TABLES["robustness"](tables(rows + other))
    assert "(digits, resnet32: PGD 1/255; other, resnet32: PGD 8/255)" in table.caption
    column = next(column for column in table.columns if column.header == "PGD against dense (pp)")
    texts = [column.cell(row) for _, row in table.data[table.data["criterion"] == "cka"].iterrows()]
    assert texts == ["+4.00 [+3.75, +4.25], better"] * 2


def test_the_caption_says_where_replicates_share_a_dense_network() -> None:
    made = small()
    own = [("test", "digits", "resnet32", replicate, "the same weights", "") for replicate in (0, 1)]
    shared = replace(made, dense_networks=pd.DataFrame(own, columns=list(DENSE_COLUMNS)))
    assert "share a dense network" in robustness.TABLES["robustness"](shared).caption
    assert "share a dense network" not in robustness.TABLES["robustness"](made).caption


def test_every_value_column_says_where_its_cells_come_from() -> None:
    table = robustness.TABLES["robustness"](small())
    without = [column.header for column in table.columns if not column.origins]
    assert without == ["Point", "Criterion"]
    results = small().results
    (_, first), *_ = table.data.iterrows()
    for column in table.columns:
        for origin in column.origins:
            (quantity,) = _patterns(origin.quantity, first)
            same = (results["evaluation"] == origin.evaluation) & (results["quantity"] == quantity)
            assert same.any(), (column.header, origin)


def test_a_suite_without_attacks_has_an_empty_table_and_notes() -> None:
    none = tables([])
    assert robustness.TABLES["robustness"](none).data.empty
    with style():
        for name in robustness_figures.FIGURES:
            assert robustness_figures.FIGURES[name](none, "digits, resnet32").axes


def test_main_distance_is_where_the_dense_network_keeps_half() -> None:
    networks = robustness.by_network(small().results)
    assert robustness.main_threat(networks[networks["attack"] == "pgd"]) == "linf_eps1_255"


def many() -> Tables:
    """Twelve criteria, three attacks, both norms, two schedules, three replicates."""
    rows: list[dict[str, Any]] = []
    criteria = [
        "consensus",
        "cka",
        "linear_1",
        "wasserstein",
        "taylor",
        "mine",
        "random",
        "first",
        "last",
        "l1_norm",
        "bn_scale",
        "loss",
    ]
    for replicate in range(3):
        robust = {EPS["linf"].format(e): v + replicate for e, v in (("0.5", 80), ("1", 55), ("2", 25), ("8", 0))}
        robust |= {EPS["l2"].format("0.1"): 60.0, EPS["l2"].format("0.5"): 5.0}
        for attack in robustness.ATTACKS:
            rows += attacked(network(replicate, "dense"), attack, robust, 93)
            for schedule in ("one-shot", "iterative"):
                for number, criterion in enumerate(criteria):
                    for point in ("blocks2", "blocks5"):
                        moved = {key: max(0.0, value + number - 6) for key, value in robust.items()}
                        rows += attacked(network(replicate, criterion, 0, point, schedule), attack, moved, 92)
    return tables(rows)


def drawn(name: str, tidy: Tables) -> Figure:
    with style():
        figure = robustness_figures.FIGURES[name](tidy, "digits, resnet32")
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("make", [small, many])
@pytest.mark.parametrize("name", list(robustness_figures.FIGURES))
def test_figures_show_every_attack_and_cut_nothing_off(name: str, make: Any) -> None:
    tidy = make()
    figure = drawn(name, tidy)
    titles = " ".join(axes.get_title() for axes in figure.axes)
    for attack in set(tidy.results["evaluation"]) & set(robustness.ATTACKS):
        assert robustness.ATTACKS[attack] in titles
    width, height = figure.get_size_inches() * figure.dpi
    texts = [axes.title for axes in figure.axes] + [axes.yaxis.label for axes in figure.axes] + figure.legends[0].get_texts()
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()


def test_curve_starts_at_the_accuracy_without_attack() -> None:
    figure = drawn("robustness_curve", small())
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 3]
    assert [96.0, 64.0, 15.0] in [list(line.get_ydata()) for line in lines]
    assert all(list(line.get_xdata()) == [0.0, 1.0, 8.0] for line in lines)
    assert "one-shot, blocks5" in figure.get_suptitle()


def test_robustbench_has_an_entry_for_each_network_and_distance(tmp_path: Path) -> None:
    content = json.loads(robustness.write_robustbench(small().results, tmp_path).read_text())["models"]
    assert len(content) == 2
    entry = next(entry for entry in content if entry["criterion"] == "cka")
    expected = {"dataset": "digits", "architecture": "resnet32", "threat_model": "Linf", "eps": "1/255", "clean_acc": "95.00"}
    assert expected.items() <= entry.items()
    assert (entry["autoattack_acc"], entry["unreliable"], entry["n_examples"]) == ("56.25", True, 64)
