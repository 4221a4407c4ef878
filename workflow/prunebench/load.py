"""What else ran while something was measured: the cores that other processes kept busy, and a GPU's use before the start."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

CROWDED_CORES = 0.2
"""Other processes that keep more of a core busy than this, on average, are more than an idle system's daemons."""
CROWDED_GPU_PERCENT = 5.0
"""A GPU that was in use for more of the time than this before a measurement has other work to do."""
TICK_SECONDS = 0.02
"""The system counts CPU time in ticks of 10 ms: over less than two of them there is nothing to tell."""

GPU_SETTLE_SECONDS = 1.5
"""NVML's use of a GPU is of the last moment, which it says lasts a sixth of a second to a second."""


@dataclass(frozen=True)
class _Clock:
    """CPU seconds since some moment: of the whole machine, of this process and its children, of the wall."""

    machine: float
    own: float
    wall: float


class Load:
    """Counts the cores that other processes keep busy while it is entered.

    Example:
        >>> with Load() as load:
        ...     measure()
        >>> load.other_cores()  # 0.03

    The whole machine counts (in a container too): work on other cores shares caches, memory and the power budget. Time that a
    hypervisor gave to other machines (steal) counts as other work.
    """

    def __init__(self) -> None:
        self._start: _Clock | None = None
        self._end: _Clock | None = None

    def __enter__(self) -> Self:
        self._start, self._end = _now(), None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end = _now()

    def other_cores(self) -> float | None:
        """Mean number of cores that were kept busy by what is not this process or its children; None where it cannot be told."""
        if self._start is None:
            return None
        end = self._end or _now()
        seconds = end.wall - self._start.wall
        machine, own = end.machine - self._start.machine, end.own - self._start.own
        # A machine that counts no time at all, though this process worked, does not tell (some containers).
        if seconds < TICK_SECONDS or (machine == 0 and own > TICK_SECONDS):
            return None
        # The two clocks tick apart, so that a machine without other work may come out a little below zero.
        return max(0.0, machine - own) / seconds


def _now() -> _Clock:
    import psutil

    own = sum(_cpu_seconds(process) for process in _family(psutil.Process()))
    return _Clock(_busy_seconds(), own, time.perf_counter())


def _busy_seconds() -> float:
    """CPU seconds of the whole machine, guests' included once."""
    import psutil

    times = psutil.cpu_times()
    # A guest's time is in that of the user already, and waiting for a disk is not work.
    names = ("user", "nice", "system", "irq", "softirq", "steal", "interrupt", "dpc")
    return float(sum(getattr(times, name, 0.0) for name in names))


def _family(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process, and of those of its children that have ended."""
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended since
        return 0.0
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended)


def gpu_use_percent(device: object) -> float | None:
    """Share of the last moment in which a CUDA device had work, as NVML counts it; None for another device, or where NVML does not say.

    To be asked before the work of one's own starts: NVML does not say whose it is. What this process did before, an architecture
    measured earlier say, is waited for, and then for as long as NVML looks back.
    """
    from prunebench.energy_meter import nvml_index

    index = nvml_index(str(device))
    if not index:
        return None
    import pynvml
    import torch

    torch.cuda.synchronize(str(device))
    time.sleep(GPU_SETTLE_SECONDS)
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(index[0])).gpu)
    except pynvml.NVMLError:
        return None
