"""The table ``evaluations``: every reproducible quantity of evaluations that no other table shows, such as those of your own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from prunebench.reporting import statistics, without_table
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.comparison import conditional
from prunebench.reporting.display import sort_for_display
from prunebench.reporting.formats import NOTHING, PLUS_MINUS, Column, Origin, Table, number, p_text, significant

_KEYS = ["dataset", "model", "evaluation", "quantity"]
_COMPARED = ["mean_difference", "ci_low", "ci_high", "p_value", "p_holm", "verdict"]


def summarise_evaluations(tidy: Tables) -> pd.DataFrame:
    """Every quantity by itself: mean and deviation over replicates, beside its paired differences to dense and to random.

    Returns:
        One row for each dataset, model, evaluation, quantity, schedule, operating point and criterion, with ``mean``, ``sd``, ``n`` and
        ``dense_...``, ``random_...``: the columns of ``statistics.compare`` that say how it differs; empty where there is nothing to
        compare. Verdicts are ``higher`` or ``lower``: whether more is better, only the author of an evaluation knows.
    """
    # Other tables show the rest.
    shown = tidy.results[tidy.results["evaluation"].isin(without_table(tidy.results["evaluation"]))]
    parts = []
    network = [*statistics.POINT, "criterion"]
    for keys, rows in shown.groupby(["evaluation", "quantity"], sort=True):
        evaluation, quantity = map(str, keys)
        groups = statistics.replicate_means(rows, evaluation, quantity).groupby(network)
        part = groups["value"].agg(mean="mean", sd="std", n="count").reset_index()
        part["blocks_removed"] = groups["blocks_removed"].mean().to_numpy()
        part.insert(2, "evaluation", evaluation)
        part.insert(3, "quantity", quantity)
        for against in (DENSE, "random"):
            found = statistics.compare(rows, against, evaluation, quantity, better=None)
            found = found[[*network, *_COMPARED]].rename(columns={name: f"{against}_{name}" for name in _COMPARED})
            part = part.merge(found, on=network, how="left")
            part[f"{against}_verdict"] = part[f"{against}_verdict"].astype(object).where(part[f"{against}_verdict"].notna(), "")
        parts.append(sort_for_display(part))
    columns = [*_KEYS, "schedule", "operating_point", "criterion", "blocks_removed", "mean", "sd", "n"]
    columns += [f"{against}_{name}" for against in (DENSE, "random") for name in _COMPARED]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _mean_sd(row: Any) -> str:
    """Two digits of the deviation say how many of the mean mean anything; without one, the mean has four."""
    if math.isnan(row["mean"]) or math.isnan(row["sd"]) or row["sd"] == 0:
        return significant(row["mean"], 4)
    digits = max(0, 1 - math.floor(math.log10(row["sd"])))
    if digits > 6 or abs(row["mean"]) >= 1e6:
        return f"{significant(row['mean'], 4)} {PLUS_MINUS} {significant(row['sd'], 2)}"
    return f"{number(row['mean'], digits)} {PLUS_MINUS} {number(row['sd'], digits)}"


def _difference(against: str, row: Any) -> str:
    value, low, high = (row[f"{against}_{name}"] for name in ("mean_difference", "ci_low", "ci_high"))
    if math.isnan(value):
        return NOTHING
    text = _signed(value)
    return text if math.isnan(low) else f"{text} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    text = significant(value)
    return f"+{text}" if value > 0 else text


def _evaluations(tidy: Tables) -> Table:
    own = Origin(evaluation="{evaluation}", quantity="{quantity}")
    dense = Origin(evaluation="{evaluation}", quantity="{quantity}", schedule=DENSE)
    random = Origin(evaluation="{evaluation}", quantity="{quantity}", criterion="random")
    everything = Origin(evaluation="{evaluation}", quantity="{quantity}", criterion="*")
    columns = [
        Column("Schedule", lambda row: row.schedule, right=False),
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Value", _mean_sd, origins=(own,)),
        Column("n", lambda row: str(row.n), origins=(own,)),
        Column("Difference to dense", lambda row: _difference(DENSE, row), origins=(own, dense)),
        Column("p (Holm), dense", lambda row: p_text(row.dense_p_holm), origins=(everything, dense)),
        Column("Difference to random", lambda row: _difference("random", row), origins=(own, random)),
        Column("p (Holm), random", lambda row: p_text(row.random_p_holm), origins=(everything,)),
    ]
    caption = (
        f"What further evaluations found, in the unit that a quantity's name ends with. Value: mean {PLUS_MINUS} standard deviation over "
        "n replicates, after the mean over a criterion's draws. Differences: paired by replicate, with 95 % paired t intervals (not "
        "adjusted). p: paired t test after Holm's adjustment over the criteria of one operating point; not adjusted for "
        f"the number of quantities. Whether more of a quantity is better, its author says.{conditional(tidy)}"
    )
    return Table("evaluations", caption, summarise_evaluations(tidy), columns, group=_KEYS)


TABLES: dict[str, Callable[[Tables], Table]] = {"evaluations": _evaluations}
