"""Adversarial attacks on images in [0, 1]: what the evaluations ``fgsm``, ``pgd`` and ``autoattack`` share.

An image counts as robust if it is classified correctly and no attack finds another image within the distance eps of it, in [0, 1],
that is not. So robust accuracy is measured from above: a better attack could only lower it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from prunebench.config import Section
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunebench.data import Split
    from prunebench.evaluation import Subject


@dataclass(frozen=True)
class Threat:
    """How far an image may be moved.

    Attributes:
        norm: ``Linf``: largest change of a value; ``L2``: Euclidean length of the change of all values.
        size: The distance as the config has it: in 1/255 for ``Linf``, as it is for ``L2``.
    """

    norm: Literal["Linf", "L2"]
    size: float

    @property
    def eps(self) -> float:
        """The distance on images in [0, 1]."""
        return self.size / 255 if self.norm == "Linf" else self.size

    @property
    def name(self) -> str:
        """As in quantities: ``linf_eps0.5_255``, ``l2_eps0.5``."""
        return f"{self.norm.lower()}_eps{self.size:g}" + ("_255" if self.norm == "Linf" else "")


class AttackOptions(Section):
    """What is attacked, and how far images may be moved."""

    images: int = Field(1000, ge=1)
    """Attacked are the first so many test images of a random order that is the same for every network; all where there are fewer."""
    linf_eps_255: list[Annotated[float, Field(gt=0, le=255)]] = Field(default=[0.5, 1, 2, 8])
    """Largest change of a value, in 1/255: 8 is the usual 8/255, at which an undefended CIFAR network classifies nothing."""
    l2_eps: list[Annotated[float, Field(gt=0)]] = Field(default=[])
    """Largest Euclidean length of the change of an image in [0, 1]; 0.5 is usual for CIFAR."""

    @model_validator(mode="after")
    def _some_and_distinct(self) -> AttackOptions:
        names = [threat.name for threat in self.threats]
        if not names or len(set(names)) < len(names):
            raise ValueError("linf_eps_255 and l2_eps with at least one distance between them, each once")
        return self

    @property
    def threats(self) -> list[Threat]:
        """All distances, in the order in which they stand in the config."""
        return [Threat("Linf", size) for size in self.linf_eps_255] + [Threat("L2", size) for size in self.l2_eps]


@dataclass(frozen=True, eq=False)
class Target:
    """A network and the images on which it is attacked.

    Attributes:
        network: A copy whose weights take no gradients, in evaluation mode.
        split: The images.
        correct: Whether the network classifies each of them correctly, bool on the CPU, shape (n,).
        device: Where to compute.
        batch_size: Images in a pass.
    """

    network: nn.Module
    split: Split
    correct: torch.Tensor
    device: torch.device
    batch_size: int

    @classmethod
    def of(cls, subject: Subject, images: int) -> Target:
        """The subject's network and so many test images.

        Raises:
            PrunebenchError: there are no images.
        """
        import torch

        from prunebench.data import some

        split = some(subject.test(), images)
        if not len(split):
            raise PrunebenchError("attacks: the test split holds no images")
        # Without gradients of weights an attack takes a third less time; the copy leaves the subject as it is for others.
        network = copy.deepcopy(subject.network).to(subject.device).eval().requires_grad_(False)
        target = cls(network, split, torch.ones(len(split), dtype=torch.bool), subject.device, subject.batch_size)
        with torch.no_grad():
            found = [right(network(x), y).cpu() for _, x, y in target.batches(target.correct)]
        return cls(network, split, torch.cat(found), subject.device, subject.batch_size)

    def batches(self, chosen: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The chosen images (bool, shape (n,)): positions (m,), images in [0, 1] (m, c, h, w) and classes (m,), batch by batch."""
        import torch

        for positions in torch.split(chosen.nonzero().flatten(), self.batch_size):
            x, y = self.load(positions)
            yield positions, x, y

    def load(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images in [0, 1] (m, c, h, w) and classes (m,) at positions (m,), on the device."""
        from prunebench.data import to_unit

        return to_unit(self.split.pixels(positions).to(self.device)), self.split.labels[positions].to(self.device)

    def percent(self, flags: torch.Tensor) -> float:
        """The share of images for which a flag (bool, shape (n,)) is set, in percent of all images."""
        return 100 * int(flags.sum()) / len(self.split)


def right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the largest logit is that of the class; logits that are not finite are wrong. (n, classes), (n,) to bool (n,)."""
    return (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)


def described(threats: Sequence[Threat]) -> str:
    """The distances for labels: ``Linf 0.5/255, L2 0.5``."""
    return ", ".join(f"{threat.norm} {threat.size:g}" + ("/255" if threat.norm == "Linf" else "") for threat in threats)
