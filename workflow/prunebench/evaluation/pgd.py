"""Robust accuracy under PGD, repeated steps along the gradient from random starts."""

from __future__ import annotations

from pydantic import Field

from prunebench.attacks import AttackOptions, Target, Threat, described
from prunebench.evaluation import Evaluation, Subject, Values

# Within half of the range of values every image can become the same grey: no classifier can be better than chance.
UNBOUNDED = Threat("Linf", 127.5)


class Options(AttackOptions):
    """How images are attacked."""

    steps: int = Field(20, ge=1)
    """Steps from each start."""
    relative_step: float = Field(2.5, gt=0)
    """Length of a step in eps / steps."""
    restarts: int = Field(1, ge=1)
    """Random starts; an image that any of them leads to another class is not robust."""


def measure(subject: Subject) -> Values:
    """Attack at each distance, and once without a bound that matters; see ``EVALUATION.quantities``."""
    from prunebench.attacks.gradient import pgd, without_gradient

    options = Options.model_validate(dict(subject.options))
    target = Target.of(subject, options.images)

    def robust(threat: Threat) -> float:
        step_size = options.relative_step * threat.eps / options.steps
        stands = pgd(target, threat, steps=options.steps, step_size=step_size, restarts=options.restarts, seed=subject.seed)
        return target.percent(stands)

    values = {"clean_accuracy_percent": target.percent(target.correct)}
    for threat in options.threats:
        values[f"robust_accuracy_{threat.name}_percent"] = robust(threat)
    values["unbounded_robust_accuracy_percent"] = robust(UNBOUNDED)
    values["zero_gradient_percent"] = target.percent(without_gradient(target))
    reasons = []
    if values["zero_gradient_percent"] > 0:
        reasons.append("zero gradients")
    if values["unbounded_robust_accuracy_percent"] > 100 / subject.classes:
        reasons.append("better than chance where every image can become grey")
    values["unreliable"] = float(bool(reasons))
    values["images"] = len(target.split)
    return Values(
        values,
        {
            "attack": f"PGD-{options.steps} on the cross-entropy, own implementation",
            "restarts": str(options.restarts),
            "relative_step": f"{options.relative_step:g}",
            "distances": described(options.threats),
            "unreliable_reasons": "; ".join(reasons) or "no sign of it",
        },
    )


EVALUATION = Evaluation(
    "pgd",
    measure,
    needs_data=True,
    options=Options,
    quantities={
        "robust_accuracy_linf_eps<n>_255_percent": "Attacked images that are classified correctly before and throughout the attack",
        "robust_accuracy_l2_eps<n>_percent": "The same for a change of that Euclidean length",
        "clean_accuracy_percent": "Accuracy on the attacked images without attack",
        "unbounded_robust_accuracy_percent": "The same at 127.5/255, within which every image can become the same grey",
        "zero_gradient_percent": "Attacked images that are classified correctly and have no gradient at all: the attack does not move them",
        "unreliable": "1 if there are such images, or the accuracy without a bound is above that of chance, else 0",
        "images": "Number of attacked images",
    },
    source="Madry et al. 2018",
)
