"""Shortcut learning: how far networks follow a planted mark, beside a control that was trained without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunebench.reporting import statistics
from prunebench.reporting.collect import DENSE, Tables, control_of, planted
from prunebench.reporting.comparison import conditional
from prunebench.reporting.display import ordered_criteria, ordered_schedules, select, sort_for_display
from prunebench.reporting.drawing import head, note, nothing_in
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import NOTHING, PLUS_MINUS, Column, Origin, Table, difference, mean_sd, number

EVALUATION, AGREEMENT, GAP = "shortcut", "training_mark_agreement_percent", "shortcut_gap_pp"
_NETWORK = [*statistics.POINT, "criterion"]
# Columns of a network and the (evaluation, quantity) that each is of.
_SHOWN = {
    "accuracy_mark_absent_percent": (EVALUATION, "accuracy_mark_absent_percent"),
    "accuracy_mark_random_percent": (EVALUATION, "accuracy_mark_random_percent"),
    "following_misleading_mark_percent": (EVALUATION, "following_misleading_mark_percent"),
    "gap_before_fine_tuning_pp": (EVALUATION, "shortcut_gap_before_fine_tuning_pp"),
    "gap_pp": (EVALUATION, GAP),
}
_DENSE_LINE: dict[str, Any] = {"color": "0.2", "linewidth": 1.1, "linestyle": (0, (1, 1))}
_WORDS = {"better": "larger", "worse": "smaller"}


# --- from tidy rows to numbers ---------------------------------------------------------------------------------------


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each criterion and operating point of each dataset that is no control of another.

    Returns:
        ``agreement_percent`` in training (``nan`` without a mark); ``n`` replicates; ``<column>_mean`` and ``_sd`` of what ``_SHOWN``
        names, over replicates after the mean over draws; for ``against`` = ``dense`` and ``random``: ``gap_against_<against>_pp``, the
        mean paired difference, ``..._low`` and ``..._high`` of its 95 % t interval, ``..._p_holm`` and ``..._verdict`` (``larger``,
        ``smaller``, ``undecided``); ``control``, the control's dataset, and of it ``control_n``, ``control_gap_pp_mean`` and ``_sd``,
        ``control_gap_against_dense_pp``, ``..._low`` and ``..._high``.
    """
    everything = _summary(results)
    controls = {dataset: control_of(dataset, results) for dataset in everything["dataset"].unique()}
    everything["control"] = [controls[dataset] or "" for dataset in everything["dataset"]]
    lent = [
        "n",
        "gap_pp_mean",
        "gap_pp_sd",
        "gap_against_dense_pp",
        "gap_against_dense_low",
        "gap_against_dense_high",
    ]
    same = ["model", "schedule", "operating_point", "criterion"]
    control = everything.rename(columns={name: f"control_{name}" for name in lent})
    control = control[["dataset", *same, *(f"control_{name}" for name in lent)]].rename(columns={"dataset": "control"})
    table = everything[~everything["dataset"].isin(set(controls.values()))].merge(control, on=["control", *same], how="left")
    return sort_for_display(table)


def _summary(results: pd.DataFrame) -> pd.DataFrame:
    networks = statistics.by_network(results, EVALUATION, _SHOWN)
    values = [*_SHOWN, "flops_reduction_percent", "blocks_removed"]
    replicates = networks.groupby([*_NETWORK, "replicate"], as_index=False)[values].mean()
    groups = replicates.groupby(_NETWORK)
    table = groups[["blocks_removed", "flops_reduction_percent"]].mean()
    table["n"] = groups["gap_pp"].count()
    for column in _SHOWN:
        table[f"{column}_mean"], table[f"{column}_sd"] = groups[column].mean(), groups[column].std(ddof=1)
    agreement = select(results, EVALUATION, AGREEMENT).groupby("dataset")["value"].first()
    table = table.reset_index()
    table.insert(5, "agreement_percent", table["dataset"].map(agreement).astype(float))
    for against in (DENSE, "random"):
        found = statistics.compare(results, against, EVALUATION, GAP)
        stem = f"gap_against_{against}"
        found = found.rename(
            columns={
                "mean_difference": f"{stem}_pp",
                "ci_low": f"{stem}_low",
                "ci_high": f"{stem}_high",
                "p_holm": f"{stem}_p_holm",
                "verdict": f"{stem}_verdict",
            }
        )
        # A larger gap is neither better nor worse accuracy, so the verdicts get words of their own.
        found[f"{stem}_verdict"] = found[f"{stem}_verdict"].replace(_WORDS)
        table = table.merge(found[[*_NETWORK, *(name for name in found if str(name).startswith(stem))]], on=_NETWORK, how="left")
    return table


# --- the table -------------------------------------------------------------------------------------------------------


def _of(quantity: str, **others: Any) -> Origin:
    return Origin("results", EVALUATION, quantity, **others)


def _difference(row: Any, stem: str) -> str:
    """A mean difference, its interval and the verdict."""
    if math.isnan(row[f"{stem}_pp"]):
        return NOTHING
    verdict = row[f"{stem}_verdict"] if f"{stem}_verdict" in row.index else ""
    return difference(row[f"{stem}_pp"], row[f"{stem}_low"], row[f"{stem}_high"], verdict)


def _shown(header: str, name: str, *quantities: str, sign: bool = False) -> Column:
    origins = tuple(_of(quantity) for quantity in quantities)
    return Column(header, lambda row: mean_sd(row[f"{name}_mean"], row[f"{name}_sd"], sign=sign), origins=origins)


def _table(tables: Tables) -> Table:
    data = summarise(tables.results)
    dense = _of(GAP, criterion=DENSE, schedule=DENSE)
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column(
            "FLOPs reduction (%)",
            lambda row: number(row.flops_reduction_percent, 2),
            origins=(Origin("results", *statistics.FLOPS),),
        ),
        Column("n", lambda row: str(row.n), origins=(_of(GAP),)),
        _shown("Accuracy without mark (%)", "accuracy_mark_absent_percent", "accuracy_mark_absent_percent"),
        _shown("Follows a misleading mark (%)", "following_misleading_mark_percent", "following_misleading_mark_percent"),
        _shown("Gap before fine-tuning (pp)", "gap_before_fine_tuning_pp", "shortcut_gap_before_fine_tuning_pp", sign=True),
        _shown("Gap (pp)", "gap_pp", GAP, sign=True),
        Column("Gap against dense (pp)", lambda row: _difference(row, "gap_against_dense"), origins=(_of(GAP), dense)),
        Column(
            "Gap against random (pp)",
            lambda row: _difference(row, "gap_against_random"),
            origins=(_of(GAP), _of(GAP, criterion="random")),
        ),
        Column(
            "Control: gap (pp)",
            lambda row: mean_sd(row.control_gap_pp_mean, row.control_gap_pp_sd),
            origins=(_of(GAP, dataset="{control}"),),
        ),
        Column(
            "Control: against dense (pp)",
            lambda row: _difference(row, "control_gap_against_dense"),
            origins=(_of(GAP, dataset="{control}"), _of(GAP, criterion=DENSE, schedule=DENSE, dataset="{control}")),
        ),
    ]
    caption = (
        "Networks trained on images with a mark that tells the class, and on the same test images with the mark made right or "
        "random. Gap: accuracy where the mark agrees with the class minus accuracy where it is random, in percentage points (pp); 0 "
        f"for a network that does not use the mark. Mean {PLUS_MINUS} standard deviation over n replicates; against dense and against "
        "random: mean paired difference in the same replicate with its 95 % t interval (not adjusted) and the verdict of the paired t "
        "test after Holm's adjustment over the criteria of one point. Control: the same of networks trained without the "
        "mark, whose gap is what the mark does by its looks alone."
    )
    random = _of(GAP, criterion="random")
    family = _of(GAP, criterion="*")
    unshown = {
        "blocks_removed": (_of(GAP),),
        "agreement_percent": (_of(AGREEMENT, criterion="*", schedule="*", operating_point="*"),),
        "control_n": (_of(GAP, dataset="{control}"),),
        "gap_against_dense_p_holm": (family, dense),
        "gap_against_random_p_holm": (family, random),
        **{f"{column}_*": (Origin("results", *quantity),) for column, quantity in _SHOWN.items() if column != "gap_pp"},
    }
    return Table("shortcut", caption + conditional(tables), data, columns, origins=unshown)


# --- the figure ------------------------------------------------------------------------------------------------------


def _figure(tables: Tables, title: str) -> Figure:
    """The gap against FLOPs reduction by criterion: a column of panels with the mark, one for its control, a row for each schedule."""
    networks = statistics.by_network(tables.results, EVALUATION, _SHOWN).dropna(subset=["gap_pp", "flops_reduction_percent"])
    pruned, dense = networks[networks["schedule"] != DENSE], networks[networks["schedule"] == DENSE]
    schedules = ordered_schedules(pruned["schedule"])
    if not schedules:
        return note(title, "No pruned network has both a shortcut gap and a FLOPs reduction.")
    marked = planted(tables.results)
    datasets = sorted(set(pruned["dataset"]), key=lambda dataset: (dataset not in marked, dataset))
    criteria = ordered_criteria(pruned["criterion"])
    looks = looks_of(criteria)
    legend = legend_of(criteria, looks, spread=networks["replicate"].nunique() > 1)
    legend.insert(0, Line2D([], [], label="dense: mean", **_DENSE_LINE))
    lines = sum(1 + handle.get_label().count("\n") for handle in legend)
    size = (3.1 * len(datasets) + 2.3, max(2.9 * len(schedules) + 0.6, 0.17 * lines + 0.5))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(schedules), len(datasets), sharey=True, squeeze=False)
    for row, schedule in zip(panels, schedules, strict=True):
        for panel, dataset in zip(row, datasets, strict=True):
            here = pruned[(pruned["schedule"] == schedule) & (pruned["dataset"] == dataset)]
            panel.set_title(f"{schedule}, {_trained(dataset, marked, tables.results)}", fontsize=8)
            panel.set_xlabel("FLOPs reduction (%)")
            if here.empty:
                nothing_in(panel, "no networks")
                continue
            # The panel of the accuracy figure, with the gap in place of the change of accuracy: a criterion looks the same in both.
            criteria_panel(panel, here.assign(change_pp=here["gap_pp"]), looks)
            level = dense.loc[dense["dataset"] == dataset, "gap_pp"].mean()
            if not math.isnan(level):
                panel.axhline(level, **_DENSE_LINE, zorder=1)
        row[0].set_ylabel("Shortcut gap (pp):\nmark agrees minus mark random")
    head(figure, title)
    figure.legend(handles=legend, loc="outside right upper", frameon=False, handlelength=3.4)
    return figure


def _trained(dataset: str, marked: Collection[str], results: pd.DataFrame) -> str:
    if dataset not in marked:
        return "control: trained without the mark"
    rows = select(results, EVALUATION, AGREEMENT)
    agreement = float(rows.loc[rows["dataset"] == dataset, "value"].iloc[0])
    return f"mark right in {agreement:g} % of training"


TABLES: dict[str, Callable[[Tables], Table]] = {"shortcut": _table}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"shortcut": _figure}
