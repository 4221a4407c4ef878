"""From result files to tidy tables, statistics, the paper's tables and figures; free of torch.

What there is to show is named here once, with its place in the report; each has a caption in ``workflow/report/<name>.rst``. This
module imports nothing of ours, since it is read whenever the workflow is parsed.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a table or figure stands in the report.

    Attributes:
        category: Entry of the report's menu; they are sorted by their number.
        content: What a reader finds there.
        module: The file of this folder that makes it: its ``TABLES`` or ``FIGURES`` has a function of this name.
        of: What a suite must have for it, any one of them: an evaluation's name; ``oracle``; ``consensus``, one of all eight metrics
            that was scored; ``audit`` of delivered networks; ``audit_choices``, an audit with criteria; ``published``, a
            dataset and model that papers published figures of. Empty: nothing.
            that was scored; ``audit`` of delivered networks; ``audit_choices``, an audit with criteria. Empty: nothing.
        with_control: Whether a figure of a dataset with a planted mark gets the rows of the dataset without it too.
    """

    category: str
    content: str
    module: str
    of: tuple[str, ...] = ()
    with_control: bool = False


TABLES = {
    "headline": Place("1. Headline", "does any criterion beat random removal?", "tables"),
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction", "tables"),
    "versus_random": Place("2. Accuracy", "paired comparison with random removal", "tables"),
    "versus_dense": Place("2. Accuracy", "paired comparison with the dense network", "tables"),
    "published": Place("2. Accuracy", "published figures beside what was reproduced", "published", of=("published",)),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", "tables", of=("oracle",)),
    "consensus_parts": Place("3. Decisions", "what each metric contributes to the consensus", "tables", of=("consensus",)),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", "audit", of=("audit",)),
    "audit_agreement": Place(
        "3. Decisions", "delivered networks: what each criterion would have removed", "audit", of=("audit_choices",)
    ),
    "claims": Place("4. Cost (measured)", "published claims beside the most favourable here", "published", of=("published",)),
    "speedup": Place("4. Cost (measured)", "the MACs fell: is it faster?", "speedup", of=("latency",)),
    "bottleneck": Place("4. Cost (measured)", "and why not?", "speedup", of=("latency",)),
    "energy": Place("4. Cost (measured)", "energy of each stage, and when pruning has paid for itself", "energy", of=("energy",)),
    "cost": Place("4. Cost (measured)", "latency, energy, carbon", "cost"),
    "scoring_cost": Place("4. Cost (measured)", "cost of scoring", "cost"),
    "robustness": Place("5. Robustness", "accuracy under attack", "robustness", of=("fgsm", "pgd", "autoattack")),
    "shortcut": Place("5. Robustness", "shortcut learning", "shortcut", of=("shortcut",)),
}

FIGURES = {
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction", "figures"),
    "published": Place("2. Accuracy", "accuracy against FLOPs reduction, with published methods", "published", of=("published",)),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", "figures", of=("oracle",)),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", "figures", of=("audit",)),
    "removals": Place("3. Decisions", "which blocks went, step by step", "figures"),
    "scores": Place("3. Decisions", "ranks of blocks by criterion", "figures"),
    "agreement": Place("3. Decisions", "agreement between criteria", "figures"),
    "speedup": Place("4. Cost (measured)", "the MACs fell: is it faster?", "speedup", of=("latency",)),
    "energy": Place("4. Cost (measured)", "energy and carbon", "energy", of=("energy",)),
    "robustness": Place("5. Robustness", "accuracy under attack", "robustness", of=("fgsm", "pgd", "autoattack")),
    "robustness_curve": Place(
        "5. Robustness", "accuracy by the strength of an attack", "robustness", of=("fgsm", "pgd", "autoattack")
    ),
    "shortcut": Place("5. Robustness", "shortcut learning", "shortcut", of=("shortcut",), with_control=True),
}


def shown(places: dict[str, Place], subjects: Collection[str]) -> dict[str, Place]:
    """The tables or figures of a suite that has so much to show, so that none is made only to say that it is empty."""
    return {name: place for name, place in places.items() if not place.of or set(place.of) & set(subjects)}


def maker(kind: str, name: str, place: Place) -> Any:
    """The function that makes a table or figure: from ``TABLES`` or ``FIGURES`` (``kind``) of its module."""
    return getattr(import_module(f"{__name__}.{place.module}"), kind)[name]
