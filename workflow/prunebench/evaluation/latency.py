"""Latency of a forward pass for one image and for a large batch."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Subject, Values, device_name, random_images, threads

if TYPE_CHECKING:
    import torch
    from torch import nn


class Options(Section):
    """How latency is measured."""

    batch_size: int = Field(256, ge=1)
    """The large batch, beside batch 1."""
    seconds: float = Field(1.0, gt=0)
    """Time spent on each batch size, after warm-up."""
    repeats: int = Field(1000, ge=5)
    """No more passes than this."""
    warm_up: int = Field(10, ge=1)
    """Passes before, no more than take `seconds`."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; by default all cores that the job may use."""


# Fewer would make no quartiles.
FEWEST = 5


def pass_times(
    network: nn.Module, images: torch.Tensor, *, seconds: float, repeats: int = 1000, warm_up: int = 10
) -> list[float]:
    """Times of forward passes in ms, after warm-up.

    On a GPU they are taken between two events on its stream, and the pass is waited for; on the CPU by the clock.

    Args:
        network: In evaluation mode, on the images' device.
        images: Float, shape (n, channels, height, width).
        seconds: No pass starts after this time, but five are made in any case.
        repeats: No more passes than this.
        warm_up: Passes before, no more than take ``seconds``, and at least one.
    """
    import torch

    def timed_on_gpu() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        network(images)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def timed_on_cpu() -> float:
        start = time.perf_counter()
        network(images)
        return 1000 * (time.perf_counter() - start)

    on_gpu = images.device.type == "cuda"
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode(), torch.cuda.device(images.device) if on_gpu else contextlib.nullcontext():
            timed = timed_on_gpu if on_gpu else timed_on_cpu
            _repeat(timed, seconds, warm_up, fewest=1)
            return _repeat(timed, seconds, repeats, fewest=FEWEST)
    finally:
        if collecting:
            gc.enable()


def _repeat(timed: Callable[[], float], seconds: float, repeats: int, fewest: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < fewest or (len(times) < repeats and time.perf_counter() < end):
        times.append(timed())
    return times


def measure(subject: Subject) -> Values:
    """Time batches of 1 and of ``batch_size`` random images for ``seconds`` each; see ``EVALUATION.quantities``."""
    options = Options.model_validate(dict(subject.options))
    network = subject.network.to(subject.device).eval()
    values: dict[str, float] = {}
    with threads(options.threads) as used:
        for size in dict.fromkeys((1, options.batch_size)):
            times = pass_times(
                network,
                random_images(subject, size),
                seconds=options.seconds,
                repeats=options.repeats,
                warm_up=options.warm_up,
            )
            lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
            values[f"latency_batch{size}_median_ms"] = median
            values[f"latency_batch{size}_iqr_ms"] = upper - lower
            values[f"latency_batch{size}_passes"] = len(times)
            values["throughput_images_per_s"] = 1000 * size / median
    values["throughput_batch_size"] = options.batch_size
    return Values(values, {"device": device_name(subject.device), "threads": str(used), "latency_method": "measured"})


EVALUATION = Evaluation(
    "latency",
    measure,
    per="architecture",
    options=Options,
    quantities={
        "latency_batch<n>_median_ms": "Median time of a forward pass of n images",
        "latency_batch<n>_iqr_ms": "Distance between the quartiles of these times",
        "latency_batch<n>_passes": "Number of forward passes timed",
        "throughput_images_per_s": "Images in the large batch over its median time",
        "throughput_batch_size": "Images in the large batch",
    },
    source="Wall clock; CUDA events on a GPU",
)
