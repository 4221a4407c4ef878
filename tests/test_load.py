"""The load of other work beside a measurement, and where the time of a forward pass goes."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from prunebench import load
from prunebench.layer_times import layers, share_in_products, traffic
from prunebench.load import Load

BUSY = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(100))


def test_a_busy_process_of_others_is_seen() -> None:
    # The child of a process that has ended is no child of this one: another job.
    subprocess.run(["sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 &', sys.executable, BUSY.format(1.5)], check=True)
    time.sleep(0.3)
    with Load() as watched:
        time.sleep(0.8)
    cores = watched.other_cores()
    assert cores is not None
    # The machine may be so full that it has less than a core.
    assert cores > load.CROWDED_CORES
    # It does not change when the watch is over.
    assert watched.other_cores() == cores


class Machine:
    """CPU times as psutil tells them, of a machine and of the process, in the place of the real ones."""

    def __init__(self) -> None:
        self.user, self.others, self.steal, self.own, self.children, self.wall = 100.0, 50.0, 2.0, 7.0, 1.0, 0.0

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = self

        class Process:
            def children(self, recursive: bool) -> list[Any]:
                return []

            def cpu_times(self) -> SimpleNamespace:
                ended = {"children_user": machine.children, "children_system": 0.0}
                return SimpleNamespace(user=machine.own, system=0.0, **ended)

        def cpu_times() -> SimpleNamespace:
            user = machine.user + machine.others + machine.own + machine.children
            return SimpleNamespace(user=user, system=0.0, idle=1e6, iowait=1e5, guest=9.0, steal=machine.steal)

        monkeypatch.setattr(psutil, "Process", Process)
        monkeypatch.setattr(psutil, "cpu_times", cpu_times)
        monkeypatch.setattr(load.time, "perf_counter", lambda: machine.wall)


def test_own_work_and_that_of_ended_children_is_not_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.patch(monkeypatch)
    with Load() as watched:
        machine.own, machine.children, machine.wall = machine.own + 3.0, machine.children + 2.0, 4.0
    assert watched.other_cores() == pytest.approx(0)
    with Load() as watched:
        machine.own, machine.others, machine.steal, machine.wall = machine.own + 3.0, 54.0, 4.0, 8.0
    assert watched.other_cores() == pytest.approx((4 + 2) / 4)


def test_own_work_of_this_process_is_not_of_others() -> None:
    # In truth, and not by a stand-in: the machine's clock minus one's own is less than the machine's clock.
    start = load._busy_seconds()
    with Load() as watched:
        own = -time.process_time()
        busy(0.5)
        own += time.process_time()
    cores, machine = watched.other_cores(), load._busy_seconds() - start
    assert cores is not None
    # A full machine may give this process little of the time; half of it is more than the clocks' ticks.
    assert cores * 0.5 <= machine - own / 2


def test_a_system_that_counts_nothing_is_not_called_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_busy_seconds", lambda: 0.0)
    with Load() as watched:
        busy(0.1)
    assert watched.other_cores() is None


def test_too_short_a_time_says_nothing() -> None:
    with Load() as watched:
        pass
    assert watched.other_cores() is None
    assert Load().other_cores() is None


def test_use_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    assert load.gpu_use_percent(torch.device("cpu")) is None
    monkeypatch.setattr("prunebench.energy_meter.nvml_index", lambda device: [3] if device == "cuda:1" else None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: f"handle {index}")
    did: list[Any] = []

    def use(handle: str) -> SimpleNamespace:
        did.append("read")
        return SimpleNamespace(gpu={"handle 3": 42}[handle])

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", use)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: did.append(str(device)))
    monkeypatch.setattr(load.time, "sleep", did.append)
    assert load.gpu_use_percent(torch.device("cuda:1")) == 42
    # Work of one's own before is over, and NVML, which looks back for up to a second, has forgotten it.
    assert did[0] == "cuda:1" and did[2] == "read" and did[1] >= 1.5
    did.clear()
    assert load.gpu_use_percent(torch.device("cuda:0")) is None
    assert load.gpu_use_percent(torch.device("cpu")) is None
    assert did == [], "nothing to wait for"

    def fail(handle: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", fail)
    assert load.gpu_use_percent(torch.device("cuda:1")) is None


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return images


class SlowConvolution(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return super().forward(images)


def test_share_of_time_in_products() -> None:
    shared = Slow(0.005)
    network = nn.Sequential(SlowConvolution(1, 1, 1), shared, shared, nn.Flatten()).eval()
    share = share_in_products(network, torch.zeros(2, 1, 2, 2), seconds=0.2)
    # 30 of 40 ms; a full machine lets both wait.
    assert 55 < share < 90
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert share_in_products(nn.Sequential(shared), torch.zeros(1, 1, 2, 2), seconds=0) == 0


def test_traffic_of_a_known_network() -> None:
    convolution = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    relu = nn.ReLU()
    network = nn.Sequential(convolution, nn.BatchNorm2d(5), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2), relu)
    found = traffic(network.eval(), torch.zeros(1, 3, 4, 4))
    image, channels = 3 * 16, 5 * 16
    moved = (image + channels) + 4 * channels + (channels + 5) + (5 + 5) + (5 + 2) + (2 + 2)
    assert found.product_layers == 2
    assert found.layers == 7
    assert found.activations_bytes == 4 * moved
    # Statistics of batch norm are buffers: their count is a whole number of 8 bytes.
    assert found.weights_bytes == 4 * (3 * 5 * 9 + 4 * 5 + 5 * 2 + 2) + 8
    assert len(layers(network)) == 6


def test_attention_is_one_layer() -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert sum(isinstance(layer, nn.MultiheadAttention) for layer in layers(network)) == 1
    assert not any(type(layer).__name__ == "NonDynamicallyQuantizableLinear" for layer in layers(network))
