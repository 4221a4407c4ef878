"""Pruning of units (filters, MLP units, attention heads) without retraining, as in attribution pruning (arXiv 2408.12568).

A few reference images give every unit a score; all units of a kind, of all layers together, are put in one order; the first ones are
masked, at every pruning rate from the same weights, and the masked network is evaluated as it is. What is defined here is read
whenever a workflow is planned, so it imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["filters", "mlp", "heads"]
KINDS: tuple[Kind, ...] = ("filters", "mlp", "heads")
"""Kinds of units; they are never mixed in one ranking."""

Group = Literal["low", "middle", "high", "classifier"]
GROUPS: tuple[Group, ...] = ("low", "middle", "high", "classifier")
"""Depth groups: each has one rule of relevance propagation."""

RATES = tuple(round(0.05 * step, 2) for step in range(20))
"""Pruning rates of the paper: 0, 0.05, ..., 0.95 of the units."""


@dataclass(frozen=True)
class UnitLayer:
    """A layer whose units can be pruned.

    Attributes:
        name: Path of the module in the network: a convolution, a dense layer, an attention.
        kind: Of its units: output filters, outputs of a dense layer, attention heads.
        units: How many there are.
        gate: Path of the module whose weights take the gate: the batch norm behind a convolution, otherwise ``name``.
        group: Its depth group.
        block: Name of the block that it lies in; empty outside of blocks.
        stream: Whether its outputs are added to others, as at the end of a residual branch, so that they cannot be removed by
            themselves.
    """

    name: str
    kind: Kind
    units: int
    gate: str
    group: Group
    block: str = ""
    stream: bool = False
