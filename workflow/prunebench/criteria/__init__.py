"""Criteria: what decides which block goes first.

A criterion gives every candidate block a score. A Python file that defines one object of ``Criterion`` adds one
(``docs/adding-a-method.md``). Definitions import no torch at module level, since they are read whenever the workflow is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from prunebench import plugins
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import numpy as np

    from prunebench.scoring import Probe

Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Criterion:
    """A plugin.

    Attributes:
        name: As in configs, paths and tables.
        score: Takes a ``Probe`` and returns one number for each of ``probe.blocks``, in their order.
        needs: What the shared sweep over silenced blocks has to collect: ``features`` (means and covariances), ``labels`` (the
            same for each class), ``values`` (every feature of every image), ``losses`` (the cross-entropy); ``gradients`` if
            the criterion runs backward passes.
        combines: Other criteria whose scores it reads through ``probe.scores``.
        removes: Which end of the scores goes first.
        draws: Whether it draws at random, so that it is repeated.
        source: Paper and equation.
    """

    name: str
    score: Callable[[Probe], Sequence[float]]
    needs: tuple[str, ...] = ()
    combines: tuple[str, ...] = ()
    removes: Literal["lowest", "highest"] = "lowest"
    draws: bool = False
    source: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a slip of the pen that would turn a ranking round."""
        if self.removes not in ("lowest", "highest"):
            raise PrunebenchError(f"criterion {self.name}: removes is {self.removes!r}, expected 'lowest' or 'highest'")
        unknown = set(self.needs) - {"features", "labels", "values", "losses", "gradients"}
        if unknown:
            raise PrunebenchError(
                f"criterion {self.name}: needs has {', '.join(sorted(unknown))}; there are features, labels, values, losses, gradients"
            )


def find_criterion(reference: str) -> Criterion:
    """The criterion that a name or the path of a Python file stands for."""
    return plugins.find(Criterion, "criteria", reference)


def with_combined(references: Iterable[str]) -> list[str]:
    """References and, behind them, those that the criteria in files combine, and so on: whose code such scores depend on."""
    every = list(references)
    for reference in every:  # the list grows: parts may have parts
        if reference.endswith(".py"):
            every += [part for part in find_criterion(reference).combines if part not in every]
    return every


def order_of_removal(blocks: Sequence[str], scores: Sequence[float], removes: str) -> list[str]:
    """Blocks from the first to go to the last; a tie goes to the earlier block."""
    sign = 1.0 if removes == "lowest" else -1.0
    return [blocks[i] for i in sorted(range(len(blocks)), key=lambda i: (sign * scores[i], i))]


def ranks(scores: Sequence[float] | np.ndarray, removes: str = "lowest") -> np.ndarray:
    """Ranks of scores, 1 for the first to go; ties share the average of their ranks."""
    import numpy as np
    from scipy.stats import rankdata

    values = np.asarray(scores, dtype=float)
    result: np.ndarray = rankdata(values if removes == "lowest" else -values, method="average")
    return result
