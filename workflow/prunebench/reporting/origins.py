"""Origins that columns of several tables share (``formats.Origin``): which tidy rows their cells were made from."""

from __future__ import annotations

from prunebench.reporting.collect import DENSE, SCORING, TRAINING
from prunebench.reporting.formats import Origin

ACCURACY = (Origin("results", "accuracy", "accuracy_percent"),)
DENSE_ACCURACY = (Origin("results", "accuracy", "accuracy_percent", schedule=DENSE),)
CHANGE = (*ACCURACY, *DENSE_ACCURACY)
"""Change of accuracy against the dense network of the same replicate."""
CHANGE_BEFORE = (Origin("results", "accuracy", "accuracy_before_fine_tuning_percent"), *DENSE_ACCURACY)
FLOPS = (Origin("results", "complexity", "flops_reduction_percent"),)
EPOCHS = (Origin("results", TRAINING, "epochs"),)
EPOCHS_PER_BLOCK = (Origin("results", TRAINING, "epochs_per_block"),)
# How many blocks went is in training.json; of delivered networks it is counted from the architecture, as complexity is.
BLOCKS = (*EPOCHS, Origin("results", "complexity", "macs"))


def change_of(criterion: str) -> tuple[Origin, ...]:
    """Change of accuracy of another criterion than the row's at the same operating point."""
    return (Origin("results", "accuracy", "accuracy_percent", criterion=criterion), *DENSE_ACCURACY)


def versus(against: str) -> tuple[Origin, ...]:
    """A paired comparison of the row's criterion with a baseline or with the dense network."""
    other = DENSE_ACCURACY if against == DENSE else (Origin("results", "accuracy", "accuracy_percent", criterion=against),)
    return (*ACCURACY, *other)


def family(against: str, all_points: bool = False) -> tuple[Origin, ...]:
    """A p value that is adjusted over all criteria of the operating point, or of all points of the schedule."""
    point = "*" if all_points else None
    everything = Origin("results", "accuracy", "accuracy_percent", criterion="*", operating_point=point)
    return (everything, *(DENSE_ACCURACY if against == DENSE else ()))


def scoring(quantity: str) -> tuple[Origin, ...]:
    """What scoring the dense network by the row's criterion cost."""
    return (Origin("measured", SCORING, quantity, schedule=DENSE),)


def load_from(evaluation: str, schedule: str | None = None) -> tuple[Origin, ...]:
    """The origin of ``<evaluation>.beside``, whether there was other work on the machine meanwhile."""
    return (Origin("measured", evaluation, ("other_load_cores", "gpu_use_before_percent"), schedule=schedule),)


SCORES = (Origin("scores", schedule=DENSE),)
"""The dense network's scores by the row's criterion."""
ORACLE = (Origin("oracle"),)
"""The losses without each block, of the row's fine-tuning if it has one."""
