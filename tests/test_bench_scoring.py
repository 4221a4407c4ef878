"""The tool behind `make bench`: what it measures, and that a mistake is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import architecture, random_network
from prunebench.models.files import save_network
from test_repository import load_tool

FEW = ["cka", "wasserstein", "five", "l1_norm", "loss_increase"]
SMALL = ["--images", "40", "--repeats", "1", "--only", *FEW]


@pytest.fixture
def tool() -> Any:
    """With one thread, which it sets for the whole process."""
    before = torch.get_num_threads()
    yield load_tool("bench_scoring")
    torch.set_num_threads(before)


def test_the_table_and_the_file_hold_the_same_ratios(tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert tool.main([*SMALL, "--model", "resnet20", "--threads", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["candidates"], found["images"], found["threads"]) == (6, 40, 1)
    assert found["sweep_passes"] == pytest.approx(1 + (7 + 6 + 4 + 3 + 1 + 0) / 9)
    assert set(found["plain_seconds_by_batch_size"]) == {"40"}
    assert set(found["scoring"]) == set(FEW)
    table = capsys.readouterr().out
    for name, cost in found["scoring"].items():
        assert cost["ratio"] == pytest.approx(cost["seconds"] / found["plain_seconds"])
        if name != "five":
            assert re.search(rf"\| `{name}` \| {cost['seconds']:.2f} \| {cost['ratio']:.1f} \|", table)
    assert f"All eight metrics together add {found['peak_memory_mib']:.0f} MiB" in table
    # A sweep is work; what looks at weights alone is next to none.
    assert found["scoring"]["loss_increase"]["ratio"] > 1 > found["scoring"]["l1_norm"]["ratio"]
    assert found["provenance"]["hardware"]["cpu"] in table


def test_a_saved_network_is_measured_on_images_of_its_shape(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = architecture("resnet20", (1, 8, 8)).without(["stage2.block1"])
    save_network(tmp_path / "network", random_network(wanted), wanted)
    assert tool.main([str(tmp_path / "network"), *SMALL, "--threads", "1"]) == 0
    assert "resnet20 from a file, 4 candidates, 40 images (random_pixels)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images"),
        (["nowhere"], "nowhere/architecture.json: no such file"),
        (["--model", "resnet21"], "'resnet21' is not a known model"),
        (["--model", "resnet20", "--dataset", "digits"], "--dataset digits"),
    ],
)
def test_a_mistake_is_named(tool: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([*arguments, "--threads", "1"]) == 1
    assert message in capsys.readouterr().err
