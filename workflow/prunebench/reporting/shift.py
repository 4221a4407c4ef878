"""Distribution shift and calibration: errors on corrupted images, accuracy on new test sets, and whether confidence can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prunebench.evaluation.corruptions import ALL
from prunebench.reporting import statistics
from prunebench.reporting.collect import DELIVERED, DENSE, Tables
from prunebench.reporting.display import ordered_criteria, ordered_schedules, select, sort_for_display
from prunebench.reporting.drawing import bare, ink, mean_over, note
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import MINUS, NOTHING, PLUS_MINUS, Column, Origin, Table, compact, interval, mean_sd, number

CORRUPTIONS, NATURAL, CALIBRATION = "corruptions", "natural_shift", "calibration"
MEAN, CLEAN, ECE = "mean_corruption_error_percent", "clean_error_percent", "expected_calibration_error_percent"
_NETWORK = [*statistics.POINT, "criterion"]
_FLOPS = ("complexity", "flops_reduction_percent")
_GROUPS = ("noise", "blur", "weather", "digital", "extra")
# Whether more is better is the reader's to say: verdicts tell the direction alone.
_WORDS = {"better": "higher", "worse": "lower"}
_SETS = {"cifar10_1_v4": "CIFAR-10.1 v4", "cifar10_1_v6": "CIFAR-10.1 v6", "cifar10_2": "CIFAR-10.2"}


# --- from tidy rows to numbers ---------------------------------------------------------------------------------------


def by_network(results: pd.DataFrame, evaluation: str, quantities: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """One row for each network that was evaluated.

    Args:
        results: the tidy table ``results``.
        evaluation: which evaluation.
        quantities: the columns wanted, each with its evaluation and quantity.

    Returns:
        Columns of the network, ``blocks_removed``, ``flops_reduction_percent`` and those wanted; ``nan`` where not known.
    """
    keys = [*_NETWORK, "replicate", "draw"]
    frame = results.loc[results["evaluation"] == evaluation, [*keys, "blocks_removed"]].drop_duplicates().set_index(keys)
    for column, (source, quantity) in {**quantities, _FLOPS[1]: _FLOPS}.items():
        frame[column] = select(results, source, quantity).set_index(keys)["value"]
    frame.loc[frame.index.get_level_values("schedule") == DENSE, _FLOPS[1]] = 0.0
    return frame.reset_index()


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
        ``n`` replicates; for each column ``<column>_mean`` and ``<column>_sd`` over replicates, after the mean over draws; for each
        quantity that is compared ``<quantity>_change``, the mean paired difference, ``..._change_low`` and ``..._change_high`` of its
        95 % t interval (not adjusted), and ``..._change_verdict`` after Holm's adjustment.
    """
    networks = by_network(results, evaluation, quantities)
    columns = [*quantities, _FLOPS[1], "blocks_removed"]
    replicates = networks.groupby([*_NETWORK, "replicate"], as_index=False)[columns].mean()
    groups = replicates.groupby(_NETWORK)
    table = groups[["blocks_removed", _FLOPS[1]]].mean()
    table["n"] = groups["replicate"].nunique()
    for column in quantities:
        table[f"{column}_mean"], table[f"{column}_sd"] = groups[column].mean(), groups[column].std(ddof=1)
    table = table.reset_index()
    for quantity in compared:
        stem = f"{quantity}_change"
        found = statistics.compare(results, DENSE, evaluation, quantity).rename(
            columns={"mean_difference": stem, "ci_low": f"{stem}_low", "ci_high": f"{stem}_high", "verdict": f"{stem}_verdict"}
        )
        found[f"{stem}_verdict"] = found[f"{stem}_verdict"].replace(_WORDS)
        table = table.merge(found[[*_NETWORK, *(name for name in found if str(name).startswith(stem))]], on=_NETWORK, how="left")
    return sort_for_display(table)


def _known(results: pd.DataFrame, evaluation: str, quantities: Iterable[str]) -> dict[str, tuple[str, str]]:
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
        Column("FLOPs reduction (%)", lambda row: number(row.flops_reduction_percent, 2), origins=(Origin("results", *_FLOPS),)),
        Column("n", lambda row: str(row.n)),
    ]


def _mean(header: str, evaluation: str, quantity: str, digits: int = 2, sign: bool = False) -> Column:
    def cell(row: Any) -> str:
        return mean_sd(row[f"{quantity}_mean"], row[f"{quantity}_sd"], sign=sign, digits=digits)

    return Column(header, cell, origins=(Origin("results", evaluation, quantity),))


def _plain(header: str, evaluation: str, quantity: str, digits: int = 2, sign: bool = False) -> Column:
    """The mean alone, where a table has no room for more; its deviation is in the CSV file."""
    return Column(
        header, lambda row: number(row[f"{quantity}_mean"], digits, sign), origins=(Origin("results", evaluation, quantity),)
    )


def _change(header: str, evaluation: str, quantity: str) -> Column:
    """The paired difference to the dense network, its interval and the verdict."""
    stem = f"{quantity}_change"

    def cell(row: Any) -> str:
        if math.isnan(row[stem]):
            return NOTHING
        bounds = "" if math.isnan(row[f"{stem}_low"]) else f" {interval(row[f'{stem}_low'], row[f'{stem}_high'])}"
        return f"{number(row[stem], 2, sign=True)}{bounds}, {row[f'{stem}_verdict']}"

    own = Origin("results", evaluation, quantity)
    return Column(header, cell, origins=(own, Origin("results", evaluation, quantity, criterion=DENSE, schedule=DENSE)))


_AGAINST = (
    "Against dense: mean paired difference in the same replicate, its 95 % t interval (not adjusted), and the verdict of the paired t test "
    "after Holm's adjustment over the criteria of one point."
)
_SPREAD = f"Mean {PLUS_MINUS} standard deviation over n replicates."


def _corruptions(tables: Tables) -> Table:
    results = tables.results
    ratios = {
        "mean_corruption_error_relative_to_dense_percent": "mCE, dense = 100 (%)",
        "mean_excess_error_relative_to_dense_percent": "Relative mCE, dense = 100 (%)",
    }
    groups = {f"{group}_mean_error_percent": f"{group.capitalize()} (%)" for group in _GROUPS}
    each = [f"{name}_error_percent" for name in ALL]
    wanted = _known(results, CORRUPTIONS, [CLEAN, MEAN, *ratios, *groups, *each])
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
    return Table("corruptions", caption, data, columns)


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
    sets = {name: label for name, label in _SETS.items() if _known(results, NATURAL, [f"{name}_gap_pp"])}
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
    return Table(
        "natural_shift", caption, summarise(results, NATURAL, _known(results, NATURAL, [official, *shown]), compared), columns
    )


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
    return Table("calibration", caption, summarise(results, CALIBRATION, wanted, [ECE]), columns)


# --- figures ---------------------------------------------------------------------------------------------------------


def changes(results: pd.DataFrame, quantities: Iterable[str]) -> pd.DataFrame:
    """Errors of pruned networks on corrupted images less the dense network's of the same replicate, in percentage points.

    Returns:
        One row for each network and quantity: columns of the network, ``flops_reduction_percent``, ``quantity``, ``change_pp``.
    """
    wanted = _known(results, CORRUPTIONS, quantities)
    networks = by_network(results, CORRUPTIONS, wanted)
    kept = [*_NETWORK, "replicate", "draw", "blocks_removed", _FLOPS[1]]
    long = networks.melt(kept, list(wanted), var_name="quantity", value_name="error").dropna(subset=["error"])
    shared = ["dataset", "model", "replicate", "quantity"]
    dense = long.loc[long["schedule"] == DENSE, [*shared, "error"]]
    pairs = long[long["schedule"] != DENSE].merge(dense, on=shared, suffixes=("", "_dense"))
    pairs["change_pp"] = pairs["error"] - pairs["error_dense"]
    return pairs


def _figure(tables: Tables, title: str) -> Figure:
    """Change of accuracy by criterion against FLOPs reduction: above on the clean images, below under corruption."""
    found = changes(tables.results, [CLEAN, MEAN]).dropna(subset=[_FLOPS[1]])
    # As accuracy, so that down is bad in both rows and in the figure of accuracy.
    found["change_pp"] = -found["change_pp"]
    schedules = ordered_schedules(found["schedule"])
    rows = [
        (quantity, words) for quantity, words in ((CLEAN, "clean"), (MEAN, "corrupted")) if (found["quantity"] == quantity).any()
    ]
    if not schedules or len(rows) < 2:
        return note(
            title, "No pruned network has errors on corrupted images, a FLOPs reduction and a dense network to compare with."
        )
    criteria = ordered_criteria(found["criterion"])
    looks = looks_of(criteria)
    legend = legend_of(criteria, looks, spread=found["replicate"].nunique() > 1)
    figure = Figure(figsize=(3.1 * len(schedules) + 2.3, 5.4), layout="constrained")
    panels = figure.subplots(2, len(schedules), sharey=True, sharex="col", squeeze=False)
    for line, (quantity, words) in zip(panels, rows, strict=True):
        for panel, schedule in zip(line, schedules, strict=True):
            here = found[(found["schedule"] == schedule) & (found["quantity"] == quantity)]
            criteria_panel(panel, here, looks)
            panel.set_title(f"{schedule}, {words} images", fontsize=8.5)
        line[0].set_ylabel("Accuracy change\nagainst dense (pp)")
    for panel in panels[-1]:
        panel.set_xlabel("FLOPs reduction (%)")
    figure.suptitle(title, fontsize=9.5)
    figure.legend(handles=legend, loc="outside right upper", frameon=False, handlelength=3.4)
    return figure


def _map(tables: Tables, title: str) -> Figure:
    """Heat map: change of the error under each corruption, at the operating point of each schedule that removes the most."""
    quantities = [CLEAN, *(f"{name}_error_percent" for name in ALL)]
    found = changes(tables.results, quantities)
    schedules = ordered_schedules(found["schedule"])
    if not schedules:
        return note(title, "No pruned network has errors on corrupted images and a dense network to compare with.")
    shown = [quantity for quantity in quantities if (found["quantity"] == quantity).any()]
    panels_of = {}
    for schedule in schedules:
        words, columns, here = _networks(found[found["schedule"] == schedule], schedule)
        means = here.groupby(["quantity", "column", "replicate"])["change_pp"].mean().groupby(["quantity", "column"]).mean()
        panels_of[words] = means.unstack("column").reindex(index=shown, columns=columns)
    limit = max(1.0, max(float(np.nanmax(np.abs(means.to_numpy()))) for means in panels_of.values()))
    widths = [len(means.columns) for means in panels_of.values()]
    figure = Figure(
        figsize=(max(4.6, 0.36 * sum(widths) + 0.3 * len(widths) + 2.2), 0.21 * len(shown) + 2.1), layout="constrained"
    )
    panels = figure.subplots(1, len(panels_of), squeeze=False, sharey=True, width_ratios=widths)[0]
    for panel, (title_of, means) in zip(panels, panels_of.items(), strict=True):
        _signed_cells(panel, means.to_numpy(), limit)
        panel.set_xticks(range(len(means.columns)), list(means.columns), rotation=90)
        panel.set_title(title_of, fontsize=8.5)
        for edge in _edges(shown):
            panel.axhline(edge - 0.5, color="white", linewidth=3)
    panels[0].set_yticks(range(len(shown)), [_words(quantity) for quantity in shown])
    figure.suptitle(title, fontsize=9.5)
    mapped = mpl.cm.ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    bar = figure.colorbar(mapped, ax=list(panels), pad=0.02, aspect=25)
    bar.set_label("Error against dense (pp)" + mean_over(found["replicate"].nunique()))
    bar.outline.set_visible(False)
    return figure


def _networks(rows: pd.DataFrame, schedule: str) -> tuple[str, list[str], pd.DataFrame]:
    """What a panel shows: its title, its columns, and the rows with their ``column``.

    Criteria share their operating points, and stand side by side at the last. Delivered networks have points of their own: all are shown.
    """
    if schedule == DELIVERED:
        order: pd.DataFrame = rows.groupby(["criterion", "operating_point"])[_FLOPS[1]].mean().fillna(0).reset_index()
        methods = ordered_criteria(order["criterion"])
        order["method"] = order["criterion"].map(methods.index)
        order = order.sort_values(["method", _FLOPS[1], "operating_point"])
        columns = [f"{method} {point}" for method, point in zip(order["criterion"], order["operating_point"], strict=True)]
        return schedule, columns, rows.assign(column=rows["criterion"] + " " + rows["operating_point"])
    furthest = (
        rows.groupby("operating_point")[[_FLOPS[1], "blocks_removed"]]
        .mean()
        .fillna(-1)
        .sort_values([_FLOPS[1], "blocks_removed"])
    )
    last = str(furthest.index[-1])
    here = rows[rows["operating_point"] == last]
    return f"{schedule}, {last}", ordered_criteria(here["criterion"]), here.assign(column=here["criterion"])


def _words(quantity: str) -> str:
    return (
        "no corruption"
        if quantity == CLEAN
        else quantity.removesuffix("_error_percent").replace("_", " ").replace("jpeg", "JPEG")
    )


def _edges(quantities: list[str]) -> list[int]:
    """Rows at which another group of corruptions begins."""
    sizes = (3, 4, 4, 4, 4)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    group = {CLEAN: -1, **{f"{name}_error_percent": number for name, number in zip(ALL, groups, strict=True)}}
    return [row for row in range(1, len(quantities)) if group[quantities[row]] != group[quantities[row - 1]]]


def _signed_cells(axes: Axes, values: Any, limit: float) -> None:
    """A heat map around zero with a number in every cell that has a value."""
    norm, colours = Normalize(-limit, limit), mpl.colormaps["RdBu_r"]
    axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not math.isnan(value):
            text = f"{value:+z.1f}" if abs(value) < 9.95 else f"{value:+.0f}"
            axes.text(j, i, text.replace("-", MINUS), ha="center", va="center", fontsize=5.8, color=ink(colours(norm(value))))
    bare(axes)


TABLES: dict[str, Callable[[Tables], Table]] = {
    "corruptions": _corruptions,
    "natural_shift": _natural,
    "calibration": _calibration,
}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"corruptions": _figure, "corruption_map": _map}
