"""The audit of delivered networks: its tidy tables, the paper's tables and the figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from prunebench.reporting.collect import NETWORK_COLUMNS, Tables
from prunebench.reporting.display import criterion_order, natural, ordered_criteria
from prunebench.reporting.drawing import bare, block_axis
from prunebench.reporting.formats import Column, Origin, Table, number

_KEPT, _HITS, _REMOVED = "Blues", "Greys", "#D55E00"
_EXPECTED = "(random: expected)"


# --- tables ----------------------------------------------------------------------------------------------------------


def summarise(blocks: pd.DataFrame) -> pd.DataFrame:
    """One row for each transition: which blocks went, and what makes it believable."""
    rows = []
    keys = [*NETWORK_COLUMNS[1:4], "method", "step", "from", "to"]
    for key, group in blocks.groupby(keys):
        named = dict(zip(keys, key, strict=True))
        ordered = group.iloc[sorted(range(len(group)), key=lambda i: natural(group["block"].iloc[i]))]
        removed, kept = ordered[ordered["status"] == "removed"], ordered[ordered["status"] == "kept"]
        rows.append(
            {
                **named,
                "stages_before": _stage_sizes(list(ordered["block"]), list(ordered["block"])),
                "stages_after": _stage_sizes(list(kept["block"]), list(ordered["block"])),
                "removed": len(removed),
                "blocks": " ".join(removed["block"]),
                "indices": " ".join(map(str, removed["index"])),
                "lowest_confidence": removed["confidence"].min(),
                "lowest_similarity_kept": kept["similarity"].min(),
                "highest_similarity_removed": removed["similarity"].max(),
                "uncertain": int((ordered["verdict"] == "uncertain").sum()),
            }
        )
    return pd.DataFrame(rows)


def agreement(choices: pd.DataFrame) -> pd.DataFrame:
    """One row for each series and criterion: blocks that went, and how many of them it would have removed; over all transitions."""
    keys = ["dataset", "model", "method", "criterion"]
    columns = [*keys, "transitions", "removed", "hits", "expected_hits", "hit_percent"]
    groups = choices.groupby(keys)
    table = groups[["removed", "hits", "expected_hits"]].sum()
    table["transitions"] = groups.size()
    table["hit_percent"] = 100 * table["hits"] / table["removed"]
    table = table.reset_index()[columns]
    order = sorted(
        range(len(table)),
        key=lambda i: (*(natural(table[key][i]) for key in keys[:3]), criterion_order(table["criterion"][i])),
    )
    return table.iloc[order].reset_index(drop=True)


def _audit(blocks: pd.DataFrame) -> Table:
    made_from = (Origin("audit_blocks"),)
    columns = [
        Column("From", lambda row: row["from"], right=False),
        Column("To", lambda row: row["to"], right=False),
        Column("Blocks in stages", lambda row: f"{row.stages_before} to {row.stages_after}", right=False, origins=made_from),
        Column("Removed", lambda row: _compact(row["blocks"].split()), right=False, origins=made_from),
        Column("Index in its stage", lambda row: row["indices"].replace(" ", ", "), right=False, origins=made_from),
        Column("Confidence, lowest", lambda row: number(row.lowest_confidence, 2), origins=made_from),
        Column("Similarity, lowest kept", lambda row: number(row.lowest_similarity_kept, 2), origins=made_from),
        Column("Similarity, highest removed", lambda row: number(row.highest_similarity_removed, 2), origins=made_from),
        Column("Uncertain", lambda row: str(row.uncertain), origins=made_from),
    ]
    if blocks["replicate"].nunique() > 1:
        columns.insert(0, Column("Replicate", lambda row: str(row.replicate)))
    caption = (
        "Which blocks went between two networks of a series, found by matching kernels by their cosine similarity within each "
        "stage, in order. Removed: named as in the dense network. Index: place in the stage of the network before, from 0. "
        "Confidence: what the summed similarity would lose if the block were kept in place of another one. Similarity: of kept "
        "blocks to what they became; of removed ones to the most similar block after. Uncertain: findings with a "
        "confidence that networks which have nothing to do with each other reach too."
    )
    return Table("audit", caption, summarise(blocks), columns, group=("dataset", "model", "method"), rule_after=None)


def _agreement(choices: pd.DataFrame) -> Table:
    made_from = (Origin("audit_choices"),)
    columns = [
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Blocks that went", lambda row: str(row.removed), origins=made_from),
        Column("Of these, chosen", lambda row: str(row.hits), origins=made_from),
        Column("Chosen (%)", lambda row: number(row.hit_percent, 1), origins=made_from),
        Column("Expected of random choice", lambda row: number(row.expected_hits, 2), origins=made_from),
    ]
    caption = (
        "How many of the blocks that went between the networks of a series each criterion would have removed: as many, from the "
        "network before, by that network's scores and under the constraints of the suite. Summed over all transitions."
    )
    return Table("audit_agreement", caption, agreement(choices), columns, group=("dataset", "model", "method"), rule_after=None)


def _stage(block: str) -> str:
    return block.rpartition(".")[0]


def _stage_sizes(blocks: Sequence[str], all_blocks: Sequence[str]) -> str:
    stages = [_stage(block) for block in blocks]
    return ", ".join(str(stages.count(stage)) for stage in dict.fromkeys(map(_stage, all_blocks)))


def _compact(blocks: Sequence[str]) -> str:
    """Stage by stage: ``stage1: 4, 5; stage3: 1``."""
    stages: dict[str, list[str]] = {}
    for block in blocks:
        stages.setdefault(_stage(block), []).append(block.rpartition(".")[2].removeprefix("block"))
    return "; ".join(f"{stage}: {', '.join(names)}" if stage else ", ".join(names) for stage, names in stages.items())


# --- the figure ------------------------------------------------------------------------------------------------------


def draw_audit(blocks: pd.DataFrame, choices: pd.DataFrame, title: str) -> Figure:
    """What became of each block of the dense network, transition by transition, and how many of those that went each criterion chose.

    Args:
        blocks: Rows of ``audit_blocks`` of one dataset and model.
        choices: Rows of ``audit_choices`` of the same; may be none.
        title: Dataset and model.
    """
    series = list(blocks.groupby(["method", "replicate"]))
    columns = sorted(map(str, blocks["block"].unique()), key=natural)
    criteria = ordered_criteria(choices["criterion"])
    rows = [group["step"].nunique() for _, group in series]
    # The names of criteria stand below the last panel, upright.
    names = 0.07 * max(map(len, [*criteria, _EXPECTED])) if criteria else 0.0
    widths = [0.3 * len(columns), *([0.3 * (len(criteria) + 1)] if criteria else [])]
    size = (sum(widths) + 3.2, 0.25 * sum(rows) + 1.1 * len(series) + max(0.0, names - 0.4) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(series), len(widths), squeeze=False, height_ratios=rows, width_ratios=widths)
    for (key, group), row in zip(series, panels, strict=True):
        method, replicate = key
        steps = group[["step", "from", "to"]].drop_duplicates().sort_values("step")
        _blocks_panel(row[0], group, list(steps["step"]), columns)
        row[0].set_yticks(range(len(steps)), [f"{a} \u2192 {b}" for a, b in zip(steps["from"], steps["to"], strict=True)])
        block_axis(row[0], columns, separator="0.4", width=0.8)
        which = f", replicate {replicate}" if blocks["replicate"].nunique() > 1 else ""
        row[0].set_title(f"{title}: {method}{which}", pad=8)
        if criteria:
            mine = choices[(choices["method"] == method) & (choices["replicate"] == replicate)]
            _hits_panel(row[1], mine, list(steps["step"]), criteria)
            bare(row[1])
    for panel in panels[:-1, 1:].flat:
        panel.set_xticks([])
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _KEPT), ax=list(panels.flat), pad=0.01, aspect=25)
    bar.set_label("Kept: cosine similarity\nto what it became")
    bar.outline.set_visible(False)
    handles = [
        Patch(facecolor=_REMOVED, label="removed here"),
        Patch(facecolor=_REMOVED, hatch="////", edgecolor="white", label="removed, uncertain (?)"),
        Patch(facecolor="white", edgecolor="0.7", label="gone before"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False)
    return figure


def _blocks_panel(axes: Axes, group: pd.DataFrame, steps: Sequence[int], columns: Sequence[str]) -> None:
    colours = mpl.colormaps[_KEPT]
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    for finding in group.to_dict("records"):
        x, y = columns.index(str(finding["block"])), steps.index(finding["step"])
        removed, unsure = finding["status"] == "removed", finding["verdict"] == "uncertain"
        value = max(0.0, float(finding["similarity"])) if not math.isnan(finding["similarity"]) else 0.0
        look: dict[str, Any] = {"facecolor": _REMOVED if removed else colours(value), "edgecolor": "white", "linewidth": 0.5}
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, hatch="////" if removed and unsure else None, **look))
        text = ("?" if unsure else "\u00d7") if removed else f"{value:.2f}".removeprefix("0") + ("?" if unsure else "")
        ink = "white" if removed or value > 0.6 else "black"
        # A mark is read on a plain ground, not on hatches.
        ground = {"facecolor": _REMOVED, "edgecolor": "none", "pad": 1.0} if removed else None
        axes.text(x, y, text, ha="center", va="center", fontsize=5.8, color=ink, bbox=ground)


def _hits_panel(axes: Axes, choices: pd.DataFrame, steps: Sequence[int], criteria: Sequence[str]) -> None:
    colours = mpl.colormaps[_HITS]
    axes.set_xlim(-0.5, len(criteria) + 0.5)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    for row in choices.to_dict("records"):
        x, y = list(criteria).index(row["criterion"]), steps.index(row["step"])
        share = row["hits"] / row["removed"]
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours(0.75 * share), edgecolor="white", linewidth=0.5))
        ink = "white" if share > 0.6 else "black"
        axes.text(x, y, f"{row['hits']}/{row['removed']}", ha="center", va="center", fontsize=5.8, color=ink)
    for step, expected in choices.groupby("step")["expected_hits"].first().items():
        axes.text(len(criteria), steps.index(int(str(step))), f"{expected:.2f}", ha="center", va="center", fontsize=5.8)
    axes.set_xticks(range(len(criteria) + 1), [*criteria, _EXPECTED], rotation=90)
    axes.set_yticks([])
    axes.set_title("Of the blocks that went, chosen", pad=8)


TABLES: dict[str, Callable[[Tables], Table]] = {
    "audit": lambda tidy: _audit(tidy.audit_blocks),
    "audit_agreement": lambda tidy: _agreement(tidy.audit_choices),
}
