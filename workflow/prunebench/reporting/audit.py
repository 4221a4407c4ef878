"""The audit of delivered networks: its tidy tables, the paper's tables and the figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from prunebench.reporting.collect import _read_table, _write_table
from prunebench.reporting.display import criterion_order, natural, ordered_criteria

if TYPE_CHECKING:
    from prunebench.reporting.tables import Table

# As in prunebench.audit, which needs torch: reporting is free of it.
AUDIT = ("step", "from", "to", "block", "index", "status", "similarity", "confidence", "verdict")
CHOICES = ("step", "from", "to", "criterion", "removed", "candidates", "choice", "hits", "expected_hits")
SERIES = ("suite", "dataset", "model", "replicate", "method")
TIDY = {"audit_blocks": (*SERIES, *AUDIT), "audit_choices": (*SERIES, *CHOICES)}
FILES = {"audit_blocks": "audit.csv", "audit_choices": "audit_choices.csv"}

_KEPT, _HITS, _REMOVED = "Blues", "Greys", "#D55E00"


def collect_audits(series: Iterable[tuple[tuple[str, str, str, int, str], Path]], choices: bool, out: Path) -> None:
    """Write the tidy tables ``audit_blocks`` and, where criteria were asked, ``audit_choices``; without series, remove old ones.

    Args:
        series: The values of ``SERIES`` and the folder of each series that was audited.
        choices: Whether each has an ``audit_choices.csv``.
        out: The folder of the tables.

    Raises:
        PrunebenchError: a file is missing or corrupt.
    """
    series = sorted(series)
    for table, columns in TIDY.items():
        wanted = bool(series) and (choices or table == "audit_blocks")
        if not wanted:
            # A table of an earlier config must not find its way into this one's results.
            for suffix in (".csv", ".parquet"):
                (out / table).with_suffix(suffix).unlink(missing_ok=True)
            continue
        own = columns[len(SERIES) :]
        frames = []
        for keys, folder in series:
            frame = _read_table(folder / FILES[table], own)
            named = pd.DataFrame([keys] * len(frame), columns=list(SERIES))
            frames.append(pd.concat([named, frame], axis=1))
        whole = pd.concat(frames, ignore_index=True).astype(object)
        rows = [tuple(None if value != value else value for value in row) for row in whole.itertuples(index=False)]
        _write_table(out / table, columns, rows)


def read_audit(tables: Path, table: str) -> pd.DataFrame | None:
    """One of the tidy tables of the audit, or None where the suite has none.

    Raises:
        PrunebenchError: it is corrupt.
    """
    path = tables / f"{table}.csv"
    return _read_table(path, TIDY[table]) if path.exists() else None


# --- tables ----------------------------------------------------------------------------------------------------------


def summarise(blocks: pd.DataFrame) -> pd.DataFrame:
    """One row for each transition: which blocks went, and what makes it believable."""
    rows = []
    keys = [*SERIES[1:], "step", "from", "to"]
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


def audit_makers(blocks: pd.DataFrame | None, choices: pd.DataFrame | None) -> dict[str, Callable[[], Table]]:
    """How the paper's tables are made, by name: none without an audit."""
    from prunebench.reporting.tables import Column, Table, number

    made: dict[str, Callable[[], Table]] = {}
    if blocks is not None:
        columns = [
            Column("From", lambda row: row["from"], right=False),
            Column("To", lambda row: row["to"], right=False),
            Column("Blocks in stages", lambda row: f"{row.stages_before} to {row.stages_after}", right=False),
            Column("Removed", lambda row: _compact(row["blocks"].split()), right=False),
            Column("Index in its stage", lambda row: row["indices"].replace(" ", ", "), right=False),
            Column("Confidence, lowest", lambda row: number(row.lowest_confidence, 2)),
            Column("Similarity, lowest kept", lambda row: number(row.lowest_similarity_kept, 2)),
            Column("Similarity, highest removed", lambda row: number(row.highest_similarity_removed, 2)),
            Column("Uncertain", lambda row: str(row.uncertain)),
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
        data = summarise(blocks)
        group = ("dataset", "model", "method")
        made["audit"] = lambda: Table("audit", caption, data, columns, group=group, rule_after=None)
    if choices is not None:
        shown = [
            Column("Criterion", lambda row: row.criterion, right=False),
            Column("Blocks that went", lambda row: str(row.removed)),
            Column("Of these, chosen", lambda row: str(row.hits)),
            Column("Chosen (%)", lambda row: number(row.hit_percent, 1)),
            Column("Expected of random choice", lambda row: number(row.expected_hits, 2)),
        ]
        words = (
            "How many of the blocks that went between the networks of a series each criterion would have removed: as many, from the "
            "network before, by that network's scores and under the constraints of the suite. Summed over all transitions."
        )
        counts = agreement(choices)
        of = ("dataset", "model", "method")
        made["audit_agreement"] = lambda: Table("audit_agreement", words, counts, shown, group=of, rule_after=None)
    return made


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


def draw_audit(blocks: pd.DataFrame, choices: pd.DataFrame | None, title: str) -> Figure:
    """What became of each block of the dense network, transition by transition, and how many of those that went each criterion chose.

    Args:
        blocks: Rows of ``audit_blocks`` of one dataset and model.
        choices: Rows of ``audit_choices`` of the same, or None.
        title: Dataset and model.
    """
    from prunebench.reporting.figures import _bare, _block_axis, _grid_size

    keys = ["method", "replicate"]
    series = list(blocks.groupby(keys))
    columns = sorted(map(str, blocks["block"].unique()), key=natural)
    criteria = ordered_criteria(choices["criterion"]) if choices is not None else []
    heights = [group["step"].nunique() + 1.5 for _, group in series]
    width, height = _grid_size(columns, sum(heights), len(series))
    side = 0.38 * (len(criteria) + 1) if criteria else 0.0
    figure = Figure(figsize=(width + side, height + 0.7 * len(series)), layout="constrained")
    widths = [width, side] if criteria else [width]
    panels = figure.subplots(len(series), len(widths), squeeze=False, height_ratios=heights, width_ratios=widths)
    for (key, group), row in zip(series, panels, strict=True):
        (method, replicate), axes = key, row[0]
        steps = group[["step", "from", "to"]].drop_duplicates().sort_values("step")
        _blocks_panel(axes, group, list(steps["step"]), columns)
        axes.set_yticks(range(len(steps)), [f"{a} \u2192 {b}" for a, b in zip(steps["from"], steps["to"], strict=True)])
        _block_axis(axes, columns, separator="0.4", width=0.8)
        which = f", replicate {replicate}" if blocks["replicate"].nunique() > 1 else ""
        axes.set_title(f"{title}: {method}{which}", pad=8)
        if choices is not None:
            mine = choices[(choices["method"] == method) & (choices["replicate"] == replicate)]
            _hits_panel(row[1], mine, list(steps["step"]), criteria)
            _bare(row[1])
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _KEPT), ax=list(panels[:, 0]), pad=0.01, aspect=25)
    bar.set_label("Kept: cosine similarity to what it became")
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
        axes.text(x, y, text, ha="center", va="center", fontsize=5.8, color=ink)


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
    axes.set_xticks(range(len(criteria) + 1), [*criteria, "(random: expected)"], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.set_title("Of the blocks that went, chosen", pad=8)
