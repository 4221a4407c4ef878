"""New test sets of CIFAR-10, and the tables and figures of distribution shift and calibration."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from look import flaws
from prunebench.criteria.consensus import METRICS
from prunebench.data import Dataset, ResidentImages, Split
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject, Values
from prunebench.evaluation import natural_shift as evaluation
from prunebench.evaluation.corruptions import ALL
from prunebench.reporting import shift, shift_figures
from prunebench.reporting.collect import DENSE_COLUMNS, RESULT_COLUMNS, Tables
from prunebench.reporting.drawing import style
from prunebench.reporting.formats import NOTHING, Table, to_latex, to_markdown
from prunebench.reporting.shift import CLEAN, MEAN

CIFAR10 = Dataset("cifar10", (3, 32, 32), 10, 4, True, lambda *_: None, "")  # type: ignore[arg-type,return-value]


class Level(nn.Module):
    """The class that the first pixel's red says."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(level, 10).float()


def images(levels: list[int]) -> Any:
    return np.broadcast_to(np.array(levels, dtype=np.uint8)[:, None, None, None], (len(levels), 32, 32, 3)).copy()


def measure(root: Path, dataset: Dataset = CIFAR10, **options: Any) -> Values:
    pixels = torch.from_numpy(images([1, 2, 3, 4])).permute(0, 3, 1, 2)
    split = Split(dataset, ResidentImages(pixels, torch.tensor([1, 2, 3, 4])), torch.arange(4))
    return evaluation.measure(
        Subject(Level(), (3, 32, 32), 10, lambda: split, torch.device("cpu"), options=options, data_root=root)
    )


def write_cifar10_1(folder: Path, version: str, levels: list[int], labels: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"cifar10.1_{version}_data.npy", images(levels))
    np.save(folder / f"cifar10.1_{version}_labels.npy", np.array(labels, dtype=np.int32))


def test_new_test_sets_that_come_make_the_job_run_again(tmp_path: Path) -> None:
    inputs = evaluation.EVALUATION.inputs
    assert inputs is not None
    for name in evaluation.FILES:
        assert not any(path.exists() for path in inputs({"sets": [name]}, CIFAR10, tmp_path))
    write_cifar10_1(tmp_path / "CIFAR-10.1" / "datasets", "v6", [1], [1])
    there = evaluation.find(tmp_path, "cifar10_1_v6")
    for options in ({}, {"sets": ["cifar10_1_v6"]}):
        assert [path for path in inputs(options, CIFAR10, tmp_path) if path.exists()] == there
    assert not any(path.exists() for path in inputs({"sets": ["cifar10_1_v4"]}, CIFAR10, tmp_path))


def test_new_test_sets_are_found_and_compared(tmp_path: Path) -> None:
    write_cifar10_1(tmp_path / "CIFAR-10.1" / "datasets", "v6", [1, 2, 3, 4, 5], [1, 2, 3, 4, 0])
    # As it was published, with other arrays beside, some of them of Python objects.
    np.savez(
        tmp_path / "cifar102_test.npz",
        images=images([7, 8]),
        labels=np.array([7, 0]),
        label_names=np.array(["airplane", None], dtype=object),
    )
    values = measure(tmp_path).values
    assert values["test_accuracy_percent"] == 100
    assert (values["cifar10_1_v6_accuracy_percent"], values["cifar10_1_v6_gap_pp"], values["cifar10_1_v6_images"]) == (80, 20, 5)
    assert (values["cifar10_2_accuracy_percent"], values["cifar10_2_gap_pp"]) == (50, 50)
    assert not any("v4" in name for name in values)
    assert set(measure(tmp_path, sets=["cifar10_2"]).values) == {
        "test_accuracy_percent",
        "cifar10_2_accuracy_percent",
        "cifar10_2_gap_pp",
        "cifar10_2_images",
    }


def test_missing_sets_are_named_with_their_files(tmp_path: Path) -> None:
    with pytest.raises(
        PrunebenchError, match=r"expected any of: .*cifar10\.1_v6_data\.npy and cifar10\.1_v6_labels\.npy in .*cifar102_test"
    ):
        measure(tmp_path)
    write_cifar10_1(tmp_path, "v4", [1], [1])
    with pytest.raises(PrunebenchError, match=r"cifar10_1_v6 is not in the data root: expected cifar10\.1_v6_data"):
        measure(tmp_path, sets=["cifar10_1_v6"])
    assert measure(tmp_path).values["cifar10_1_v4_accuracy_percent"] == 100


@pytest.mark.parametrize("labels", [[1, 10], [1, -1], [1]])
def test_sets_that_are_something_else_are_refused(tmp_path: Path, labels: list[int]) -> None:
    write_cifar10_1(tmp_path, "v6", [1, 2], labels)
    with pytest.raises(PrunebenchError, match=r"cifar10\.1_v6_data\.npy: uint8 images of \(2, 32, 32, 3\)"):
        measure(tmp_path)


def test_a_corrupt_file_is_named_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "cifar102_test.npz").write_bytes(b"PK\x03\x04 not a whole archive")
    with pytest.raises(PrunebenchError, match="cifar10_2 cannot be read"):
        measure(tmp_path)
    np.savez(tmp_path / "cifar102_test.npz", images=np.array([{}], dtype=object), labels=np.array([0]))
    with pytest.raises(PrunebenchError, match=r"cifar10_2 cannot be read .*allow_pickle"):
        measure(tmp_path)


def test_other_datasets_are_refused(tmp_path: Path) -> None:
    other = Dataset("cifar100", (3, 32, 32), 100, 4, True, lambda *_: None, "")  # type: ignore[arg-type,return-value]
    assert evaluation.unsuited(CIFAR10) is None and "cifar10" in (evaluation.unsuited(other) or "")
    with pytest.raises(PrunebenchError, match="natural_shift: cifar100"):
        measure(tmp_path, other)


# --- tables and figures ----------------------------------------------------------------------------------------------

POINTS = {"blocks2": 20.0, "blocks5": 50.0}


def row(
    replicate: int, schedule: str, criterion: str, point: str, evaluation: str, quantity: str, value: float
) -> dict[str, Any]:
    """A row of the tidy table; a criterion's first draw."""
    return {
        **dict(zip(RESULT_COLUMNS, ["tiny", "cifar10", "resnet20", replicate, schedule, criterion, 0, point, 0], strict=False)),
        "blocks_removed": int(point.removeprefix("blocks")) if point in POINTS else 0,
        "evaluation": evaluation,
        "quantity": quantity,
        "value": value,
        "source": f"cifar10/resnet20/replicate{replicate}/{schedule}/{criterion}/{point}/evaluations/{evaluation}.json",
    }


def suite(criteria: tuple[str, ...] = ("consensus", "cka", "random"), replicates: int = 3, shared: bool = False) -> Tables:
    """Networks whose errors are known: the k-th criterion has k more at two blocks, 2 k at five; every corruption another 10 per number."""
    rows = []
    for replicate in range(replicates):
        networks = [("dense", "dense", "dense", 0.0)]
        for number, criterion in enumerate(criteria, start=1):
            networks += [("one-shot", criterion, point, number * (1 + place)) for place, point in enumerate(POINTS)]
        for schedule, criterion, point, more in networks:
            # Another replicate, another dense network; and a little spread of the differences, or there is nothing to test by.
            more = more + 0.1 * replicate * more
            values = {"corruptions": {CLEAN: 10 + replicate + more / 2, MEAN: 30 + replicate + more}}
            values["corruptions"] |= {f"{name}_error_percent": 10.0 + number + more for number, name in enumerate(ALL)}
            values["corruptions"] |= {"noise_mean_error_percent": 11 + more, "corruption_images": 200, "standard_corruptions": 15}
            values["corruptions"] |= {"extra_corruptions": 4, "corruption_severities": 5, "published_images": 0}
            values["calibration"] = {name: 2.0 + more for name in CALIBRATED} | {
                "calibration_images": 200,
                "calibration_bins": 15,
            }
            values["accuracy"] = {"cross_entropy_nats": 0.25 + more}
            values["natural_shift"] = {
                "test_accuracy_percent": 90.0,
                "cifar10_1_v6_accuracy_percent": 80 - more,
                "cifar10_1_v6_gap_pp": 10 + more,
                "cifar10_1_v6_images": 2000,
            }
            if schedule != "dense":
                values["complexity"] = {"flops_reduction_percent": POINTS[point]}
            rows += [
                row(replicate, schedule, criterion, point, evaluation, quantity, float(value))
                for evaluation, found in values.items()
                for quantity, value in found.items()
            ]
    empty = {field.name: pd.DataFrame(columns=["dataset", "model"]) for field in fields(Tables)}
    own = [
        ("tiny", "cifar10", "resnet20", replicate, f"weights {replicate * (not shared)}", "") for replicate in range(replicates)
    ]
    return Tables(**{**empty, "results": pd.DataFrame(rows), "dense_networks": pd.DataFrame(own, columns=list(DENSE_COLUMNS))})


CALIBRATED = (
    "expected_calibration_error_percent",
    "expected_calibration_error_by_chance_percent",
    "adaptive_calibration_error_percent",
    "brier_score",
    "mean_confidence_percent",
    "overconfidence_pp",
)


def cells(table: Table, criterion: str, point: str = "blocks5") -> dict[str, str]:
    chosen = table.data[(table.data["criterion"] == criterion) & (table.data["operating_point"] == point)]
    (found,) = [record for _, record in chosen.iterrows()]
    return {column.header: column.cell(found) for column in table.columns}


def test_the_table_of_corruptions_says_what_was_found() -> None:
    table = shift.TABLES["corruptions"](suite())
    assert "on 200 test images under 15 of the 15 standard corruptions" in table.caption and "made here" in table.caption
    dense, found = cells(table, "dense", "dense"), cells(table, "consensus")
    assert dense["Corruption error (%)"] == "31.00 ± 1.00" and dense["Against dense (pp)"] == NOTHING
    # Two points more than the dense network, and 0.2 and 0.4 on top in the second and third replicate.
    assert found["Corruption error (%)"] == "33.20 ± 1.20"
    assert found["Against dense (pp)"] == "+2.20 [+1.70, +2.70], higher"
    assert found["Noise (%)"] == "13.20" and found["FLOPs reduction (%)"] == "50.00"
    assert "Blur (%)" not in found and "mCE, dense = 100 (%)" not in found


@pytest.mark.parametrize("name", shift.TABLES)
def test_captions_say_that_replicates_share_a_dense_network(name: str) -> None:
    assert "conditional on it" in shift.TABLES[name](suite(shared=True)).caption
    assert "conditional on it" not in shift.TABLES[name](suite()).caption


def test_one_replicate_has_no_verdict() -> None:
    found = cells(shift.TABLES["corruptions"](suite(replicates=1)), "cka")
    assert found["Against dense (pp)"] == "+4.00, undecided"
    assert found["Corruption error (%)"] == "34.00"


def test_a_column_with_fewer_replicates_says_so() -> None:
    tables = suite()
    results, accuracy = tables.results, tables.results["quantity"] == "cross_entropy_nats"
    pruned = (results["criterion"] == "consensus") & (results["operating_point"] == "blocks5")
    ece = results["quantity"] == shift.ECE
    gone = accuracy & pruned & (results["replicate"] == 0) | ece & pruned & (results["replicate"] == 2)
    results = results[~(gone | accuracy & (results["criterion"] == "cka"))]
    table = shift.TABLES["calibration"](replace(tables, results=results))
    found = cells(table, "consensus")
    assert found["n"] == "3" and found["Confidence (%)"] == "4.20"
    assert found["NLL (nats)"] == "2.550 ± 0.141 (n = 2)" and found["ECE (%)"] == "4.10 ± 0.14 (n = 2)"
    assert found["ECE against dense (pp)"].startswith("+2.10 [") and found["ECE against dense (pp)"].endswith("(n = 2)")
    assert cells(table, "cka")["NLL (nats)"] == NOTHING
    assert "(n = " not in "".join(cells(table, "random").values())


def test_the_table_of_calibration_shows_the_likelihood_of_accuracy() -> None:
    table = shift.TABLES["calibration"](suite())
    found = cells(table, "consensus", "blocks2")
    assert found["ECE (%)"] == "3.10 ± 0.10" and found["NLL (nats)"] == "1.350 ± 0.100"
    assert found["ECE against dense (pp)"] == "+1.10 [+0.85, +1.35], higher"
    (likelihood,) = next(column.origins for column in table.columns if column.header == "NLL (nats)")
    assert (likelihood.evaluation, likelihood.quantity) == ("accuracy", "cross_entropy_nats")


def test_the_table_of_new_test_sets_has_those_that_were_there() -> None:
    table = shift.TABLES["natural_shift"](suite())
    found = cells(table, "random", "blocks2")
    assert found["CIFAR-10.1 v6: gap (pp)"] == "+13.30 ± 0.30"
    assert found["CIFAR-10.1 v6: gap against dense (pp)"].endswith("higher")
    assert not any("CIFAR-10.2" in header for header in found)
    assert "CIFAR-10.1 v6 2000" in table.caption


@pytest.mark.parametrize("name", shift.TABLES)
def test_tables_can_be_written_and_traced(name: str) -> None:
    table = shift.TABLES[name](suite())
    assert to_markdown(table).count("consensus") == 2 and r"\toprule" in to_latex(table)
    results = suite().results
    for column in table.columns:
        for origin in column.origins:
            assert ((results["evaluation"] == origin.evaluation) & (results["quantity"] == origin.quantity)).any(), (
                column.header,
                origin,
            )
    unnamed = {"Point", "Criterion", "n"}
    assert {column.header for column in table.columns if not column.origins} <= unnamed


@pytest.mark.parametrize(
    "criteria", [("consensus",), ("consensus", "cka", "random"), (*METRICS, "consensus", "random", "first", "last")]
)
@pytest.mark.parametrize("name", shift_figures.FIGURES)
def test_figures_have_no_flaws(name: str, criteria: tuple[str, ...]) -> None:
    with style():
        assert flaws(shift_figures.FIGURES[name](suite(criteria), "cifar10, resnet20")) == []


def test_the_map_shows_the_last_point_and_its_changes() -> None:
    with style():
        figure = shift_figures.FIGURES["corruption_map"](suite(replicates=1), "cifar10, resnet20")
    panel = figure.axes[0]
    assert panel.get_title() == "one-shot, blocks5"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["consensus", "cka", "random"]
    numbers = [text.get_text() for text in panel.texts]
    # Half as much without corruption, and the same under each of 19.
    assert numbers == ["+1.0", "+2.0", "+3.0", *["+2.0", "+4.0", "+6.0"] * 19]


def test_delivered_networks_stand_in_the_map_one_by_one() -> None:
    tables = suite()
    pruned = tables.results["schedule"] != "dense"
    tables.results.loc[pruned, "schedule"] = "delivered"
    with style():
        figure = shift_figures.FIGURES["corruption_map"](tables, "cifar10, resnet20")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        f"{criterion} {point}" for criterion in ("consensus", "cka", "random") for point in POINTS
    ]


def test_without_a_dense_network_there_is_a_note() -> None:
    tables = suite()
    alone = replace(tables, results=tables.results[tables.results["schedule"] != "dense"])
    for draw in shift_figures.FIGURES.values():
        assert "dense network to compare with" in draw(alone, "x").axes[0].texts[0].get_text().replace("\n", " ")
