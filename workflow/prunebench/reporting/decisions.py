"""How good criteria decide: the tables ``quality`` (against the oracle) and ``consensus_parts``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from prunebench.criteria.consensus import METRICS
from prunebench.reporting import origins, quality
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.formats import Column, Origin, Table, compact, number


def _quality(tidy: Tables) -> Table:
    first = f"relative_regret_first{quality.FIRST}"
    held = (*origins.ORACLE, *origins.SCORES)
    columns = [
        Column("Fine-tuning (epochs)", lambda row: str(row.fine_tuning_epochs)),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Kendall's \u03c4", lambda row: _bounded(row, "tau"), origins=held),
        Column("Regret (nats)", lambda row: _bounded(row, "regret_nats", digits=3), origins=held),
        Column("Relative regret", lambda row: _bounded(row, "relative_regret"), origins=held),
        Column(f"Relative regret, first {quality.FIRST}", lambda row: _bounded(row, first), origins=held),
        Column("Forward passes", lambda row: compact(row.forward_passes), origins=origins.scoring("forward_passes")),
        Column("Backward passes", lambda row: compact(row.backward_passes), origins=origins.scoring("backward_passes")),
        Column("n", lambda row: str(row.n), origins=held),
    ]
    data = quality.quality(tidy)
    bounds = f"95 % percentile bootstrap intervals over {' or '.join(data['resampled'].unique())}"
    given = " of this one dense network: they say nothing of training it again" if (data["n"] == 1).any() else ""
    caption = (
        "Each criterion against the oracle: the validation loss (cross-entropy) after removing each candidate block of the dense "
        "network by itself, without fine-tuning (0 epochs) and after a short one. \u03c4: rank correlation (tau-b) of the "
        "scores with the losses; 1 is the oracle's order. Regret: loss without the block that the criterion removes first, "
        "minus the lowest loss; relative: 0 is the oracle's choice, 1 what a random choice has on average. First "
        f"{quality.FIRST}: mean over the first {quality.FIRST} choices, each removed by itself. Means over n replicates, with "
        f"{bounds}{given}. Random removal: expected values. The oracle looks at one block at a time and at a short "
        "fine-tuning: its best k blocks need not be the best set of k."
    )
    unshown = {name: origins.ORACLE for name in ("blocks", "images", "resampled")}
    return Table("quality", caption, data, columns, group=("dataset", "model"), rule_after="fine_tuning_epochs", origins=unshown)


def _bounded(row: Any, name: str, digits: int = 2, sign: bool = False) -> str:
    """A value and its interval, if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(low):
        return number(row[name], digits, sign)
    return f"{number(row[name], digits, sign)} [{number(low, digits, sign)}, {number(high, digits, sign)}]"


def _count_in(name: str, row: Any) -> str:
    return compact(row[name])


def _change_in(name: str, row: Any) -> str:
    return _bounded(row, name, sign=True)


def _consensus_parts(tidy: Tables) -> Table:
    data = quality.consensus_parts(tidy)
    # The consensus is made anew of the metrics' scores, with and without one of them.
    votes = (Origin("scores", schedule=DENSE, criterion=tuple(METRICS)),)
    columns = [
        Column("Consensus", lambda row: row.consensus, right=False),
        Column("Metric left out", lambda row: row.metric, right=False),
        Column("\u03c4 of the metric with the consensus", lambda row: number(row.tau_with_consensus, 2), origins=votes),
        Column("\u03c4 of the rest with the consensus", lambda row: number(row.tau_without, 2), origins=votes),
    ]
    for name in data.columns:
        if match := re.fullmatch(r"changed_of_first_(\d+)", name):
            columns.append(Column(f"Changed of first {match[1]}", partial(_count_in, name), origins=votes))
        elif match := re.fullmatch(r"(tau|relative_regret)_change_(\d+)", name):
            what = "\u03c4" if match[1] == "tau" else "relative regret"
            header = f"\u0394 {what}, {match[2]} epoch{'s' * (match[2] != '1')}"
            columns.append(Column(header, partial(_change_in, name), origins=(*votes, *origins.ORACLE)))
    columns.append(Column("n", lambda row: str(row.n), origins=votes))
    caption = (
        "What each metric contributes to the consensus of eight: the consensus without it against the full one, by the dense "
        "network's scores; means over n replicates. \u03c4: Kendall's tau-b over the candidate blocks; the rest: the other seven. "
        "Changed of first k: how many of the first k blocks go out of them, for the numbers of blocks that the operating points "
        "remove, constraints aside."
    )
    if any("_change_" in name for name in data.columns):
        caption += (
            " \u0394: without the metric minus with it, against the oracle (see table quality) without fine-tuning (0 epochs) "
            "and after a short one, with 95 % percentile bootstrap intervals. A lower \u03c4 or a higher relative regret says that "
            "the metric helps."
        )
    return Table("consensus_parts", caption, data, columns, group=("dataset", "model"), rule_after="consensus")


TABLES: dict[str, Callable[[Tables], Table]] = {
    "quality": _quality,
    "consensus_parts": _consensus_parts,
}
