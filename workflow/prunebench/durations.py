"""How long jobs take, from those that have finished: for the time that is left. It imports nothing, and Snakemake's logger uses it too."""

from __future__ import annotations


class Durations:
    """Mean times by kind of job. A kind is a tuple from the general to the particular: ``("evaluate", "digits", "resnet20", "fgsm")``.

    Of a kind of which nothing has finished, the mean of those that it has most in common with, from the beginning on, is taken.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[int, float]] = {}

    def add(self, kind: tuple[str, ...], seconds: float) -> None:
        """Count a job that took so long."""
        for length in range(len(kind) + 1):
            number, total = self._known.get(kind[:length], (0, 0.0))
            self._known[kind[:length]] = number + 1, total + seconds

    def number(self, kind: tuple[str, ...] = ()) -> int:
        """How many jobs of the kind, or of kinds that begin so, have been counted."""
        return self._known.get(kind, (0, 0.0))[0]

    def mean(self, kind: tuple[str, ...]) -> float | None:
        """Seconds that a job takes; None as long as nothing is known of any."""
        for length in range(len(kind), -1, -1):
            if kind[:length] in self._known:
                number, total = self._known[kind[:length]]
                return total / number
        return None


def clock(seconds: float) -> str:
    """Seconds as 4:05 or 1:02:03, from a day on as 2 d 3 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
