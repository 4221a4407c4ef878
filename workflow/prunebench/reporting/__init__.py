"""From result files to tidy tables, statistics, the paper's tables and figures; free of torch.

What there is to show is named here once, with its place in the report; each has a caption in ``workflow/report/<name>.rst``. This
module imports nothing, since it is read whenever the workflow is parsed.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a table or figure stands in the report.

    Attributes:
        category: Entry of the report's menu; they are sorted by their number.
        content: What a reader finds there.
    """

    category: str
    content: str


TABLES = {
    "headline": Place("1. Headline", "does any criterion beat random removal?"),
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction"),
    "versus_random": Place("2. Accuracy", "paired comparison with random removal"),
    "versus_dense": Place("2. Accuracy", "paired comparison with the dense network"),
    "cost": Place("4. Cost (measured)", "latency, energy, carbon"),
    "scoring_cost": Place("4. Cost (measured)", "cost of scoring"),
}

AUDIT_TABLES = {
    "audit": Place("3. Decisions", "which blocks went between delivered networks"),
    "audit_agreement": Place("3. Decisions", "delivered networks: what each criterion would have removed"),
}

AUDIT_FIGURES = {"audit": Place("3. Decisions", "which blocks went between delivered networks")}

FIGURES = {
    "accuracy": Place("2. Accuracy", "accuracy against FLOPs reduction"),
    "removals": Place("3. Decisions", "which blocks went, step by step"),
    "scores": Place("3. Decisions", "ranks of blocks by criterion"),
    "agreement": Place("3. Decisions", "agreement between criteria"),
}


def tables_of(audited: bool, chosen: bool) -> dict[str, Place]:
    """The paper's tables of a suite: with those of the audit where delivered networks are audited, and where criteria were asked."""
    more = [name for name, wanted in (("audit", audited), ("audit_agreement", audited and chosen)) if wanted]
    return {**TABLES, **{name: AUDIT_TABLES[name] for name in more}}
