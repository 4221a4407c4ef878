"""Attacks that follow the gradient of the cross-entropy: FGSM and PGD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from prunebench.attacks import Target, Threat, right
from prunebench.seeds import derive


def loss_gradient(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, classes), and the gradient of each image's cross-entropy (n, c, h, w)."""
    with torch.enable_grad():
        moved = images.detach().requires_grad_()
        logits = network(moved)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        [gradient] = torch.autograd.grad(loss, [moved])
    return logits.detach(), gradient


def direction(gradient: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The step of length 1 along which a linear loss grows most; 0 where the gradient is. Same shape."""
    if threat.norm == "Linf":
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    unit: torch.Tensor = gradient / length.view(-1, *[1] * (gradient.ndim - 1))
    return unit


def project(moved: torch.Tensor, images: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The images in [0, 1] within the distance that are nearest to the moved ones, coordinate by coordinate in [0, 1]."""
    change = moved - images
    if threat.norm == "Linf":
        change = change.clamp(-threat.eps, threat.eps)
    else:
        length = change.flatten(1).norm(dim=1).clamp_min(threat.eps)
        change = change * (threat.eps / length).view(-1, *[1] * (change.ndim - 1))
    # Cutting off at 0 and 1 moves every value towards the original image, hence never out of the distance.
    return (images + change).clamp(0, 1)


def random_start(images: torch.Tensor, positions: torch.Tensor, threat: Threat, seed: int) -> torch.Tensor:
    """Images moved at random: uniformly in the cube (Linf), or by the whole distance in a uniform direction (L2).

    In hundreds of dimensions nearly all of a ball is next to its surface, so that this is as good as uniform in the ball. Each image
    has a generator of its own, by its position: what is drawn for it does not depend on which others are attacked with it.
    """
    noise = torch.empty(images.shape)
    for each, position in zip(noise, positions.tolist(), strict=True):
        generator = torch.Generator().manual_seed(derive(seed, "start", position))
        if threat.norm == "Linf":
            each.uniform_(-threat.eps, threat.eps, generator=generator)
        else:
            each.normal_(generator=generator)
    noise = noise.to(images.device)
    return project(images + (noise if threat.norm == "Linf" else threat.eps * direction(noise, threat)), images, threat)


def fgsm(target: Target, threats: Sequence[Threat]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Which images stand one step of the whole distance along the gradient's sign (L2: along the gradient).

    Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572.

    Returns:
        For each threat, which images are correct before and after; and those that have no gradient, as ``without_gradient``
        finds them. All bool on the CPU, shape (n,).
    """
    stands = [target.correct.clone() for _ in threats]
    silent = torch.zeros_like(target.correct)
    for positions, images, labels in target.batches(target.correct):
        # One gradient does for all distances.
        _, gradient = loss_gradient(target.network, images, labels)
        silent[positions] = _is_zero(gradient)
        for threat, flags in zip(threats, stands, strict=True):
            moved = project(images + threat.eps * direction(gradient, threat), images, threat)
            with torch.no_grad():
                flags[positions] = right(target.network(moved), labels).cpu()
    return stands, silent


def pgd(target: Target, threat: Threat, *, steps: int, step_size: float, restarts: int, seed: int) -> torch.Tensor:
    """Which images stand projected gradient ascent on the cross-entropy from random starts.

    Madry et al. 2018, https://arxiv.org/abs/1706.06083. An image drops out with the first point that is misclassified, the start
    included; going on could not bring it back.

    Args:
        target: Network and images.
        threat: The distance.
        steps: Steps from each start.
        step_size: Length of a step, on images in [0, 1].
        restarts: Number of starts.
        seed: What the starts are drawn by.

    Returns:
        bool on the CPU, shape (n,): correct before, at every start and after every step.
    """
    stands = target.correct.clone()
    for restart in range(restarts):
        for positions, images, labels in target.batches(stands):
            moved = random_start(images, positions, threat, derive(seed, threat.name, restart))
            for step in range(steps + 1):
                if step < steps:
                    logits, gradient = loss_gradient(target.network, moved, labels)
                else:
                    with torch.no_grad():
                        logits = target.network(moved)
                left = right(logits, labels)
                stands[positions] = left.cpu()
                if step == steps or not left.any():
                    break
                positions, images, labels, moved, gradient = (
                    each[left.to(each.device)] for each in (positions, images, labels, moved, gradient)
                )
                moved = project(moved + step_size * direction(gradient, threat), images, threat)
    return stands


def without_gradient(target: Target) -> torch.Tensor:
    """Images that are classified correctly and on which the gradient of the cross-entropy is zero in every value: bool, shape (n,).

    Where that is so, attacks by this gradient do not move, and say nothing.
    """
    found = torch.zeros_like(target.correct)
    for positions, images, labels in target.batches(target.correct):
        _, gradient = loss_gradient(target.network, images, labels)
        found[positions] = _is_zero(gradient)
    return found


def _is_zero(gradient: torch.Tensor) -> torch.Tensor:
    return (gradient.flatten(1) == 0).all(dim=1).cpu()
