"""Robust accuracy under AutoAttack, the standard ensemble of APGD-CE, targeted APGD, targeted FAB and Square."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from prunebench.attacks import AttackOptions, Target, described
from prunebench.evaluation import Evaluation, Subject, Values

if TYPE_CHECKING:
    from prunebench.data import Dataset

FEWEST_CLASSES = 4


class Options(AttackOptions):
    """How images are attacked. Of AutoAttack itself nothing can be set: that is its point."""

    batch_size: int = Field(250, ge=1)
    """Images that are attacked together. Random numbers are drawn batch by batch, so results depend on it a little."""


def unsuited(dataset: Dataset) -> str | None:
    """Datasets of fewer than four classes: the targeted DLR loss compares four logits."""
    if dataset.classes >= FEWEST_CLASSES:
        return None
    return f"its targeted DLR loss needs {FEWEST_CLASSES} classes, {dataset.name} has {dataset.classes}; take pgd"


def measure(subject: Subject) -> Values:
    """Attack at each distance; see ``EVALUATION.quantities``.

    Raises:
        PrunebenchError: the dataset has fewer than four classes, or an attack leaves the distance.
    """
    from prunebench.attacks.standard import ATTACKS, IMPLEMENTATION, autoattack

    options = Options.model_validate(dict(subject.options))
    target = replace(Target.of(subject, options.images), batch_size=options.batch_size)
    values = {"clean_accuracy_percent": target.percent(target.correct)}
    reasons = {}
    for threat in options.threats:
        kept = None if subject.work is None else subject.work / f"{threat.name}.json"
        outcome = autoattack(target, threat, seed=subject.seed, classes=subject.classes, kept=kept)
        for attack in ATTACKS[:-1]:
            values[f"robust_after_{attack.replace('-', '_')}_{threat.name}_percent"] = target.percent(outcome.after[attack])
        values[f"robust_accuracy_{threat.name}_percent"] = target.percent(outcome.stands)
        values[f"unreliable_{threat.name}"] = float(bool(outcome.reasons))
        reasons[described([threat])] = "; ".join(outcome.reasons)
    values["unreliable"] = float(any(reasons.values()))
    values["images"] = len(target.split)
    targets = min(9, subject.classes - 1)
    return Values(
        values,
        {
            "attack": f"AutoAttack standard ({', '.join(ATTACKS)})" + (f", {targets} target classes" if targets < 9 else ""),
            "implementation": IMPLEMENTATION,
            "distances": described(options.threats),
            "unreliable_reasons": "; ".join(f"{where}: {why}" for where, why in reasons.items() if why) or "no sign of it",
        },
    )


EVALUATION = Evaluation(
    "autoattack",
    measure,
    needs_data=True,
    options=Options,
    unsuited=unsuited,
    quantities={
        "robust_accuracy_linf_eps<n>_255_percent": "Attacked images that are classified correctly before and after all four attacks",
        "robust_accuracy_l2_eps<n>_percent": "The same for a change of that Euclidean length",
        "robust_after_apgd_ce_<distance>_percent": "Of these, what the first attack leaves: APGD on the cross-entropy",
        "robust_after_apgd_t_<distance>_percent": "What it and APGD on the targeted DLR loss leave",
        "robust_after_fab_t_<distance>_percent": "What these and targeted FAB leave; Square comes last",
        "clean_accuracy_percent": "Accuracy on the attacked images without attack",
        "unreliable_<distance>": "1 if AutoAttack's checks say that robustness may be overestimated, else 0",
        "unreliable": "1 if that is so at any distance, else 0",
        "images": "Number of attacked images",
    },
    source="Croce and Hein 2020, by pyautoattack",
)
