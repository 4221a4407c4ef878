"""Figures that papers published, with their sources, to stand beside what is reproduced (``docs/paper.md``).

They are in ``figures.csv``, a row for each number. Nothing here imports torch or pandas: it is read whenever a workflow is planned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prunebench.artifacts import read_csv
from prunebench.errors import PrunebenchError

ACCURACY = "accuracy_change_pp"
QUANTITIES = {
    ACCURACY: "test accuracy (pp)",
    "energy_change_percent": "energy (%)",
    "carbon_change_percent": "carbon emissions (%)",
    "robust_accuracy_change_pp": "accuracy under attack (pp)",
}
"""What was published, always a change against the unpruned network, and how it is written."""
KINDS = ("layer", "filter")
_FILE = Path(__file__).with_name("figures.csv")


@dataclass(frozen=True)
class Figure:
    """One published number.

    Attributes:
        dataset: As this package names it; empty where the source does not say.
        model: Likewise.
        method: As its paper calls it.
        kind: ``layer`` for whole blocks; ``filter`` for filters, channels or kernels.
        flops_reduction_percent: Multiply-accumulates of convolutions and dense layers saved; ``nan`` where the source does not say.
        quantity: One of ``QUANTITIES``.
        value: In the unit of the quantity.
        source: Where the number stands.
        note: What a reader should know of it; may be empty.
    """

    dataset: str
    model: str
    method: str
    kind: str
    flops_reduction_percent: float
    quantity: str
    value: float
    source: str
    note: str

    @property
    def slug(self) -> str:
        """The method as a criterion or a delivered method may be named: small letters, digits and ``_``."""
        return re.sub(r"[^a-z0-9]+", "_", self.method.lower()).strip("_")

    def delivered_as(self, name: str) -> bool:
        """Whether a delivered method is this one: its name begins with the method's words (``cka_released``)."""
        return re.split(r"[_-]", name.lower())[: len(self.slug.split("_"))] == self.slug.split("_")


def load(path: Path = _FILE) -> tuple[Figure, ...]:
    """All published figures, in the order of the file.

    Raises:
        PrunebenchError: a number, a quantity or a kind cannot be read; the message names the line.
    """
    columns = ("dataset", "model", "method", "kind", "flops_reduction_percent", "quantity", "value", "source", "note")
    found = []
    for line, row in enumerate(read_csv(path, columns), start=2):
        for column, known in (("quantity", tuple(QUANTITIES)), ("kind", KINDS)):
            if row[column] not in known:
                raise PrunebenchError(f"{path}, line {line}: {column} is {row[column]!r}, expected one of {', '.join(known)}")
        if not row["source"] or not row["method"]:
            raise PrunebenchError(f"{path}, line {line}: a figure without method or source cannot be checked by anybody")
        try:
            reduction = float(row["flops_reduction_percent"] or math.nan)
            value = float(row["value"])
        except ValueError as error:
            raise PrunebenchError(f"{path}, line {line}: {error}") from None
        words = {column: row[column] for column in columns if column not in ("flops_reduction_percent", "value")}
        found.append(Figure(flops_reduction_percent=reduction, value=value, **words))
    return tuple(found)


@cache
def figures(dataset: str, model: str) -> tuple[Figure, ...]:
    """The published changes of accuracy of a dataset and model, in the order of the file."""
    return tuple(each for each in load() if (each.dataset, each.model, each.quantity) == (dataset, model, ACCURACY))


@cache
def claims() -> tuple[Figure, ...]:
    """What was published of everything else: energy, carbon, accuracy under attack."""
    return tuple(each for each in load() if each.quantity != ACCURACY)


def any_published(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether there are published accuracies of any of these (dataset, model) pairs."""
    return any(figures(dataset, model) for dataset, model in pairs)
