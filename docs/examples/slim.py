"""A rival that makes blocks narrower: the channels of a block's first convolution with the smallest l1 norm go (Li et al. 2017).

Usage: slim.py DENSE_FOLDER OUT_FOLDER OPERATING_POINT. No fine-tuning, to keep the example short.
"""

import re
import sys
from pathlib import Path

import torch

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture
from prunebench.models.files import build, load_architecture, load_weights, save_network
from prunebench.surgery import flops_reduction


def slim(architecture, weights, keep):
    """The network with a part `keep` of the channels between the two convolutions of every block."""
    hidden, state = {}, dict(weights)
    for block in architecture.blocks:
        norms = weights[f"{block}.conv1.weight"].abs().sum(dim=(1, 2, 3))
        kept = norms.topk(max(1, round(keep * len(norms)))).indices.sort().values
        hidden[block] = len(kept)
        for name in ["conv1.weight", *(f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]:
            state[f"{block}.{name}"] = weights[f"{block}.{name}"][kept]
        state[f"{block}.conv2.weight"] = weights[f"{block}.conv2.weight"][:, kept]
    options = {**architecture.options, "hidden_channels": hidden}
    smaller = Architecture(architecture.model, architecture.input_shape, architecture.classes, architecture.blocks, options)
    return smaller, state


def target(point, dense):
    """Reduction in percent that an operating point of the suite stands for: blocks3, flops54_6."""
    kind, number = re.fullmatch(r"(blocks|flops)([\d_]+)", point).groups()
    value = float(number.replace("_", "."))
    removable = [block for block in dense.blocks if not block.endswith("block0")]
    return value if kind == "flops" else flops_reduction(dense.without(removable[: int(value)]), dense)


def main():
    """Write the widest network that reaches the operating point."""
    dense_folder, out, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    dense, weights = load_architecture(dense_folder), load_weights(dense_folder)
    for keep in torch.linspace(1, 0, 65).tolist():
        smaller, state = slim(dense, weights, keep)
        if flops_reduction(smaller, dense) >= target(point, dense):
            network = build(smaller)
            network.load_state_dict(state)
            save_network(out, network, smaller)
            return
    sys.exit(f"slim: {point} is out of reach")


try:
    main()
except PrunebenchError as error:
    sys.exit(f"slim: {error}")
