"""Distribution shift and calibration: errors on corrupted images, accuracy on new test sets, and whether confidence can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from prunebench.evaluation.corruptions import ALL
from prunebench.reporting import statistics
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.comparison import conditional
from prunebench.reporting.display import select, sort_for_display
from prunebench.reporting.formats import NOTHING, PLUS_MINUS, Column, Origin, Table, compact, difference, fewer, mean_sd, number
from prunebench.reporting.statistics import FLOPS, by_network

CORRUPTIONS, NATURAL, CALIBRATION = "corruptions", "natural_shift", "calibration"
MEAN, CLEAN, ECE = "mean_corruption_error_percent", "clean_error_percent", "expected_calibration_error_percent"
NETWORK = [*statistics.POINT, "criterion"]
_GROUPS = ("noise", "blur", "weather", "digital", "extra")
_SETS = {"cifar10_1_v4": "CIFAR-10.1 v4", "cifar10_1_v6": "CIFAR-10.1 v6", "cifar10_2": "CIFAR-10.2"}


# --- from tidy rows to numbers ---------------------------------------------------------------------------------------


def summarise(
    results: pd.DataFrame, evaluation: str, quantities: Mapping[str, tuple[str, str]], compared: Iterable[str]
) -> pd.DataFrame:
    """One row for each criterion and operating point.

    Args:
        results: the tidy table ``results``.
        evaluation: which evaluation.
        quantities: as for ``by_network``.
        compared: quantities of the evaluation that are compared with the dense network's.

    Returns:
        ``n`` replicates that were evaluated; for each column ``<column>_mean`` and ``<column>_sd`` over the ``<column>_n`` replicates
        that have it, after the mean over draws; for each
        quantity that is compared ``<quantity>_change``, the mean paired difference, ``..._change_low`` and ``..._change_high`` of its
        95 % t interval (not adjusted), ``..._change_n`` pairs, and ``..._change_verdict`` after Holm's adjustment.
    """
    networks = by_network(results, evaluation, quantities)
    columns = [*quantities, FLOPS[1], "blocks_removed"]
    replicates = networks.groupby([*NETWORK, "replicate"], as_index=False)[columns].mean()
    groups = replicates.groupby(NETWORK)
    table = groups[["blocks_removed", FLOPS[1]]].mean()
    table["n"] = groups["replicate"].nunique()
    for column in quantities:
        table[f"{column}_mean"], table[f"{column}_sd"] = groups[column].mean(), groups[column].std(ddof=1)
        table[f"{column}_n"] = groups[column].count()
    table = table.reset_index()
    for quantity in compared:
        stem = f"{quantity}_change"
        # The verdict tells the direction alone: what is better, the caption says.
        found = statistics.compare(results, DENSE, evaluation, quantity, better=None).rename(
            columns={
                "mean_difference": stem,
                "ci_low": f"{stem}_low",
                "ci_high": f"{stem}_high",
                "n": f"{stem}_n",
                "verdict": f"{stem}_verdict",
            }
        )
        table = table.merge(found[[*NETWORK, *(name for name in found if str(name).startswith(stem))]], on=NETWORK, how="left")
    return sort_for_display(table)


def known(results: pd.DataFrame, evaluation: str, quantities: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Those of an evaluation's quantities that a suite has."""
    found = set(results.loc[results["evaluation"] == evaluation, "quantity"])
    return {quantity: (evaluation, quantity) for quantity in quantities if quantity in found}


def _range(results: pd.DataFrame, evaluation: str, quantity: str) -> str:
    """A number that all networks of a suite share, or from where to where it goes."""
    values = select(results, evaluation, quantity)["value"]
    if values.empty:
        return NOTHING
    low, high = compact(float(values.min())), compact(float(values.max()))
    return low if low == high else f"{low} to {high}"


# --- tables ----------------------------------------------------------------------------------------------------------


def _columns() -> list[Column]:
    return [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("FLOPs reduction (%)", lambda row: number(row.flops_reduction_percent, 2), origins=(Origin("results", *FLOPS),)),
        Column("n", lambda row: str(row.n)),
    ]


def _mean(header: str, evaluation: str, quantity: str, digits: int = 2, sign: bool = False) -> Column:
    def cell(row: Any) -> str:
        text = mean_sd(row[f"{quantity}_mean"], row[f"{quantity}_sd"], sign=sign, digits=digits)
        return text + fewer(row[f"{quantity}_n"], row.n)

    return Column(header, cell, origins=(Origin("results", evaluation, quantity),))


def _plain(header: str, evaluation: str, quantity: str, digits: int = 2, sign: bool = False) -> Column:
    """The mean alone, where a table has no room for more; its deviation is in the CSV file."""

    def cell(row: Any) -> str:
        return number(row[f"{quantity}_mean"], digits, sign) + fewer(row[f"{quantity}_n"], row.n)

    return Column(header, cell, origins=(Origin("results", evaluation, quantity),))


def _change(header: str, evaluation: str, quantity: str) -> Column:
    """The paired difference to the dense network, its interval and the verdict."""
    stem = f"{quantity}_change"

    def cell(row: Any) -> str:
        text = difference(row[stem], row[f"{stem}_low"], row[f"{stem}_high"], row[f"{stem}_verdict"])
        return text + fewer(row[f"{stem}_n"], row.n)

    own = Origin("results", evaluation, quantity)
    return Column(header, cell, origins=(own, Origin("results", evaluation, quantity, criterion=DENSE, schedule=DENSE)))


_AGAINST = (
    "Against dense: mean paired difference in the same replicate, its 95 % t interval (not adjusted), and the verdict of the paired t test "
    "after Holm's adjustment over the criteria of one point."
)
_SPREAD = f"Mean {PLUS_MINUS} standard deviation over n replicates, or over as many as stand in brackets."


def _corruptions(tables: Tables) -> Table:
    results = tables.results
    ratios = {
        "mean_corruption_error_relative_to_dense_percent": "mCE, dense = 100 (%)",
        "mean_excess_error_relative_to_dense_percent": "Relative mCE, dense = 100 (%)",
    }
    groups = {f"{group}_mean_error_percent": f"{group.capitalize()} (%)" for group in _GROUPS}
    each = [f"{name}_error_percent" for name in ALL]
    wanted = known(results, CORRUPTIONS, [CLEAN, MEAN, *ratios, *groups, *each])
    columns = [*_columns(), _mean("Clean error (%)", CORRUPTIONS, CLEAN)]
    if MEAN in wanted:
        columns += [_mean("Corruption error (%)", CORRUPTIONS, MEAN), _change("Against dense (pp)", CORRUPTIONS, MEAN)]
    columns += [_mean(header, CORRUPTIONS, name, digits=1) for name, header in ratios.items() if name in wanted]
    columns += [_plain(header, CORRUPTIONS, name) for name, header in groups.items() if name in wanted]
    images, severities = (_range(results, CORRUPTIONS, f"corruption_{what}") for what in ("images", "severities"))
    standard, extra = (_range(results, CORRUPTIONS, f"{what}_corruptions") for what in ("standard", "extra"))
    caption = (
        f"Errors on {images} test images under {standard} of the 15 standard corruptions of CIFAR-10-C and {extra} of its 4 extra "
        f"ones, each at {severities} of 5 severities; {_where(results)}. Corruption error: mean over the standard corruptions, which "
        "the groups noise, blur, weather and digital are parts of; extra: mean over the others. mCE: the error under each "
        "corruption over the dense network's, mean over the standard ones; relative mCE: likewise of the error less that on clean "
        f"images. {_SPREAD} {_AGAINST}"
    )
    data = summarise(results, CORRUPTIONS, wanted, [MEAN] if MEAN in wanted else [])
    return Table("corruptions", caption + conditional(tables), data, columns)


def _where(results: pd.DataFrame) -> str:
    """Where corrupted images are from."""
    published = set(select(results, CORRUPTIONS, "published_images")["value"])
    if published == {1.0}:
        return "images of the published files"
    if published == {0.0}:
        return "images made here with its constants, so not the published ones"
    return "on some datasets images of the published files, on others made here"


def _natural(tables: Tables) -> Table:
    results = tables.results
    official = "test_accuracy_percent"
    sets = {name: label for name, label in _SETS.items() if known(results, NATURAL, [f"{name}_gap_pp"])}
    shown = [f"{name}_{what}" for name in sets for what in ("accuracy_percent", "gap_pp")]
    columns = [*_columns(), _mean("Test accuracy (%)", NATURAL, official)]
    for name, label in sets.items():
        columns += [
            _mean(f"{label}: accuracy (%)", NATURAL, f"{name}_accuracy_percent"),
            _mean(f"{label}: gap (pp)", NATURAL, f"{name}_gap_pp", sign=True),
            _change(f"{label}: gap against dense (pp)", NATURAL, f"{name}_gap_pp"),
        ]
    sizes = ", ".join(f"{label} {_range(results, NATURAL, f'{name}_images')}" for name, label in sets.items())
    caption = (
        f"Accuracy on test sets that were collected years after CIFAR-10 (images: {sizes or NOTHING}). Gap: accuracy on the official "
        f"test images less that on the new ones, in percentage points (pp). {_SPREAD} {_AGAINST}"
    )
    compared = [f"{name}_gap_pp" for name in sets]
    data = summarise(results, NATURAL, known(results, NATURAL, [official, *shown]), compared)
    return Table("natural_shift", caption + conditional(tables), data, columns)


def _calibration(tables: Tables) -> Table:
    results = tables.results
    chance = "expected_calibration_error_by_chance_percent"
    adaptive, brier = "adaptive_calibration_error_percent", "brier_score"
    own = [ECE, chance, adaptive, brier, "mean_confidence_percent", "overconfidence_pp"]
    likelihood = ("accuracy", "cross_entropy_nats")
    wanted = {**{name: (CALIBRATION, name) for name in own}, likelihood[1]: likelihood}
    columns = [
        *_columns(),
        _plain("Confidence (%)", CALIBRATION, "mean_confidence_percent"),
        _mean("Overconfidence (pp)", CALIBRATION, "overconfidence_pp", sign=True),
        _mean("ECE (%)", CALIBRATION, ECE),
        _change("ECE against dense (pp)", CALIBRATION, ECE),
        _plain("ECE by chance (%)", CALIBRATION, chance),
        _plain("Adaptive ECE (%)", CALIBRATION, adaptive),
        _mean("Brier score", CALIBRATION, brier, digits=4),
        _mean("NLL (nats)", *likelihood, digits=3),
    ]
    bins, images = _range(results, CALIBRATION, "calibration_bins"), _range(results, CALIBRATION, "calibration_images")
    caption = (
        f"Calibration on {images} test images. Confidence: probability of the predicted class; overconfidence: mean confidence less "
        f"accuracy. ECE: expected calibration error over {bins} bins of equal width; adaptive: over as many bins of equally many "
        "images; by chance: what a perfectly calibrated network with the same confidences is expected to have on so few images. "
        "NLL: negative log-likelihood, the mean cross-entropy of the evaluation accuracy. "
        f"{_SPREAD} {_AGAINST}"
    )
    return Table("calibration", caption + conditional(tables), summarise(results, CALIBRATION, wanted, [ECE]), columns)


TABLES: dict[str, Callable[[Tables], Table]] = {
    "corruptions": _corruptions,
    "natural_shift": _natural,
    "calibration": _calibration,
}
