"""What all figures share: fonts and colours, printed widths, labelled grids of blocks, saving."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prunebench import artifacts
from prunebench.reporting.formats import MINUS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = ("pdf", "png")

_STYLE: dict[str, Any] = {
    **sns.axes_style("ticks", {"axes.grid": True, "grid.color": "0.92", "axes.edgecolor": "0.3"}),
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "prunebench",
    "savefig.dpi": 200,
}
ORDERED = "viridis"


def save(figure: Figure, stem: Path) -> list[Path]:
    """Save a figure as PDF and PNG, without dates, so that the same values give the same bytes."""
    metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    written = []
    with style():
        for suffix in SUFFIXES:
            path = stem.with_name(f"{stem.name}.{suffix}")
            artifacts.write_atomically(path, partial(figure.savefig, metadata=metadata[suffix]))
            written.append(path)
    return written


def style() -> AbstractContextManager[None]:
    """Fonts and colours of the project's figures, for a while."""
    return mpl.rc_context(rc=dict[Any, Any](_STYLE))


@dataclass(frozen=True)
class Widths:
    """Widths on the printed page, in millimetres: of one column and of all the text. Fonts have their size at these widths."""

    column_mm: float = 84.0
    text_mm: float = 174.0


PAGE = Widths()
_PRINTED: ContextVar[Widths] = ContextVar("printed")


@contextmanager
def printed(widths: Widths) -> Iterator[None]:
    """Draw for a page of such widths, for a while."""
    token = _PRINTED.set(widths)
    try:
        yield
    finally:
        _PRINTED.reset(token)


def column_inches() -> float:
    """Width of a figure that stands in one column, in inches, as matplotlib counts."""
    return _PRINTED.get(PAGE).column_mm / 25.4


def text_inches() -> float:
    """Width of a figure that reaches over all columns."""
    return _PRINTED.get(PAGE).text_mm / 25.4


def legend_grid(handles: Sequence[Any], inches: float, handle: float = 0.45) -> tuple[int, float]:
    """Columns that a legend below a figure has room for, and its height in inches.

    Args:
        handles: Its handles, in order; labels may have several lines.
        inches: Its width at most.
        handle: Width of a handle with the gaps around it.
    """
    labels = [str(each.get_label()).split("\n") for each in handles]
    for columns in range(min(6, len(labels)), 1, -1):
        parts = [part.tolist() for part in np.array_split(np.arange(len(labels)), columns)]
        # A letter of these sizes is 0.06 inches wide, some more for narrow labels of wide letters.
        widths = [handle + 0.1 + 0.06 * max(len(line) for number in part for line in labels[number]) for part in parts]
        if sum(widths) <= inches:
            return columns, 0.16 * max(sum(len(labels[number]) + 0.2 for number in part) for part in parts) + 0.1
    return 1, 0.16 * sum(len(lines) + 0.2 for lines in labels) + 0.1


def note(title: str, text: str) -> Figure:
    """A figure that says why there is nothing to see, so that a missing value never looks like a missing file."""
    figure = Figure(figsize=(5.0, 1.6), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(title)
    axes.text(0.5, 0.5, textwrap.fill(text, 66), ha="center", va="center", transform=axes.transAxes)
    return figure


def head(figure: Figure, title: str) -> None:
    """The title of a figure of several panels: at its left edge, where no legend beside the panels reaches."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)


def nothing_in(panel: Axes, text: str) -> None:
    """A panel of a grid that there is nothing for: words in place of axes."""
    panel.text(0.5, 0.5, text, ha="center", va="center", color="0.35", transform=panel.transAxes)
    panel.grid(False)
    panel.tick_params(bottom=False, labelbottom=False)
    panel.set_xlabel("")
    # The scale on the left may be that of the whole row.
    for side in ("top", "right", "bottom"):
        panel.spines[side].set_visible(False)


def cut_below(axes: Axes, values: Sequence[float], lowest: float) -> None:
    """Let an axis end at ``lowest``, and say how many values lie below: one disturbed measurement must not hide all others."""
    beyond = sum(value < lowest for value in values)
    if beyond:
        highest = max([*values, 0.0])
        axes.set_ylim(lowest, highest + 0.15 * (highest - lowest))
        words = f"{beyond} value{'s' * (beyond > 1)} below {lowest:g}".replace("-", MINUS)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axes.text(0.98, 0.02, words, ha="right", fontsize=7, color="0.35", transform=axes.transAxes, zorder=6, bbox=box)


def grid_size(blocks: Sequence[str], rows: float, panels: int = 1) -> tuple[float, float]:
    """Inches of a figure whose cells are large enough for a number and whose labels find their place."""
    labels, groups = _block_labels(blocks)[1:]
    upright = 0.07 * max(len(label) for label in labels) if _turned(labels) else 0.0
    upright += 0.07 * max(map(len, groups)) if _narrow(groups) else 0.0
    width = 0.31 if len(blocks) <= 30 else 0.25
    return max(5.5, width * len(blocks) + 2.6), max(2.6, 0.27 * rows + 1.8 + panels * upright)


def cells(axes: Axes, values: NDArray[np.float64], low: float, high: float, digits: int) -> None:
    """A heat map with a number in every cell that has a value."""
    norm, colours = Normalize(low, max(high, low + 1)), mpl.colormaps[ORDERED]
    axes.imshow(np.ma.masked_invalid(values), cmap=ORDERED, norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not math.isnan(value):
            axes.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=6.2, color=ink(colours(norm(value))))


def ink(colour: Any) -> str:
    """Black on light colours, white on dark ones."""
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _block_labels(blocks: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Axis label, a label for each block, and the group of each: what its name says before the last dot."""
    split = [block.rpartition(".") for block in blocks]
    groups, labels = [group for group, _, _ in split], [label for _, _, label in split]
    words = {match[1] if (match := re.fullmatch(r"(\D*)\d+", label)) else None for label in labels}
    if len(words) > 1 or None in words:
        return "Block", labels, groups
    # "block1", "block2", ... need no more than their numbers.
    word = words.pop() or ""
    return "Block" if word in ("", "block") else f"Block ({word}\u2026)", [n.removeprefix(word) for n in labels], groups


def _runs(groups: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of each run of columns that share a group."""
    starts = [i for i in range(len(groups)) if i == 0 or groups[i] != groups[i - 1]]
    return list(zip(starts, [*starts[1:], len(groups)], strict=True))


def _turned(labels: Sequence[str]) -> bool:
    """Whether labels of columns are too long to stand side by side."""
    return max(map(len, labels)) > 2


def _narrow(groups: Sequence[str]) -> bool:
    """Whether the name of a group would run into its neighbours'."""
    return any(0.25 * (end - start) < 0.1 * len(groups[start]) for start, end in _runs(groups))


def block_axis(axes: Axes, blocks: Sequence[str], separator: str = "white", width: float = 3.0) -> None:
    """Label the columns with their blocks, and groups of columns above."""
    axis_label, labels, groups = _block_labels(blocks)
    axes.set_xlabel(axis_label)
    axes.set_xticks(range(len(blocks)), labels, rotation=90 if _turned(labels) else 0)
    bare(axes)
    runs = _runs(groups)
    for start, _ in runs[1:]:
        axes.axvline(start - 0.5, color=separator, linewidth=width)
    if any(groups):
        top = axes.secondary_xaxis("top")
        centres = [(start + end - 1) / 2 for start, end in runs]
        top.set_xticks(centres, [groups[start] for start, _ in runs], rotation=90 if _narrow(groups) else 0)
        top.tick_params(length=0)
        top.spines[:].set_visible(False)


def bare(axes: Axes) -> None:
    """Take away grid, ticks and frame."""
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def colour_bar(figure: Figure, axes: Any, low: float, high: float, label: str, cmap: str = ORDERED) -> None:
    """Say what colours mean: steps and ranks from the top down, correlations from -1 to 1."""
    bar = figure.colorbar(ScalarMappable(Normalize(low, max(high, low + 1)), cmap), ax=axes, pad=0.02, aspect=25)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if cmap == ORDERED:
        bar.ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        bar.ax.invert_yaxis()
    else:
        ticks = [-1, -0.5, 0, 0.5, 1]
        bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", MINUS) for tick in ticks])


def mean_over(replicates: int) -> str:
    """What to add to the label of a mean over replicates."""
    return f",\nmean over {replicates} replicates" if replicates > 1 else ""
