"""What a person would see at once in a figure: labels that are cut off or lie on each other, and panels with nothing in them."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# Pixels at 100 dpi by which a box may be out: fonts have side bearings.
TOLERANCE = 1.0


def flaws(figure: Figure) -> list[str]:
    """What is wrong with a figure, a line for each flaw."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [*_clipped(figure), *_overlapping(figure), *_empty(figure), *_unlabelled(figure)]


def _texts(figure: Figure) -> Iterator[tuple[Text, Bbox]]:
    ticks: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = {id(label) for label in _tick_labels(axes, axis)} if axes.axison else set()
            every = [label for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)]
            # Ticks outside of the limits are kept, and not drawn.
            ticks |= {id(label) for label in every} - shown
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in ticks:
            box = text.get_window_extent()
            if box.width > 0:
                yield text, box


def _tick_labels(axes: Axes, axis: object) -> list[Text]:
    low, high = sorted(axis.get_view_interval())  # type: ignore[attr-defined]
    margin = 1e-6 * (high - low)
    ticks = [tick for tick in axis.get_major_ticks() if low - margin <= tick.get_loc() <= high + margin]  # type: ignore[attr-defined]
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text().strip()]


def _clipped(figure: Figure) -> Iterator[str]:
    for text, box in _texts(figure):
        edges = (box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1)
        if min(edges) < -TOLERANCE:
            yield f"cut off at the edge: {text.get_text()!r}"


def _overlapping(figure: Figure) -> Iterator[str]:
    # Boxes of slanted labels overlap although the words do not.
    straight = [(text.get_text(), box) for text, box in _texts(figure) if not text.get_rotation() % 90]
    for number, (one, box) in enumerate(straight):
        for other, beside in straight[number + 1 :]:
            if _cross(box, beside):
                yield f"on each other: {one!r}, {other!r}"
    for legend in figure.legends:
        for axes in figure.axes:
            if _cross(legend.get_window_extent(), axes.get_window_extent()):
                yield "the legend lies on a panel"
        own = {id(text) for text in legend.get_texts()} | {id(legend.get_title())}
        for text, box in _texts(figure):
            if id(text) not in own and _cross(legend.get_window_extent(), box):
                yield f"the legend lies on {text.get_text()!r}"


def _cross(one: Bbox, other: Bbox) -> bool:
    both = Bbox.intersection(one, other)
    return both is not None and both.width > TOLERANCE and both.height > TOLERANCE


def _empty(figure: Figure) -> Iterator[str]:
    if not figure.axes:
        yield "no panel"
    for axes in figure.axes:
        # A second scale of the same panel holds nothing of its own.
        if not isinstance(axes, SecondaryAxis) and not (
            axes.lines or axes.collections or axes.patches or axes.images or axes.texts or axes.containers
        ):
            yield f"an empty panel: {axes.get_title()!r}"


def _unlabelled(figure: Figure) -> Iterator[str]:
    """A panel with numbers along an axis must say what they are, itself or at the edge of a shared axis."""
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis, shared, label in (
            (axes.xaxis, axes.get_shared_x_axes(), "x"),
            (axes.yaxis, axes.get_shared_y_axes(), "y"),
        ):
            numbers = [
                text
                for text in _tick_labels(axes, axis)
                if text.get_text().replace("\N{MINUS SIGN}", "-").lstrip("-")[:1].isdigit()
            ]
            around = [getattr(other, f"{label}axis").label.get_text() for other in shared.get_siblings(axes)]
            around += [text for text in (figure.get_supxlabel() if label == "x" else figure.get_supylabel(),) if text]
            if numbers and not any(text.strip() for text in around):
                yield f"numbers along {label} without a label: {axes.get_title()!r}"
