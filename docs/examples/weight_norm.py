"""A criterion in one file: blocks whose last convolution has small weights go first.

Name it in a config by its path: `criteria: [cka, docs/examples/weight_norm.py]`.
"""

from prunebench.criteria import Criterion


def score(probe):
    """One number for each of probe.blocks, in their order."""
    blocks = dict(probe.network.named_blocks())
    return [blocks[name].conv2.weight.abs().mean().item() for name in probe.blocks]


WEIGHT_NORM = Criterion("weight_norm", score, removes="lowest", source="mean absolute weight of the last convolution")
