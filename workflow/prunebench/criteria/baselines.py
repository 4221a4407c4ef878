"""Orders of removal that look at nothing: what a criterion has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _random(probe: Probe) -> Sequence[float]:
    return [float(value) for value in probe.random.permutation(len(probe.blocks))]


def _position(probe: Probe) -> Sequence[float]:
    return [float(position) for position in range(len(probe.blocks))]


RANDOM = Criterion("random", _random, draws=True, source="uniform over orders")
FIRST = Criterion("first", _position, source="front to back")
LAST = Criterion("last", _position, removes="highest", source="back to front")
