"""Tables and figures of latency, energy and carbon: known answers, and marks on what cannot be taken as it stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from prunebench.load import CROWDED_CORES
from prunebench.reporting import FIGURES, TABLES, collect, cost, energy, maker, speedup
from prunebench.reporting.collect import MEASURED_COLUMNS, RESULT_COLUMNS, SCORE_COLUMNS, Tables
from prunebench.reporting.drawing import Widths, printed
from prunebench.reporting.formats import Table, latex, to_latex, to_markdown
from prunebench.reporting.trace import find

DAGGER, DOUBLE_DAGGER = "\u2020", "\u2021"
Row = tuple[Any, ...]


class Suite:
    """Rows of tidy tables, by what they mean."""

    def __init__(self) -> None:
        self.measured: list[Row] = []
        self.results: list[Row] = []
        self.scores: list[Row] = []

    @staticmethod
    def network(schedule: str, criterion: str, point: str, replicate: int, draw: int = 0) -> Row:
        removed = 0 if schedule == "dense" else int(point.removeprefix("blocks"))
        return ("s", "digits", "resnet20", replicate, schedule, criterion, draw, point, removed)

    def measure(self, network: Row, evaluation: str, values: dict[str, float], method: str = "") -> None:
        for quantity, value in values.items():
            counted = any(word in quantity for word in ("energy", "emissions", "latency"))
            self.measured.append((*network, evaluation, quantity, value, "file", method if counted else ""))

    def computed(self, network: Row, reduction: float, macs: float) -> None:
        for quantity, value in (("flops_reduction_percent", reduction), ("macs", macs)):
            self.results.append((*network, "complexity", quantity, value, "file"))

    def tables(self) -> Tables:
        made = {
            "measured": pd.DataFrame(self.measured, columns=list(MEASURED_COLUMNS)),
            "results": pd.DataFrame(self.results, columns=list(RESULT_COLUMNS)),
            "scores": pd.DataFrame(self.scores, columns=list(SCORE_COLUMNS)),
        }
        return Tables(**{field.name: made.get(field.name, pd.DataFrame()) for field in fields(Tables)})


DENSE = ("dense", "dense", "dense")
CKA = ("one-shot", "cka", "blocks2")


def energy_suite(
    pruned: Iterable[float] = (3.0, 3.5), design: tuple[str, str, str] = CKA, load: float = 0.0, method: str = "measured"
) -> Suite:
    """Dense: 2 kWh for training, 4 J for an image. Pruned: 0.3 kWh for fine-tuning, 0.1 for scoring, so many J in each replicate."""
    suite = Suite()
    for replicate, joules in enumerate(pruned):
        for network, kwh, joules_each in ((DENSE, 2.0, 4.0), (design, 0.3, joules)):
            row = Suite.network(*network, replicate)
            suite.measure(row, "training", {"energy_kwh": kwh, "emissions_kg": 0.4 * kwh}, "estimated")
            values = {
                "inference_net_energy_joules_per_image": joules_each,
                "inference_net_emissions_ug_per_image": 100 * joules_each,
            }
            suite.measure(row, "energy", values, method)
            suite.measure(row, "energy", {"other_load_cores": load})
            suite.computed(row, 0.0 if network == DENSE else 25.0, 3e7)
        scoring = Suite.network("dense", design[1], "dense", replicate)
        suite.measure(scoring, "scoring", {"energy_kwh": 0.1, "emissions_kg": 0.04, "seconds": 9.0}, "estimated")
    return suite


def row_of(table: Table, **wanted: Any) -> pd.Series:
    found = table.data
    for column, value in wanted.items():
        found = found[found[column] == value]
    assert len(found) == 1
    return found.iloc[0]


def cell(table: Table, header: str, row: pd.Series) -> str:
    return next(column for column in table.columns if column.header == header).cell(row)


# --- energy ----------------------------------------------------------------------------------------------------------


def test_break_even_has_known_values() -> None:
    table = energy.TABLES["energy"](energy_suite().tables())
    row = row_of(table, criterion="cka")
    # 0.4 kWh are 1.44 MJ; 1 J is saved for an image in the first replicate, 0.5 J in the second.
    assert row["break_even_images"] == pytest.approx(1.44e6 / 0.75)
    assert (row["break_even_images_low"], row["break_even_images_high"]) == pytest.approx((1.44e6, 2.88e6))
    assert row["break_even_with_training_images"] == pytest.approx(2.4 * 3.6e6 / 0.75)
    assert row["inference_energy_reduction_percent"] == pytest.approx(18.75)
    assert cell(table, "Break-even (thousand images)", row) == "1920 [1440, 2880] (e)"
    # The inference was measured, and so is what it is less by; what scoring took is a share by time.
    assert cell(table, "Inference, reduction (%)", row) == "18.8 [12.5, 25.0] (m)"
    assert cell(table, "Training (Wh)", row) == "300 (e)"
    assert cell(table, "Scoring (Wh)", row) == "100 (e)"
    assert cell(table, "Inference (mJ/image)", row) == "3250 (m)"
    dense = row_of(table, criterion="dense")
    assert cell(table, "Training (Wh)", dense) == "2000 (e)"
    assert cell(table, "Break-even (thousand images)", dense) == cell(table, "Inference, reduction (%)", dense) == "\u2013"


@pytest.mark.parametrize(
    ("pruned", "text"),
    [((4.5, 4.2), "never [never, never] (e)"), ((4.0, 4.0), "never [never, never] (e)"), ((3.0, 4.5), "5760 [1440, never] (e)")],
)
def test_what_saves_nothing_never_pays(pruned: tuple[float, ...], text: str) -> None:
    table = energy.TABLES["energy"](energy_suite(pruned).tables())
    assert cell(table, "Break-even (thousand images)", row_of(table, criterion="cka")) == text


def test_one_replicate_has_no_range() -> None:
    table = energy.TABLES["energy"](energy_suite((3.0,)).tables())
    row = row_of(table, criterion="cka")
    assert cell(table, "Break-even (thousand images)", row) == "1440 (e)"
    assert cell(table, "Inference, reduction (%)", row) == "25.0 (m)"


def test_an_iterative_chain_is_scored_before_every_step() -> None:
    suite = energy_suite((3.0,), ("iterative", "cka", "blocks2"))
    for step in (0, 1, 2):  # the last one decided a step beyond this point
        for block in ("stage1.block1", "stage1.block2"):
            suite.scores.append(("s", "digits", "resnet20", 0, "iterative", "cka", step, "cka", 0, "lowest", block, 0.5))
    row = row_of(energy.TABLES["energy"](suite.tables()), criterion="cka")
    assert row["scorings"] == 2
    assert row["scoring.energy_kwh"] == pytest.approx(0.2)
    assert row["break_even_images"] == pytest.approx(0.5 * 3.6e6)


def test_without_the_energy_of_a_stage_there_is_no_break_even() -> None:
    suite = energy_suite()
    suite.measured = [row for row in suite.measured if row[9] != "scoring"]
    table = energy.TABLES["energy"](suite.tables())
    row = row_of(table, criterion="cka")
    assert math.isnan(row["break_even_images"])
    assert cell(table, "Break-even (thousand images)", row) == cell(table, "Scoring (Wh)", row) == "\u2013"
    assert row["inference_energy_reduction_percent"] == pytest.approx(18.75)


def test_a_dense_network_that_was_not_trained_here() -> None:
    suite = energy_suite()
    suite.measured = [row for row in suite.measured if not (row[9] == "training" and row[4] == "dense")]
    table = energy.TABLES["energy"](suite.tables())
    row = row_of(table, criterion="cka")
    assert row["break_even_images"] == pytest.approx(1.92e6)
    assert math.isnan(row["break_even_with_training_images"])


def test_the_training_of_a_network_that_was_taken_over_is_not_known() -> None:
    suite = energy_suite()
    suite.results += [(*Suite.network(*DENSE, replicate), "training", "epochs", 0.0, "file") for replicate in (0, 1)]
    table = energy.TABLES["energy"](suite.tables())
    assert math.isnan(row_of(table, criterion="cka")["break_even_with_training_images"])
    assert row_of(table, criterion="cka")["break_even_images"] == pytest.approx(1.92e6)
    assert cell(table, "Training (Wh)", row_of(table, criterion="dense")) == "\u2013"


def test_the_cost_of_a_training_that_is_not_known_is_a_dash() -> None:
    suite = energy_suite()
    suite.results += [(*Suite.network(*DENSE, replicate), "training", "epochs", 0.0, "file") for replicate in (0, 1)]
    table = cost.TABLES["cost"](suite.tables())
    dense, pruned = row_of(table, criterion="dense"), row_of(table, criterion="cka")
    for header, shown in (("Training energy (kWh)", "0.300 (e)"), ("Training CO2e (kg)", "0.120 (e)")):
        assert cell(table, header, dense) == "\u2013" and cell(table, header, pruned) == shown
    trained = cost.TABLES["cost"](energy_suite().tables())
    assert cell(trained, "Training energy (kWh)", row_of(trained, criterion="dense")) == "2.00 (e)"


@pytest.mark.parametrize(("method", "mark"), [("measured", "(m)"), ("estimated", "(e)"), ("", "(?)")])
def test_every_energy_is_marked(method: str, mark: str) -> None:
    table = energy.TABLES["energy"](energy_suite(method=method).tables())
    for row in (row_of(table, criterion="cka"), row_of(table, criterion="dense")):
        for column in table.columns:
            words = ("(Wh)", "(g)", "(mJ", "(\u00b5g", "(%)", "Break-even")
            text = column.cell(row)
            if any(word in column.header for word in words) and text != "\u2013":
                assert any(text.endswith(f"({letter})") for letter in "me?"), (column.header, text)
        assert cell(table, "Inference (mJ/image)", row).endswith(mark)


# --- marks of other work ---------------------------------------------------------------------------------------------


def test_what_was_measured_beside_other_work_is_marked() -> None:
    crowded = energy_suite(load=2 * CROWDED_CORES).tables()
    quiet = energy_suite(load=CROWDED_CORES / 2).tables()
    for header in ("Inference (mJ/image)", "Break-even (thousand images)"):
        table = energy.TABLES["energy"](crowded)
        assert cell(table, header, row_of(table, criterion="cka")).endswith(DAGGER)
        table = energy.TABLES["energy"](quiet)
        assert cell(table, header, row_of(table, criterion="cka")).endswith(")")
    table = cost.TABLES["cost"](crowded)
    assert cell(table, "Inference net energy per image (J)", row_of(table, criterion="cka")) == f"3.25 (m) {DAGGER}"
    # Training runs beside other jobs by design: its meter counts its own processes.
    assert cell(table, "Training energy (kWh)", row_of(table, criterion="cka")) == "0.300 (e)"


def test_it_is_enough_that_one_replicate_was_or_that_the_dense_network_was() -> None:
    suite = energy_suite()
    suite.measured = [
        (*row[:11], 1.5, *row[12:]) if row[10] == "other_load_cores" and row[3] == 1 and row[4] == "dense" else row
        for row in suite.measured
    ]
    table = energy.TABLES["energy"](suite.tables())
    assert cell(table, "Inference, reduction (%)", row_of(table, criterion="cka")).endswith(DAGGER)
    own = cost.TABLES["cost"](suite.tables())
    assert row_of(own, criterion="cka")["energy.beside"] == "no"
    assert row_of(own, criterion="dense")["energy.beside"] == "yes"


def test_an_unknown_load_is_not_called_quiet() -> None:
    suite = energy_suite()
    suite.measured = [row for row in suite.measured if row[10] != "other_load_cores"]
    table = energy.TABLES["energy"](suite.tables())
    assert cell(table, "Inference (mJ/image)", row_of(table, criterion="cka")) == f"3250 (m) {DOUBLE_DAGGER}"


def test_a_gpu_that_was_in_use_before_is_marked() -> None:
    suite = energy_suite()
    suite.measure(Suite.network(*CKA, 0), "energy", {"gpu_use_before_percent": 80.0})
    assert row_of(cost.TABLES["cost"](suite.tables()), criterion="cka")["energy.beside"] == "yes"


# --- speed-up --------------------------------------------------------------------------------------------------------


def latency_suite(replicates: int = 2, load: float = 0.0, criteria: Iterable[str] = ("cka",)) -> Suite:
    """Half of the MACs are gone; batch 1 takes 4 of 5 ms, batch 8 takes 10 of 20 ms; quartiles lie 10 % around."""
    suite = Suite()
    for replicate in range(replicates):
        networks = [DENSE, *(("one-shot", criterion, "blocks2") for criterion in criteria)]
        for network in networks:
            dense = network == DENSE
            row = Suite.network(*network, replicate)
            values = {"product_layers": 20.0 if dense else 12.0, "weights_bytes": 1e6, "activations_bytes_per_image": 2e5}
            for size, median in ((1, 5.0 if dense else 4.0), (8, 20.0 if dense else 10.0)):
                stem = f"latency_batch{size}"
                values |= {f"{stem}_median_ms": median, f"{stem}_p25_ms": 0.9 * median, f"{stem}_p75_ms": 1.1 * median}
                values |= {f"{stem}_iqr_ms": 0.2 * median, f"{stem}_in_products_percent": 60.0}
            suite.measure(row, "latency", values, "measured")
            suite.measure(row, "latency", {"other_load_cores": load})
            suite.computed(row, 0.0 if dense else 50.0, 4e7 if dense else 2e7)
    return suite


def test_speedups_have_known_values() -> None:
    table = speedup.TABLES["speedup"](latency_suite().tables())
    row = row_of(table, criterion="cka")
    assert row["ideal_speedup"] == pytest.approx(2)
    assert row["speedup_batch1"] == pytest.approx(1.25) and row["speedup_batch8"] == pytest.approx(2)
    assert row["layers_reduction_percent"] == pytest.approx(40)
    # 1.25 times 0.9 / 1.1, and the other way round: it may be slower.
    assert cell(table, "Speed-up, batch 1", row) == "1.25\u00d7 [1.02, 1.53]"
    assert cell(table, "Speed-up, batch 8", row) == "2.00\u00d7 [1.64, 2.44]"
    assert cell(table, "Ideal speed-up", row) == "2.00\u00d7"
    assert cell(table, "Speed-up, batch 1", row_of(table, criterion="dense")) == "1.00\u00d7"


def test_a_dense_network_that_was_timed_in_turns_is_what_speedups_are_relative_to() -> None:
    suite = latency_suite()
    for replicate in range(2):
        row = Suite.network("one-shot", "cka", "blocks2", replicate)
        # While the pruned network took 4 ms, the dense one took 6, whatever it took by itself.
        suite.measure(row, "latency", {f"dense_latency_batch1_{kind}_ms": 6.0 for kind in ("median", "p25", "p75")}, "measured")
    table = speedup.TABLES["speedup"](suite.tables())
    assert row_of(table, criterion="cka")["speedup_batch1"] == pytest.approx(1.5)
    assert row_of(table, criterion="cka")["speedup_batch8"] == pytest.approx(2)
    assert row_of(table, criterion="dense")["speedup_batch1"] == pytest.approx(1)


def test_what_holds_a_network_back_has_known_values() -> None:
    table = speedup.TABLES["bottleneck"](latency_suite(load=1.0).tables())
    row = row_of(table, criterion="cka")
    # 20 million MACs in 4 ms; 8 times as many in 10 ms, and 8 times 0.2 MB with the weights' 1 MB.
    assert row["gmacs_per_s_batch1"] == pytest.approx(5) and row["gmacs_per_s_batch8"] == pytest.approx(16)
    assert row["macs_per_byte_batch8"] == pytest.approx(1.6e8 / 2.6e6)
    assert cell(table, "GMAC/s, batch 1", row) == f"5.00 {DAGGER}"
    assert cell(table, "Layers", row) == "12"


def test_a_latency_of_ones_own_needs_no_quartiles_or_counts() -> None:
    suite = latency_suite()
    suite.measured = [row for row in suite.measured if row[10].endswith("median_ms")]
    table = speedup.TABLES["speedup"](suite.tables())
    assert cell(table, "Speed-up, batch 1", row_of(table, criterion="cka")) == f"1.25\u00d7 {DOUBLE_DAGGER}"
    assert "GMAC/s" in to_markdown(speedup.TABLES["bottleneck"](suite.tables()))


def test_scoring_that_was_not_metered_has_no_column_of_energy() -> None:
    suite = energy_suite()
    assert "Energy (Wh)" in to_markdown(cost.TABLES["scoring_cost"](suite.tables()))
    suite.measured = [row for row in suite.measured if row[9] != "scoring" or row[10] == "seconds"]
    assert "Energy (Wh)" not in to_markdown(cost.TABLES["scoring_cost"](suite.tables()))


# --- all of them -----------------------------------------------------------------------------------------------------


def both() -> Suite:
    suite, other = latency_suite(), energy_suite()
    suite.measured += other.measured
    return suite


@pytest.mark.parametrize("name", ["cost", "scoring_cost", "speedup", "bottleneck", "energy"])
def test_tables_are_written_and_their_columns_say_where_from(name: str) -> None:
    table = maker("TABLES", name, TABLES[name])(both().tables())
    assert DAGGER not in to_latex(table) and "\\begin{tabular}" in to_latex(table)
    named = {"Point", "Criterion", "n"}
    for column in table.columns:
        assert column.origins or column.header in named, column.header
        for origin in column.origins:
            assert origin.tidy in {field.name for field in fields(Tables)}
    # Neither is there a column of the CSV file of which trace does not know it.
    if name in ("speedup", "bottleneck", "energy"):
        tidy = both().tables()
        number = next(number for number, point in enumerate(table.data["operating_point"]) if point != "dense")
        assert {column for column in table.data if not find(table, tidy, number, column).known} == set()
    empty = maker("TABLES", name, TABLES[name])(Suite().tables())
    assert "No rows" in to_markdown(empty) and "No rows" in to_latex(empty)


@pytest.mark.parametrize(
    ("name", "column", "quantities", "networks"),
    [
        ("energy", "pruning_kwh", {"energy_kwh"}, {"dense", "one-shot"}),
        ("energy", "saving_joules_per_image", {"inference_net_energy_joules_per_image"}, {"dense", "one-shot"}),
        ("energy", "dense_training_kwh", {"energy_kwh"}, {"dense"}),
        ("speedup", "gmacs_per_s_batch8", {"macs", "latency_batch8_median_ms"}, {"one-shot"}),
        ("speedup", "macs_per_byte_batch8", {"macs", "weights_bytes", "activations_bytes_per_image"}, {"one-shot"}),
        ("bottleneck", "speedup_batch8", {"latency_batch8_median_ms"}, {"dense", "one-shot"}),
        ("bottleneck", "speedup_batch8_low", {"latency_batch8_p25_ms", "latency_batch8_p75_ms"}, {"dense", "one-shot"}),
    ],
)
def test_columns_that_are_not_shown_say_where_from(name: str, column: str, quantities: set[str], networks: set[str]) -> None:
    tidy = (energy_suite() if name == "energy" else latency_suite()).tables()
    table = maker("TABLES", name, TABLES[name])(tidy)
    number = next(number for number, schedule in enumerate(table.data["schedule"]) if schedule == "one-shot")
    found = find(table, tidy, number, column)
    assert {value.row["quantity"] for value in found.values} == quantities
    assert {value.row["schedule"] for value in found.values} == networks


@pytest.mark.parametrize("name", ["speedup", "energy"])
def test_figures_are_drawn_or_say_why_not(name: str) -> None:
    draw = maker("FIGURES", name, FIGURES[name])
    figure = draw(both().tables(), "digits, resnet20")
    assert isinstance(figure, Figure) and all(axes.has_data() for axes in figure.axes)
    nothing = draw(Suite().tables(), "digits, resnet20")
    assert any("No pruned network" in text.get_text() for text in nothing.axes[0].texts)


@pytest.mark.parametrize("width", [84.0, 120.0])
def test_the_speedup_stands_in_one_column(width: float) -> None:
    with printed(Widths(column_mm=width)):
        figure = speedup.draw_speedup(latency_suite(load=1.0).tables(), "digits, resnet20")
    assert figure.get_size_inches()[0] == pytest.approx(width / 25.4)


def test_hollow_points_are_those_beside_other_work() -> None:
    for load, hollow in ((0.0, False), (1.0, True)):
        axes = speedup.draw_speedup(latency_suite(load=load).tables(), "").axes[0]
        shown = [points for points in axes.collections if len(points.get_offsets())]
        assert [bool(len(points.get_facecolor())) for points in shown] == [not hollow] * 2


def test_marks_in_latex() -> None:
    assert latex(f"3.2 (m) {DAGGER}") == r"3.2 (m) \textdagger{}"
    assert latex("1.25\u00d7") == r"1.25$\times$"


def test_energy_of_scoring_is_collected_as_estimated() -> None:
    assert collect._method("energy_kwh", {"energy_method": "estimated"}) == "estimated"


@pytest.mark.parametrize("quantity", ["idle_power_watts", "inference_power_watts"])
def test_power_was_found_as_energy_was(quantity: str) -> None:
    assert collect._method(quantity, {"energy_method": "estimated", "threads": "2"}) == "estimated"
