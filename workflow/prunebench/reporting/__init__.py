"""From result files to tidy tables, statistics, the paper's tables and figures; free of torch.

What there is to show is named here once, with its place in the report; each has a caption in ``workflow/report/<name>.rst``. This
module imports nothing of ours, since it is read whenever the workflow is parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import import_module
from typing import Any, NamedTuple

# Replicates below which rank tests and bootstrap intervals say little or mislead (docs/statistics.md).
ENOUGH = 8


class Place(NamedTuple):
    """Where a table or figure stands in the report.

    Attributes:
        category: Entry of the report's menu; they are sorted by their number.
        content: What a reader finds there.
        module: The file of this folder that makes it: its ``TABLES`` or ``FIGURES`` has a function of this name.
        of: What a suite must have for it, any one of them: an evaluation's name; ``oracle``; ``consensus``, one of all eight metrics
            that was scored; ``audit`` of delivered networks; ``audit_choices``, an audit with criteria; ``published``, a dataset and
            model that papers published figures of; ``ranks``, at least 8 replicates; ``further``, reproducible evaluations that no
            other table shows. Empty: nothing.
        with_control: Whether a figure of a dataset with a planted mark gets the rows of the dataset without it too.
    """

    category: str
    content: str
    module: str
    of: tuple[str, ...] = ()
    with_control: bool = False


TABLES = {
    "headline": Place("1. Headline", "does any criterion beat random removal?", "comparison"),
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction", "comparison"),
    "versus_random": Place("2. Accuracy", "paired comparison with random removal", "comparison"),
    "versus_dense": Place("2. Accuracy", "paired comparison with the dense network", "comparison"),
    "ranks": Place("2. Accuracy", "ranks of criteria over many replicates", "ranks", of=("ranks",)),
    "published": Place("2. Accuracy", "published figures beside what was reproduced", "published", of=("published",)),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", "decisions", of=("oracle",)),
    "consensus_parts": Place("3. Decisions", "what each metric contributes to the consensus", "decisions", of=("consensus",)),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", "audit", of=("audit",)),
    "audit_agreement": Place(
        "3. Decisions", "delivered networks: what each criterion would have removed", "audit", of=("audit_choices",)
    ),
    "claims": Place("4. Cost (measured)", "published claims beside the most favourable here", "published", of=("published",)),
    "speedup": Place("4. Cost (measured)", "speed-up against FLOPs reduction", "speedup", of=("latency",)),
    "bottleneck": Place("4. Cost (measured)", "why fewer MACs are not always faster", "speedup", of=("latency",)),
    "energy": Place("4. Cost (measured)", "energy by stage, break-even", "energy", of=("energy",)),
    "cost": Place("4. Cost (measured)", "latency, energy, carbon", "cost"),
    "scoring_cost": Place("4. Cost (measured)", "cost of scoring", "cost"),
    "robustness": Place("5. Robustness", "accuracy under attack", "robustness", of=("fgsm", "pgd", "autoattack")),
    "corruptions": Place("5. Robustness", "errors on corrupted images", "shift", of=("corruptions",)),
    "natural_shift": Place("5. Robustness", "accuracy on new test sets", "shift", of=("natural_shift",)),
    "calibration": Place("5. Robustness", "calibration and confidence", "shift", of=("calibration",)),
    "shortcut": Place("5. Robustness", "shortcut learning", "shortcut", of=("shortcut",)),
    "evaluations": Place("6. Further evaluations", "every quantity that no other table shows", "evaluations", of=("further",)),
}

FIGURES = {
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction", "figures"),
    "published": Place("2. Accuracy", "accuracy against FLOPs reduction, with published methods", "published", of=("published",)),
    "differences": Place("2. Accuracy", "paired comparison with random removal", "differences"),
    "critical_difference": Place("2. Accuracy", "ranks of criteria over many replicates", "ranks", of=("ranks",)),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", "figures", of=("oracle",)),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", "figures", of=("audit",)),
    "removals": Place("3. Decisions", "which blocks went, step by step", "figures"),
    "scores": Place("3. Decisions", "ranks of blocks by criterion", "figures"),
    "agreement": Place("3. Decisions", "agreement between criteria", "figures"),
    "speedup": Place("4. Cost (measured)", "speed-up against FLOPs reduction", "speedup", of=("latency",)),
    "energy": Place("4. Cost (measured)", "energy and carbon by FLOPs reduction", "energy", of=("energy",)),
    "robustness": Place("5. Robustness", "accuracy under attack", "robustness_figures", of=("fgsm", "pgd", "autoattack")),
    "robustness_curve": Place(
        "5. Robustness", "accuracy by the strength of an attack", "robustness_figures", of=("fgsm", "pgd", "autoattack")
    ),
    "corruptions": Place("5. Robustness", "errors on corrupted images", "shift_figures", of=("corruptions",)),
    "corruption_map": Place("5. Robustness", "errors on corrupted images, one by one", "shift_figures", of=("corruptions",)),
    "shortcut": Place("5. Robustness", "shortcut learning", "shortcut", of=("shortcut",), with_control=True),
}


def shown(places: dict[str, Place], subjects: Collection[str]) -> dict[str, Place]:
    """The tables or figures of a suite that has so much to show, so that none is made only to say that it is empty."""
    return {name: place for name, place in places.items() if not place.of or set(place.of) & set(subjects)}


def without_table(evaluations: Iterable[str]) -> set[str]:
    """Which of these reproducible evaluations no table names, so that the table ``evaluations`` shows them."""
    named = {name for place in TABLES.values() for name in place.of}
    return set(evaluations) - named - {"accuracy", "complexity", "training"}


def maker(kind: str, name: str, place: Place) -> Any:
    """The function that makes a table or figure: from ``TABLES`` or ``FIGURES`` (``kind``) of its module."""
    return getattr(import_module(f"{__name__}.{place.module}"), kind)[name]
