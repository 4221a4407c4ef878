"""Robust accuracy under FGSM, one step along the gradient: quick, and weak."""

from __future__ import annotations

from prunebench.attacks import AttackOptions, Target, described
from prunebench.evaluation import Evaluation, Subject, Values


def measure(subject: Subject) -> Values:
    """Attack at each distance; see ``EVALUATION.quantities``."""
    from prunebench.attacks.gradient import fgsm

    options = AttackOptions.model_validate(dict(subject.options))
    target = Target.of(subject, options.images)
    values = {"clean_accuracy_percent": target.percent(target.correct)}
    stands, silent = fgsm(target, options.threats)
    for threat, flags in zip(options.threats, stands, strict=True):
        values[f"robust_accuracy_{threat.name}_percent"] = target.percent(flags)
    values["zero_gradient_percent"] = target.percent(silent)
    values["unreliable"] = float(values["zero_gradient_percent"] > 0)
    values["images"] = len(target.split)
    return Values(values, {"attack": "FGSM, own implementation", "distances": described(options.threats)})


EVALUATION = Evaluation(
    "fgsm",
    measure,
    needs_data=True,
    options=AttackOptions,
    quantities={
        "robust_accuracy_linf_eps<n>_255_percent": "Attacked images that are classified correctly before and after the attack",
        "robust_accuracy_l2_eps<n>_percent": "The same for a change of that Euclidean length",
        "clean_accuracy_percent": "Accuracy on the attacked images without attack",
        "zero_gradient_percent": "Attacked images that are classified correctly and have no gradient at all: the attack does not move them",
        "unreliable": "1 if there are such images, else 0",
        "images": "Number of attacked images",
    },
    source="Goodfellow et al. 2015",
)
