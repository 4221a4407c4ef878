"""The paper's tables, from the tidy tables alone: each as CSV (numbers in full), Markdown and LaTeX (rounded)."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from prunebench import artifacts, reporting
from prunebench.criteria.consensus import METRICS
from prunebench.reporting import maker, origins, quality, shown, statistics
from prunebench.reporting.collect import DENSE, TRAINING, Tables, read_tables
from prunebench.reporting.display import (
    BASELINES,
    criterion_order,
    select,
    sort_for_display,
)
from prunebench.reporting.formats import (
    FORMATS,
    NOTHING,
    PLUS_MINUS,
    Column,
    Origin,
    Table,
    compact,
    equals,
    interval,
    mean_sd,
    number,
    p_text,
    to_latex,
    to_markdown,
    write_csv,
)

_NETWORK = [*statistics.POINT, "criterion"]


def write_tables(tables: Path, out: Path | None = None) -> list[Path]:
    """Write ``<name>.csv``, ``<name>.md`` and ``<name>.tex`` for every table of ``reporting.TABLES`` that the suite has something for.

    Args:
        tables: the folder of the tidy tables.
        out: where to write; the same folder by default.

    Returns:
        The files written.

    Raises:
        PrunebenchError: a tidy table is missing or corrupt.
    """
    tidy = read_tables(tables)
    made = {name: maker("TABLES", name, place)(tidy) for name, place in shown(reporting.TABLES, tidy.subjects()).items()}
    written = []
    for table in made.values():
        stem = (out or tables) / table.name
        write_csv(stem.with_suffix(".csv"), table.data)
        artifacts.write_text(stem.with_suffix(".md"), to_markdown(table))
        artifacts.write_text(stem.with_suffix(".tex"), to_latex(table))
        written += [stem.with_suffix(f".{suffix}") for suffix in FORMATS]
    landing = (out or tables) / "headline.html"
    artifacts.write_text(landing, headline_html(made["headline"].data))
    if "autoattack" in tidy.subjects():
        from prunebench.reporting.robustness import write_robustbench

        written.append(write_robustbench(tidy.results, out or tables))
    return [*written, landing]


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


def _accuracy(results: pd.DataFrame) -> Table:
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Blocks removed", lambda row: number(row.blocks_removed, 0), origins=origins.BLOCKS),
        Column("FLOPs reduction (%)", lambda row: number(row.flops_reduction_percent, 2), origins=origins.FLOPS),
        Column(
            "Accuracy (%)",
            lambda row: mean_sd(row.accuracy_percent_mean, row.accuracy_percent_sd, sign=False),
            origins=origins.ACCURACY,
        ),
        Column(
            "\u0394 before fine-tuning (pp)",
            lambda row: mean_sd(row.change_before_fine_tuning_pp_mean, row.change_before_fine_tuning_pp_sd),
            origins=origins.CHANGE_BEFORE,
        ),
        Column("\u0394 after (pp)", lambda row: mean_sd(row.change_pp_mean, row.change_pp_sd), origins=origins.CHANGE),
        Column("n", lambda row: str(row.n), origins=origins.ACCURACY),
        Column("Epochs per block", lambda row: compact(row.epochs_per_block), origins=origins.EPOCHS_PER_BLOCK),
        Column("Epochs", lambda row: compact(row.epochs), origins=origins.EPOCHS),
    ]
    caption = (
        "Accuracy on the test images. \u0394: change against the dense network of the same replicate, in percentage "
        f"points (pp), before and after fine-tuning. Mean {PLUS_MINUS} standard deviation over n replicates; criteria that "
        "draw at random enter with the mean over their draws in a replicate."
    )
    return Table("accuracy", caption, summarise_accuracy(results), columns)


def _versus(comparison: pd.DataFrame, against: str) -> Table:
    made_from = origins.versus(against)
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Blocks removed", lambda row: number(row.blocks_removed, 0), origins=origins.BLOCKS),
        Column("n", lambda row: str(row.n), origins=made_from),
        Column(f"Difference to {against} (pp)", lambda row: number(row.mean_difference, 2, sign=True), origins=made_from),
        Column("95 % interval (pp)", lambda row: interval(row.ci_low, row.ci_high), origins=made_from),
        Column("p", lambda row: p_text(row.p_value), origins=made_from),
        Column("p (Holm)", lambda row: p_text(row.p_holm), origins=origins.family(against)),
        Column("Verdict", lambda row: row.verdict, right=False, origins=origins.family(against)),
    ]
    other = "the dense network" if against == DENSE else f"{against} removal"
    caption = (
        f"Test accuracy against {other} in the same replicate, in percentage points (pp): mean difference over n "
        "replicates, its two-sided 95 % paired t interval (not adjusted), p value of the paired t test, and the p value after "
        "Holm's adjustment over the criteria of one operating point, by which the verdict goes (below 0.05)."
    )
    return Table(f"versus_{against}", caption, comparison, columns)


def _headline(results: pd.DataFrame, versus_random: pd.DataFrame) -> Table:
    summary = summarise_accuracy(results)
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
        "comparison with random removal, adjusted over all criteria of the operating point (Holm)."
    )
    return Table("headline", caption, data, columns, group=("dataset", "model"), rule_after="schedule")


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
    return Table("quality", caption, data, columns, group=("dataset", "model"), rule_after="fine_tuning_epochs")


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
    "headline": lambda tidy: _headline(tidy.results, statistics.compare(tidy.results, "random")),
    "accuracy": lambda tidy: _accuracy(tidy.results),
    "versus_random": lambda tidy: _versus(statistics.compare(tidy.results, "random"), "random"),
    "versus_dense": lambda tidy: _versus(statistics.compare(tidy.results, DENSE), DENSE),
    "quality": _quality,
    "consensus_parts": _consensus_parts,
}
