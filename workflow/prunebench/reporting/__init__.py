"""From result files to tidy tables, statistics, the paper's tables and figures; free of torch.

What there is to show is named here once, with its place in the report; each has a caption in ``workflow/report/<name>.rst``. This
module imports nothing of ours, since it is read whenever the workflow is parsed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Place(NamedTuple):
    """Where a table or figure stands in the report.

    Attributes:
        category: Entry of the report's menu; they are sorted by their number.
        content: What a reader finds there.
        of: What a suite must have for it: ``oracle``; ``consensus``, one of all eight metrics that was scored; ``audit`` of
            delivered networks; ``audit_choices``, an audit with criteria. Empty: nothing.
    """

    category: str
    content: str
    of: str = ""


TABLES = {
    "headline": Place("1. Headline", "does any criterion beat random removal?"),
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction"),
    "versus_random": Place("2. Accuracy", "paired comparison with random removal"),
    "versus_dense": Place("2. Accuracy", "paired comparison with the dense network"),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", of="oracle"),
    "consensus_parts": Place("3. Decisions", "what each metric contributes to the consensus", of="consensus"),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", of="audit"),
    "audit_agreement": Place("3. Decisions", "delivered networks: what each criterion would have removed", of="audit_choices"),
    "cost": Place("4. Cost (measured)", "latency, energy, carbon"),
    "scoring_cost": Place("4. Cost (measured)", "cost of scoring"),
}

FIGURES = {"audit": Place("3. Decisions", "which blocks went between delivered networks")}

FIGURES = {
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction"),
    "quality": Place("3. Decisions", "how good is a criterion? (oracle)", of="oracle"),
    "audit": Place("3. Decisions", "which blocks went between delivered networks", of="audit"),
    "removals": Place("3. Decisions", "which blocks went, step by step"),
    "scores": Place("3. Decisions", "ranks of blocks by criterion"),
    "agreement": Place("3. Decisions", "agreement between criteria"),
}


def shown(places: dict[str, Place], subjects: Collection[str]) -> dict[str, Place]:
    """The tables or figures of a suite that has so much to show, so that none is made only to say that it is empty."""
    return {name: place for name, place in places.items() if not place.of or place.of in subjects}
