"""Evaluations: known answers, and what is measured has the right shape; no test depends on how fast the machine is."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunebench.config import Accounting
from prunebench.data import Split
from prunebench.energy_meter import Energy
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, Values, find_evaluation, threads
from prunebench.evaluation.accuracy import classify
from prunebench.evaluation.complexity import count_macs, count_parameters
from prunebench.reporting import collect

CPU = torch.device("cpu")


class OnePixel:
    """Images of one pixel each."""

    def __init__(self, pixels: list[int], labels: list[int]) -> None:
        self._pixels = torch.tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
        self.labels = torch.tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        return self._pixels[positions]


def one_pixel(pixels: list[int], labels: list[int]) -> Split:
    """A split of images of one pixel each, from their brightness (0 to 255) and their classes."""
    return cast(Split, OnePixel(pixels, labels))


class Brightness(nn.Module):
    """Class 1 if the pixel is brighter than ``limit`` (in [0, 1]), else class 0; the margin is the difference of logits."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        margin = images.flatten() - self.limit
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def subject(network: nn.Module, input_shape: tuple[int, int, int] = (1, 1, 1), **others: Any) -> Subject:
    split = others.pop("split", None)
    return Subject(network.eval(), input_shape, 2, lambda: split, CPU, **others)


SPLIT = one_pixel([0, 100, 200, 255, 255], [0, 0, 1, 1, 0])


def test_accuracy_is_counted() -> None:
    evaluation = find_evaluation("accuracy")
    result = evaluation.measure(subject(Brightness(0.5), split=SPLIT, unfinetuned=Brightness(-1.0), batch_size=2))
    assert result.values["accuracy_percent"] == 80.0
    assert result.values["accuracy_before_fine_tuning_percent"] == 40.0
    assert result.values["test_images"] == 5
    assert evaluation.needs_data
    assert evaluation.per == "network"


def test_cross_entropy_is_the_mean_over_images() -> None:
    result = find_evaluation("accuracy").measure(subject(Brightness(0.5), split=SPLIT, batch_size=2))
    margins = [pixel / 255 - 0.5 for pixel in (0, 100, 200, 255, 255)]
    signs = [-1, -1, 1, 1, -1]
    expected = sum(math.log1p(math.exp(-sign * margin)) for sign, margin in zip(signs, margins, strict=True)) / 5
    assert result.values["cross_entropy_nats"] == pytest.approx(expected, rel=1e-6)
    assert "accuracy_before_fine_tuning_percent" not in result.values


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_accuracy_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    correct, cross_entropy = classify(Brightness(0.5), SPLIT, CPU, batch_size)
    assert correct == 4
    assert cross_entropy == pytest.approx(classify(Brightness(0.5), SPLIT, CPU, 5)[1], rel=1e-9)


def test_diverged_network_has_no_correct_image() -> None:
    result = find_evaluation("accuracy").measure(subject(Brightness(math.nan), split=SPLIT))
    assert result.values["accuracy_percent"] == 0.0
    assert "cross_entropy_nats" not in result.values
    assert "diverged" in result.labels["cross_entropy"]


def test_empty_test_split_is_refused() -> None:
    with pytest.raises(PrunebenchError, match="no images"):
        classify(Brightness(0.5), one_pixel([], []), CPU, 10)


class Attention(nn.Module):
    """Two products of attention over the pixels of an image, without weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        if self.how == "fused":
            return functional.scaled_dot_product_attention(tokens, tokens, tokens)
        if self.how == "einsum":
            weights = torch.einsum("bld,bsd->bls", tokens, tokens).softmax(dim=-1)
            return torch.einsum("bls,bsd->bld", weights, tokens)
        return torch.matmul(torch.matmul(tokens, tokens.transpose(1, 2)).softmax(dim=-1), tokens)


class SelfAttention(nn.Module):
    """torch's own attention layer over the pixels of an image."""

    def __init__(self, channels: int, weights: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.weights = weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        result: torch.Tensor = self.layer(tokens, tokens, tokens, need_weights=self.weights)[0]
        return result


class Broadcast(nn.Module):
    """A batch of matrices times one matrix, either way round."""

    def __init__(self, left: bool) -> None:
        super().__init__()
        self.left = left
        self.matrix = nn.Parameter(torch.ones(5, 5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.matmul(self.matrix, images) if self.left else torch.matmul(images, self.matrix)


def known_answers() -> dict[str, tuple[nn.Module, tuple[int, int, int], int]]:
    """Network, input shape and multiply-accumulates by hand."""
    # Attention over 16 tokens of 6 numbers: 16 * 16 * 6 for the weights and as much for their use.
    attention = 2 * 16 * 16 * 6
    # In and out projection of 4 matrices 6 x 6, applied to 16 tokens.
    projections = 4 * 6 * 6 * 16
    return {
        "convolution": (nn.Conv2d(3, 8, 3, padding=1), (3, 5, 7), 3 * 8 * 9 * 5 * 7),
        "strided": (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), (3, 6, 6), 3 * 8 * 9 * 3 * 3),
        "grouped": (nn.Conv2d(6, 6, 3, groups=6), (6, 5, 5), 6 * 9 * 3 * 3),
        "same": (nn.Conv2d(3, 8, 3, padding="same"), (3, 5, 7), 3 * 8 * 9 * 5 * 7),
        "transposed": (nn.ConvTranspose2d(3, 8, 2, stride=2), (3, 5, 5), 3 * 8 * 4 * 5 * 5),
        "dense": (nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), (3, 2, 2), 12 * 7),
        "normalised": (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            (3, 4, 4),
            3 * 4 * 16,
        ),
        "nothing": (nn.Sequential(nn.GELU(), nn.LayerNorm(4), nn.MaxPool2d(2)), (3, 4, 4), 0),
        "matmul": (Attention("matmul"), (6, 4, 4), attention),
        "einsum": (Attention("einsum"), (6, 4, 4), attention),
        "fused": (Attention("fused"), (6, 4, 4), attention),
        "self-attention": (SelfAttention(6, weights=False), (6, 4, 4), attention + projections),
        "self-attention with weights": (SelfAttention(6, weights=True), (6, 4, 4), attention + projections),
        "encoder": (
            nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 10, batch_first=True)),
            (6, 4, 4),
            2 * 6 * 6 * 16 + 4 * 16 * 16 * 6 + 2 * 16 * 10 * 6,
        ),
        "one matrix, many on the right": (Broadcast(left=True), (3, 5, 4), 3 * 5 * 5 * 4),
        "one matrix, many on the left": (Broadcast(left=False), (3, 4, 5), 3 * 4 * 5 * 5),
    }


@pytest.mark.parametrize("case", known_answers())
def test_macs_by_hand(case: str) -> None:
    network, input_shape, expected = known_answers()[case]
    assert count_macs(network, input_shape) == expected


@pytest.mark.parametrize("case", known_answers())
def test_macs_are_half_of_what_torch_counts(case: str) -> None:
    network, input_shape, _ = known_answers()[case]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, *input_shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert counter.get_total_flops() == 2 * count_macs(network, input_shape)


class Recurrent(nn.Module):
    """Products inside one operator that has no counter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 4, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(images.flatten(1, 2))[0]
        return result


def test_products_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(PrunebenchError, match=r"aten::lstm.*Recurrent"):
        count_macs(Recurrent(), (2, 3, 4))


def test_counting_leaves_the_network_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.SiLU()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_macs(network, (3, 8, 8))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_parameters_are_weights_and_biases_and_no_buffers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(10, 2, bias=False))
    assert count_parameters(network) == (3 * 4 * 9 + 4) + (4 + 4) + 20


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(5, 5)
    assert count_parameters(nn.Sequential(layer, layer)) == 30
    assert count_macs(nn.Sequential(layer, layer), (1, 1, 5)) == 50


def test_reductions_are_relative_to_the_dense_network() -> None:
    dense = nn.Sequential(*(nn.Conv2d(2, 2, 1, bias=False) for _ in range(4)))
    evaluation = find_evaluation("complexity")
    result = evaluation.measure(subject(dense[:3], (2, 3, 3), dense=dense))
    assert result.values == {
        "macs": 108,
        "parameters": 12,
        "dense_macs": 144,
        "dense_parameters": 16,
        "flops_reduction_percent": 25.0,
        "parameters_reduction_percent": 25.0,
    }
    assert set(result.values) == set(evaluation.quantities)
    alone = evaluation.measure(subject(dense, (2, 3, 3)))
    assert alone.values == {"macs": 144, "parameters": 16}


class Calls(nn.Module):
    """Notes the batches that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.threads: set[int] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        self.threads.add(torch.get_num_threads())
        return images.flatten(1)


def test_latency_times_batches_of_each_size() -> None:
    network = Calls()
    options = {"batch_sizes": [1, 8], "seconds": 60.0, "repeats": 7, "warm_up": 2, "threads": 1}
    evaluation = find_evaluation("latency")
    # The times of layers are taken apart from those of the passes.
    with mock.patch("prunebench.layer_times.share_in_products", return_value=12.5):
        result = evaluation.measure(subject(network, (3, 4, 4), options=options))
    # The first pass counts layers.
    assert [len(images) for images in network.seen] == [1] + 9 * [1] + 9 * [8]
    assert all(float(images.min()) >= 0 and float(images.max()) <= 1 for images in network.seen)
    assert not any(images.requires_grad for images in network.seen)
    values = result.values
    assert values["latency_batch1_passes"] == values["latency_batch8_passes"] == 7
    for size in (1, 8):
        stem = f"latency_batch{size}"
        assert 0 < values[f"{stem}_p25_ms"] <= values[f"{stem}_median_ms"] <= values[f"{stem}_p75_ms"]
        assert values[f"{stem}_iqr_ms"] == pytest.approx(values[f"{stem}_p75_ms"] - values[f"{stem}_p25_ms"])
        assert values[f"throughput_batch{size}_images_per_s"] == pytest.approx(1000 * size / values[f"{stem}_median_ms"])
        assert collect._method(f"throughput_batch{size}_images_per_s", result.labels) == "measured"
        assert values[f"{stem}_in_products_percent"] == 12.5
    assert {re.sub(r"batch\d+", "batch<n>", name) for name in values} <= set(evaluation.quantities)
    assert values.get("other_load_cores", 0.0) >= 0  # too short a time tells nothing
    assert result.labels["threads"] == "1"
    assert network.threads == {1}
    assert evaluation.per == "architecture"


def test_latency_of_the_dense_network_is_taken_in_turns() -> None:
    order: list[str] = []

    class Named(Calls):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            order.append(self.name)
            return super().forward(images)

    options = {"batch_sizes": [2], "seconds": 60.0, "repeats": 8, "warm_up": 1, "threads": 1}
    with mock.patch("prunebench.layer_times.share_in_products", return_value=12.5):
        result = find_evaluation("latency").measure(subject(Named("pruned"), (1, 2, 2), dense=Named("dense"), options=options))
    # Behind the pass that counts layers: four turns of a pass to warm up and two that are timed, the dense network first.
    assert order[1:] == 4 * (3 * ["dense"] + 3 * ["pruned"])
    assert result.values["latency_batch2_passes"] == 8
    assert 0 < result.values["dense_latency_batch2_p25_ms"] <= result.values["dense_latency_batch2_median_ms"]
    assert {re.sub(r"batch\d+", "batch<n>", name) for name in result.values} <= set(find_evaluation("latency").quantities)


def test_latency_has_enough_passes_for_quartiles_however_little_time_there_is() -> None:
    options = {"batch_sizes": [1], "seconds": 1e-9, "threads": 1}
    network = Calls()
    result = find_evaluation("latency").measure(subject(network, (1, 2, 2), options=options))
    assert result.values["latency_batch1_passes"] == 5
    # One counts layers, one warms up; the share of products takes one to warm up and three.
    assert len(network.seen) == 1 + 1 + 5 + 1 + 3


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1) as used:
        assert used == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads(None) as used:
        assert used >= 1


ACCOUNTING = Accounting(cpu_power_watts=50.0, carbon_intensity_g_per_kwh=500.0)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [((0.9, 0.1), 0.9), ((0.1, 0.9), 0.9), ((None, 0.1), 0.1), ((0.9, None), None), ((None, None), None)],
)
def test_load_while_idling_is_not_averaged_away(
    cores: tuple[float | None, float | None], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunebench import load

    found = iter(cores)

    class Told(load.Load):
        def __init__(self) -> None:
            self.told = next(found)

        def other_cores(self) -> float | None:
            return self.told

    monkeypatch.setattr(load, "Load", Told)
    options = {"batch_size": 4, "seconds": 0.1, "idle_seconds": 0.1, "threads": 1}
    result = find_evaluation("energy").measure(subject(Calls(), (1, 2, 2), options=options, accounting=ACCOUNTING))
    assert result.values.get("other_load_cores") == expected
    assert ("other_load" in result.labels) == (expected is None)


def test_a_short_measurement_does_not_hold_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunebench.evaluation import energy

    times: list[float] = []

    def repeat(work: Any, seconds: float) -> int:
        times.append(seconds)
        return 1

    monkeypatch.setattr(energy, "repeat", repeat)
    for seconds in (0.2, 60.0):
        options = {"batch_size": 4, "seconds": seconds, "idle_seconds": 0.1, "threads": 1}
        find_evaluation("energy").measure(subject(Calls(), (1, 2, 2), options=options, accounting=ACCOUNTING))
    # codecarbon may count what is shorter than 50 ms in the next lap.
    assert times == [0.1, 0.2, 3.0, 60.0]


def test_energy_of_inference() -> None:
    network = Calls()
    options = {"batch_size": 4, "seconds": 0.3, "idle_seconds": 0.1, "threads": 1}
    evaluation = find_evaluation("energy")
    result = evaluation.measure(subject(network, (1, 2, 2), options=options, accounting=ACCOUNTING))
    values = result.values
    assert set(values) | {"gpu_use_before_percent"} == set(evaluation.quantities)
    # Some passes before the measurement.
    assert 0 < values["inference_images_measured"] < 4 * len(network.seen)
    assert values["inference_seconds_measured"] >= 0.3
    gross = values["inference_gross_energy_joules_per_image"]
    parts = [values[f"inference_{part}_energy_joules_per_image"] for part in ("cpu", "gpu", "ram")]
    assert gross == pytest.approx(sum(parts))
    assert gross >= values["inference_net_energy_joules_per_image"] > 0
    # 500 g/kWh are 500e6 / 3.6e6 micrograms per joule.
    for kind in ("net", "gross"):
        emissions = values[f"inference_{kind}_emissions_ug_per_image"]
        assert emissions == pytest.approx(values[f"inference_{kind}_energy_joules_per_image"] * 500 / 3.6)
    power = gross * values["inference_images_measured"] / values["inference_seconds_measured"]
    assert values["inference_power_watts"] == pytest.approx(power)
    assert result.labels["energy_method"] in ("measured", "estimated")
    assert "500 g CO2e/kWh; PUE 1" in result.labels["energy_source"]
    if result.labels["energy_method"] == "estimated":
        assert values["idle_power_watts"] == 0
        assert gross == values["inference_net_energy_joules_per_image"]
        assert "CPU: 0 by construction" in result.labels["idle"]


class Counters:
    """A meter whose processor draws 10 W idle and 30 W at work, as counters would tell, with 2 W of memory from a model."""

    counters = frozenset({"cpu"})

    def __init__(self, *arguments: object, **named: object) -> None:
        self.alone = named["alone"]
        self.laps = 0

    def __enter__(self) -> Counters:
        return self

    def __exit__(self, *error: object) -> None: ...

    def lap(self) -> Energy:
        """Laps: what was before, idling of 1 s, warm-up, work of 2 s."""
        self.laps += 1
        seconds, watts = {2: (1.0, 10.0), 4: (2.0, 30.0)}.get(self.laps, (5.0, 1000.0))
        cpu, ram = seconds * watts / 3.6e6, seconds * 2.0 / 3.6e6
        return Energy(cpu + ram, (cpu + ram) * 0.36, seconds, cpu, 0.0, ram, "estimated", "CPU: RAPL counters")


def test_idle_power_is_taken_off_what_counters_count() -> None:
    options = {"batch_size": 4, "seconds": 0.01, "idle_seconds": 1.0, "threads": 1}
    with mock.patch("prunebench.energy_meter.EnergyMeter", Counters), mock.patch("time.sleep") as sleep:
        result = find_evaluation("energy").measure(subject(Calls(), (1, 2, 2), options=options))
    values, images = result.values, result.values["inference_images_measured"]
    sleep.assert_called_once_with(1.0)
    assert values["idle_power_watts"] == pytest.approx(10)
    assert values["inference_power_watts"] == pytest.approx(32)
    assert values["inference_gross_energy_joules_per_image"] * images == pytest.approx(64)
    assert values["inference_net_energy_joules_per_image"] * images == pytest.approx(44)
    # 360 g/kWh are 100 micrograms per joule.
    assert values["inference_net_emissions_ug_per_image"] * images == pytest.approx(4400)
    assert result.labels["idle"] == "1 s by the same counters"


def test_no_more_idle_power_is_taken_off_than_counters_saw() -> None:
    class Lazy(Counters):
        def lap(self) -> Energy:
            self.laps += 1
            return super().lap() if self.laps < 4 else Energy(4 / 3.6e6, 1e-6, 2.0, 0.0, 0.0, 4 / 3.6e6)

    options = {"batch_size": 4, "seconds": 0.01, "idle_seconds": 1.0, "threads": 1}
    with mock.patch("prunebench.energy_meter.EnergyMeter", Lazy), mock.patch("time.sleep"):
        values = find_evaluation("energy").measure(subject(Calls(), (1, 2, 2), options=options)).values
    assert values["inference_net_energy_joules_per_image"] * values["inference_images_measured"] == pytest.approx(4)


def test_energy_in_an_unknown_country_is_refused() -> None:
    options = {"batch_size": 1, "seconds": 0.01, "threads": 1}
    accounting = Accounting(country_iso_code="XYZ")
    with pytest.raises(PrunebenchError, match="XYZ"):
        find_evaluation("energy").measure(subject(Calls(), (1, 2, 2), options=options, accounting=accounting))


@pytest.mark.parametrize("value", [math.nan, math.inf, "3", True, None])
def test_values_must_be_finite_numbers(value: Any) -> None:
    with pytest.raises(PrunebenchError, match="robustness_percent"):
        Values({"robustness_percent": value})


def test_labels_must_be_strings() -> None:
    with pytest.raises(PrunebenchError, match="attack"):
        Values({"robustness_percent": 1.0}, {"attack": 3})  # type: ignore[dict-item]


def test_an_evaluation_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "sparsity.py"
    path.write_text(
        "from prunebench.evaluation import Evaluation, Values\n\n"
        "def measure(subject):\n"
        "    zeros = sum(int((p == 0).sum()) for p in subject.network.parameters())\n"
        "    return Values({'zero_parameters': zeros})\n\n"
        "EVALUATION = Evaluation('sparsity', measure)\n"
    )
    evaluation = find_evaluation(str(path))
    assert isinstance(evaluation, Evaluation)
    assert evaluation.measure(subject(Brightness(0.0))).values == {"zero_parameters": 1}


def test_definitions_import_no_heavy_package() -> None:
    script = (
        "import sys\nfrom prunebench.evaluation import find_evaluation\n"
        "for name in ('accuracy', 'complexity', 'latency', 'energy'):\n    assert find_evaluation(name).name == name\n"
        "print([name for name in ('torch', 'torchvision', 'fvcore', 'codecarbon', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
