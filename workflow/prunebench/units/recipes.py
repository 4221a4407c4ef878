"""What there is to choose in an attribution: rules by depth, the softmax, magnitudes, the relevance to start from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from prunebench.units import Group

Rule = Literal["epsilon", "zplus", "gamma", "alpha2beta1"]
RULES: tuple[Rule, ...] = ("epsilon", "zplus", "gamma", "alpha2beta1")
"""Rules for convolutions and dense layers (arXiv 2408.12568, section 3)."""

Softmax = Literal["attnlrp", "cp", "zplus", "zplus_bias"]
SOFTMAXES: tuple[Softmax, ...] = ("attnlrp", "cp", "zplus", "zplus_bias")
"""What the softmax of attention does: AttnLRP (arXiv 2402.05602), CP-LRP (arXiv 2202.07304: no relevance through the attention
matrix), z+ without and with a virtual bias that absorbs."""


@dataclass(frozen=True)
class Recipe:
    """An attribution and how it becomes a score.

    Attributes:
        low: Rule of the first quarter of the depth.
        middle: Rule of the half between.
        high: Rule of the last quarter.
        classifier: Rule of the dense layers that classify.
        softmax: Rule of attention's softmax; without effect in networks without attention.
        magnitude: Whether relevances are summed over images (and tokens) by their magnitude, so that those near zero go first; or
            with their sign, so that the most negative go first.
        initial: Relevance of the true class to start from: ``one``, or its ``logit``.
    """

    low: Rule = "epsilon"
    middle: Rule = "epsilon"
    high: Rule = "epsilon"
    classifier: Rule = "epsilon"
    softmax: Softmax = "attnlrp"
    magnitude: bool = True
    initial: Literal["one", "logit"] = "one"

    def rule(self, group: Group) -> Rule:
        """The rule of a depth group."""
        rule: Rule = getattr(self, group)
        return rule

    def to_json(self) -> dict[str, Any]:
        """As in files."""
        return asdict(self)

    @classmethod
    def uniform(cls, rule: Rule, magnitude: bool = True) -> Recipe:
        """One rule everywhere."""
        return cls(rule, rule, rule, rule, magnitude=magnitude)
