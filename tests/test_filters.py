"""Filter pruning after layer pruning: which filters go, and how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import architecture, images, random_network
from prunebench.errors import PrunebenchError
from prunebench.evaluation.complexity import count_macs
from prunebench.filters import narrow, prune_filters, with_widths
from prunebench.models import Architecture, Model
from prunebench.models.files import build, load_network, save_network
from prunebench.surgery import flops_reduction


@pytest.mark.parametrize("options", [{}, {"keras_compatible": True}])
@pytest.mark.parametrize("reduction", [1.0, 20.0, 45.0, 80.0])
def test_the_smallest_share_that_reaches_the_reduction_goes(options: dict[str, Any], reduction: float) -> None:
    wanted = architecture("resnet20", (3, 16, 16), **options).without(["stage1.block1", "stage3.block2"])
    narrower, described = narrow(random_network(wanted), wanted, reduction)
    reached = 100 * (1 - count_macs(narrower, (3, 16, 16)) / count_macs(build(wanted), (3, 16, 16)))
    assert reached == pytest.approx(flops_reduction(described, wanted))
    assert reached >= reduction - 0.01
    widths = described.options["hidden_channels"]
    assert list(widths) == list(wanted.blocks)
    # The widest layers, of 64 filters, tell the share; a share of one step less does not reach it.
    lost = 64 - widths["stage3.block1"] - 1
    dense = {1: 16, 2: 32, 3: 64}
    wider = {name: -(-dense[int(name[5])] * (64 - lost) // 64) for name in widths}
    assert flops_reduction(with_widths(wanted, wider), wanted) < reduction - 0.01


def test_filters_of_least_norm_go_and_the_others_keep_their_order_and_their_weights() -> None:
    wanted = architecture("resnet20", (3, 16, 16))
    network = random_network(wanted)
    described = narrow(network, wanted, 30.0)[1]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    narrower = narrow(network, wanted, 30.0)[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    after = narrower.state_dict()
    for block, width in described.options["hidden_channels"].items():
        norms = before[f"{block}.conv1.weight"].abs().sum((1, 2, 3))
        kept = norms.topk(width).indices.sort().values
        assert torch.equal(after[f"{block}.conv1.weight"], before[f"{block}.conv1.weight"][kept])
        assert torch.equal(after[f"{block}.bn1.running_var"], before[f"{block}.bn1.running_var"][kept])
        assert torch.equal(after[f"{block}.conv2.weight"], before[f"{block}.conv2.weight"][:, kept])
        assert torch.equal(after[f"{block}.bn2.weight"], before[f"{block}.bn2.weight"])


def test_the_narrower_network_computes_what_the_old_one_does_with_those_filters_silenced() -> None:
    wanted = architecture("resnet20", (3, 16, 16), keras_compatible=True)
    network = random_network(wanted)
    widths = {name: max(1, block.conv1.out_channels // 2) for name, block in network.named_blocks()}
    narrower = prune_filters(network, widths, wanted.input_shape)
    for name, block in network.named_blocks():
        gone = block.conv1.weight.abs().sum((1, 2, 3)).argsort()[: block.conv1.out_channels - widths[name]]
        with torch.no_grad():  # what follows the ReLU of these filters is zero
            block.bn1.weight[gone] = 0
            block.bn1.bias[gone] = 0
    pictures = images(5, (3, 16, 16))
    with torch.no_grad():
        assert torch.allclose(narrower(pictures), network(pictures), rtol=1e-4, atol=1e-4)


def test_it_is_saved_and_loaded_like_any_network(tmp_path: Path) -> None:
    wanted = architecture("resnet20").without(["stage2.block1"])
    narrower, described = narrow(random_network(wanted), wanted, 25.0)
    save_network(tmp_path, narrower, described)
    again = load_network(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(images(3)), narrower(images(3)))


def test_a_reduction_out_of_reach_is_refused() -> None:
    wanted = architecture("resnet20")
    with pytest.raises(PrunebenchError, match=r"filters can take at most 9.* %.*98 % are asked for.*flops_reduction"):
        narrow(random_network(wanted), wanted, 98.0)


def test_a_model_that_cannot_be_narrower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stiff = Model("stiff", list, lambda architecture: torch.nn.Identity(), lambda architecture: 1)
    monkeypatch.setattr("prunebench.filters.find_model", lambda name: stiff)
    with pytest.raises(PrunebenchError, match="stiff: its blocks cannot be made narrower"):
        narrow(torch.nn.Identity(), Architecture("stiff", (1, 8, 8), 10, ()), 10.0)
