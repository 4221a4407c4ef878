"""Accuracy and its comparisons: the tables ``headline``, ``accuracy``, ``versus_random`` and ``versus_dense``."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from tabulate import tabulate

from prunebench.reporting import origins, statistics
from prunebench.reporting.collect import DENSE, TRAINING, Tables
from prunebench.reporting.display import BASELINES, criterion_order, select, sort_for_display
from prunebench.reporting.formats import (
    NOTHING,
    PLUS_MINUS,
    Column,
    Table,
    compact,
    equals,
    interval,
    mean_sd,
    number,
    p_text,
)

_NETWORK = [*statistics.POINT, "criterion"]


def conditional(tidy: Tables) -> str:
    """What to add to a caption where replicates start from the same dense network; empty where they do not."""
    shared = [f"{dataset}, {model}" for dataset, model in tidy.designs() if tidy.conditional(dataset, model)]
    if not shared:
        return ""
    return (
        f" Replicates of {'; '.join(shared)} share a dense network: their deviations, intervals and p values are conditional on it, "
        "and say nothing of training it again."
    )


def accuracy_by_replicate(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each network: its accuracy, and its change against the dense network of the same replicate.

    Returns:
        Columns of the network, ``blocks_removed``, ``accuracy_percent``, ``change_pp``,
        ``change_before_fine_tuning_pp``, ``flops_reduction_percent``, ``epochs``, ``epochs_per_block``; ``nan`` where a
        quantity was not evaluated.
    """
    keys = [*_NETWORK, "replicate", "draw"]
    frame = results[[*keys, "blocks_removed"]].drop_duplicates().set_index(keys)
    quantities = {
        "accuracy_percent": ("accuracy", "accuracy_percent"),
        "before": ("accuracy", "accuracy_before_fine_tuning_percent"),
        "flops_reduction_percent": ("complexity", "flops_reduction_percent"),
        "epochs": (TRAINING, "epochs"),
        "epochs_per_block": (TRAINING, "epochs_per_block"),
    }
    for column, (evaluation, quantity) in quantities.items():
        frame[column] = select(results, evaluation, quantity).set_index(keys)["value"]
    frame = frame.reset_index()
    of_dense = frame[frame["schedule"] == DENSE].set_index(["dataset", "model", "replicate"])["accuracy_percent"]
    dense = frame[["dataset", "model", "replicate"]].join(of_dense, on=["dataset", "model", "replicate"])
    pruned = frame["schedule"] != DENSE
    frame["epochs_per_block"] = frame["epochs_per_block"].where(pruned)
    frame["change_pp"] = (frame["accuracy_percent"] - dense["accuracy_percent"]).where(pruned)
    frame["change_before_fine_tuning_pp"] = (frame["before"] - dense["accuracy_percent"]).where(pruned)
    return frame.drop(columns="before")


def summarise_accuracy(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over replicates, after the mean over a criterion's draws in a replicate."""
    networks = accuracy_by_replicate(results)
    spread = ["accuracy_percent", "change_before_fine_tuning_pp", "change_pp"]
    plain = ["blocks_removed", "flops_reduction_percent", "epochs_per_block", "epochs"]
    replicates = networks.groupby([*_NETWORK, "replicate"], as_index=False)[[*plain, *spread]].mean()
    groups = replicates.groupby(_NETWORK)
    summary = groups[plain].mean()
    summary["n"] = groups["accuracy_percent"].count()
    for quantity in spread:
        summary[f"{quantity}_mean"] = groups[quantity].mean()
        summary[f"{quantity}_sd"] = groups[quantity].std(ddof=1)
    return sort_for_display(summary.reset_index())


def _accuracy(tidy: Tables) -> Table:
    data = summarise_accuracy(tidy.results)
    best = statistics.among_best(tidy.results)
    data["among_best"] = [int(key in best) for key in data[_NETWORK].itertuples(index=False, name=None)]
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Blocks removed", lambda row: number(row.blocks_removed, 0), origins=origins.BLOCKS),
        Column("FLOPs reduction (%)", lambda row: number(row.flops_reduction_percent, 2), origins=origins.FLOPS),
        Column(
            "Accuracy (%)",
            lambda row: mean_sd(row.accuracy_percent_mean, row.accuracy_percent_sd, sign=False),
            origins=origins.ACCURACY,
            bold=lambda row: bool(row.among_best),
        ),
        Column(
            "\u0394 before fine-tuning (pp)",
            lambda row: mean_sd(row.change_before_fine_tuning_pp_mean, row.change_before_fine_tuning_pp_sd),
            origins=origins.CHANGE_BEFORE,
        ),
        Column("\u0394 after (pp)", lambda row: mean_sd(row.change_pp_mean, row.change_pp_sd), origins=origins.CHANGE),
        Column("n", lambda row: str(row.n), origins=origins.ACCURACY),
        Column(
            "Epochs per block",
            lambda row: compact(row.epochs_per_block),
            origins=origins.EPOCHS_PER_BLOCK,
        ),
        Column("Epochs", lambda row: compact(row.epochs), origins=origins.EPOCHS),
    ]
    bold = "In bold: the highest mean of its point and all that cannot be told from it (paired t tests of all pairs, Holm)."
    nothing = "Nothing is in bold: at no point can any criterion be told from the best one (paired t tests of all pairs, Holm)."
    caption = (
        "Accuracy on the test images. \u0394: change against the dense network of the same replicate, in percentage "
        f"points (pp), before and after fine-tuning. Mean {PLUS_MINUS} standard deviation over n replicates; criteria that "
        f"draw at random enter with the mean over their draws in a replicate. {bold if best else nothing}{conditional(tidy)}"
    )
    return Table("accuracy", caption, data, columns, origins={"among_best": origins.change_of("*")})


def _versus(tidy: Tables, against: str) -> Table:
    data = statistics.compare(tidy.results, against)
    other = "the dense network" if against == DENSE else f"{against} removal"
    both, family = origins.versus(against), origins.family(against)
    many = bool((data["n"] >= statistics.ENOUGH).any())
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Blocks removed", lambda row: number(row.blocks_removed, 0), origins=origins.BLOCKS),
        Column("n", lambda row: str(row.n), origins=both),
        Column(f"Difference to {against} (pp)", lambda row: number(row.mean_difference, 2, sign=True), origins=both),
        Column("95 % interval (pp)", lambda row: interval(row.ci_low, row.ci_high), origins=both),
        *(
            [Column("Bootstrap interval (pp)", lambda row: interval(row.bootstrap_low, row.bootstrap_high), origins=both)]
            if many
            else []
        ),
        Column("Hedges' g", lambda row: number(row.hedges_g, 2, sign=True), origins=both),
        Column("Detectable (pp)", lambda row: number(row.detectable_difference, 2), origins=family),
        Column("p", lambda row: p_text(row.p_value), origins=both),
        Column("p (Holm)", lambda row: p_text(row.p_holm), origins=family),
        Column(
            "p (Holm, all points)", lambda row: p_text(row.p_holm_all_points), origins=origins.family(against, all_points=True)
        ),
        *([Column("p (Wilcoxon, Holm)", lambda row: p_text(row.p_wilcoxon_holm), origins=family)] if many else []),
        Column("Verdict", lambda row: row.verdict, right=False, origins=family),
    ]
    caption = (
        f"Test accuracy against {other} in the same replicate, in percentage points (pp): mean difference over n "
        "replicates, its two-sided 95 % paired t interval (not adjusted), the difference in standard deviations of the differences "
        "(Hedges' g), p value of the paired t test, and the p value after Holm's adjustment over the criteria of one operating "
        "point, by which the verdict goes (below 0.05), and over all points of the schedule. Detectable: the smallest true "
        "difference that the verdict would find four times in five, given the spread observed; smaller ones are likely to stay "
        "undecided."
    )
    if many:
        caption += (
            " Bootstrap: studentised, 9999 resamples of the replicates. Wilcoxon: signed-rank test of the same differences."
        )
    unshown = {"hedges_g_*": both, "share_better": both, "bootstrap_*": both, "p_wilcoxon": both, "p_wilcoxon_holm": family}
    return Table(f"versus_{against}", caption + conditional(tidy), data, columns, origins=unshown)


def _headline(tidy: Tables) -> Table:
    versus_random = statistics.compare(tidy.results, "random")
    summary = summarise_accuracy(tidy.results)
    rows = []
    for point, group in summary[summary["schedule"] != DENSE].groupby(statistics.POINT, sort=False):
        changes = dict(zip(group["criterion"], group["change_pp_mean"], strict=True))
        informed = {c: v for c, v in changes.items() if c not in BASELINES and not math.isnan(v)}
        # Of equal ones the first in the order of display, which does not depend on the order of rows.
        best = min(informed, key=lambda c: (-informed[c], criterion_order(c))) if informed else None
        key = dict(zip(statistics.POINT, point, strict=True))
        same = (versus_random[list(key)] == pd.Series(key)).all(axis=1) & (versus_random["criterion"] == best)
        rows.append(
            {
                **key,
                "blocks_removed": group["blocks_removed"].mean(),
                "flops_reduction_percent": group["flops_reduction_percent"].mean(),
                "n": int(group["n"].max()),
                "best_criterion": best or NOTHING,
                "best_change_pp": informed.get(best, math.nan) if best else math.nan,
                **{f"{name}_change_pp": changes.get(name, math.nan) for name in BASELINES},
                **_against_random(best, versus_random[same]),
            }
        )
    names = [f"{name}_change_pp" for name in BASELINES]
    data = pd.DataFrame(
        rows,
        columns=[
            *statistics.POINT,
            "blocks_removed",
            "flops_reduction_percent",
            "n",
            "best_criterion",
            "best_change_pp",
            *names,
            "verdict",
            "sentence",
        ],
    )
    columns = [
        Column("Schedule", lambda row: row.schedule, right=False),
        Column("Point", lambda row: row.operating_point, right=False),
        Column("FLOPs reduction (%)", lambda row: number(row.flops_reduction_percent, 2), origins=origins.FLOPS),
        Column("Best criterion", lambda row: row.best_criterion, right=False, origins=origins.change_of("*")),
        Column(
            "\u0394 best (pp)",
            lambda row: number(row.best_change_pp, 2, sign=True),
            origins=origins.change_of("{best_criterion}"),
        ),
        *(Column(f"\u0394 {name} (pp)", partial(_change_of, name), origins=origins.change_of(name)) for name in BASELINES),
        Column("Against random", lambda row: row.sentence, right=False, origins=origins.family("random")),
    ]
    caption = (
        "The criterion with the highest mean test accuracy at each operating point beside the baselines. \u0394: "
        "change against the dense network in percentage points (pp), mean over replicates. The last column is the paired "
        "comparison with random removal, adjusted over all criteria of the operating point (Holm)." + conditional(tidy)
    )
    unshown = {"blocks_removed": origins.BLOCKS, "n": origins.change_of("*"), "verdict": origins.family("random")}
    return Table("headline", caption, data, columns, group=("dataset", "model"), rule_after="schedule", origins=unshown)


def headline_html(data: pd.DataFrame) -> str:
    """The headline as a small HTML table for the first page of the report: what a reader should see without scrolling."""
    if len(data) > 8:
        # A page shows about so many rows: then the furthest operating points.
        data = data.groupby(["dataset", "model", "schedule"], sort=False).tail(1)
    rows = []
    for _, row in data.iterrows():
        best = f"{row.best_criterion} ({number(row.best_change_pp, 2, sign=True)})"
        cells = [
            *([f"{row.dataset}, {row.model}"] if len(data[["dataset", "model"]].drop_duplicates()) > 1 else []),
            row.schedule,
            number(row.flops_reduction_percent, 1),
            best,
            number(row.random_change_pp, 2, sign=True),
            row.sentence.split(", adjusted")[0],
        ]
        rows.append([html.escape(str(cell)) for cell in cells])
    headers = ["Schedule", "FLOPs \u2212%", "Best (\u0394 pp)", "Random (\u0394 pp)", "Best against random, 95 % interval"]
    if rows and len(rows[0]) > len(headers):
        headers = ["Experiment", *headers]
    return '<div style="font-size: 0.85em">\n' + str(tabulate(rows, headers, tablefmt="unsafehtml")) + "\n</div>\n"


def _change_of(criterion: str, row: Any) -> str:
    return number(row[f"{criterion}_change_pp"], 2, sign=True)


def _against_random(best: str | None, comparison: pd.DataFrame) -> dict[str, str]:
    """The verdict of one comparison, as a word and as a sentence."""
    if best is None:
        return {"verdict": "undecided", "sentence": "undecided: no criterion but the baselines was run"}
    if comparison.empty:
        return {"verdict": "undecided", "sentence": "nothing to compare: random was not run here"}
    row = comparison.iloc[0]
    difference = f"{number(row['mean_difference'], 2, sign=True)} pp"
    if row["n"] < 2:
        why = f"{difference}, one replicate"
    elif math.isnan(row["p_holm"]):
        why = f"{difference} in each of {row['n']} replicates, no spread to test"
    else:
        bounds = interval(row["ci_low"], row["ci_high"])
        why = f"{difference} {bounds}, adjusted p {equals(p_text(row['p_holm']))}, n = {row['n']}"
    return {"verdict": row["verdict"], "sentence": f"{row['verdict']}: {why}"}


TABLES: dict[str, Callable[[Tables], Table]] = {
    "headline": _headline,
    "accuracy": _accuracy,
    "versus_random": lambda tidy: _versus(tidy, "random"),
    "versus_dense": lambda tidy: _versus(tidy, DENSE),
}
