"""Latency and throughput of forward passes at several batch sizes, and what they depend on beside the products."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Subject, Values, device_name, random_images, threads

if TYPE_CHECKING:
    import torch
    from torch import nn


class Options(Section):
    """How latency is measured."""

    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field([1, 16, 256], min_length=1)
    """Numbers of images in a forward pass: each is timed by itself."""
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
# How often a network and the dense one take turns.
TURNS = 4


def pass_times(
    network: nn.Module, images: torch.Tensor, *, seconds: float, repeats: int = 1000, warm_up: int = 10, fewest: int = FEWEST
) -> list[float]:
    """Times of forward passes in ms, after warm-up.

    On a GPU they are taken between two events on its stream, and the pass is waited for; on the CPU by the clock.

    Args:
        network: In evaluation mode, on the images' device.
        images: Float, shape (n, channels, height, width).
        seconds: No pass starts after this time, but ``fewest`` are made in any case.
        repeats: No more passes than this.
        warm_up: Passes before, no more than take ``seconds``, and at least one.
        fewest: Passes that are made in any case.
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
            return _repeat(timed, seconds, repeats, fewest=fewest)
    finally:
        if collecting:
            gc.enable()


def _repeat(timed: Callable[[], float], seconds: float, repeats: int, fewest: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < fewest or (len(times) < repeats and time.perf_counter() < end):
        times.append(timed())
    return times


def _in_turn(
    network: nn.Module, dense: nn.Module | None, images: torch.Tensor, options: Options
) -> tuple[list[float], list[float]]:
    """Times of a network and of the dense one, in ms: in turns, since a machine may be fast for a while and slow for another."""
    times: list[float] = []
    beside: list[float] = []
    turns = 1 if dense is None else TURNS
    for _ in range(turns):
        for timed, found in ((dense, beside), (network, times)):
            if timed is not None:
                found += pass_times(
                    timed,
                    images,
                    seconds=options.seconds / turns,
                    repeats=-(-options.repeats // turns),
                    warm_up=options.warm_up,
                    fewest=-(-FEWEST // turns),
                )
    return times, beside


def measure(subject: Subject) -> Values:
    """Time batches of random images of each size for ``seconds`` each; see ``EVALUATION.quantities``."""
    from prunebench.layer_times import share_in_products, traffic
    from prunebench.load import Load, gpu_use_percent

    options = Options.model_validate(dict(subject.options))
    gpu_before = gpu_use_percent(subject.device)
    network = subject.network.to(subject.device).eval()
    with threads(options.threads):
        moved = traffic(network, random_images(subject, 1))
    values: dict[str, float] = {
        "product_layers": moved.product_layers,
        "layers": moved.layers,
        "weights_bytes": moved.weights_bytes,
        "activations_bytes_per_image": moved.activations_bytes,
    }
    with threads(options.threads) as used, Load() as load:
        for size in dict.fromkeys(options.batch_sizes):
            images = random_images(subject, size)
            stem = f"latency_batch{size}"
            times, beside = _in_turn(network, subject.dense, images, options)
            if beside:
                lower, median, upper = statistics.quantiles(beside, n=4, method="inclusive")
                values |= {f"dense_{stem}_median_ms": median, f"dense_{stem}_p25_ms": lower, f"dense_{stem}_p75_ms": upper}
            lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
            values[f"{stem}_median_ms"] = median
            values[f"{stem}_p25_ms"] = lower
            values[f"{stem}_p75_ms"] = upper
            values[f"{stem}_iqr_ms"] = upper - lower
            values[f"{stem}_passes"] = len(times)
            values[f"throughput_batch{size}_images_per_s"] = 1000 * size / median
            values[f"{stem}_in_products_percent"] = share_in_products(network, images, seconds=options.seconds / 5)
    other = load.other_cores()
    values |= {"other_load_cores": other} if other is not None else {}
    values |= {"gpu_use_before_percent": gpu_before} if gpu_before is not None else {}
    labels = {
        "device": device_name(subject.device),
        "threads": str(used),
        "latency_method": "measured",
        "throughput_method": "measured",
    }
    return Values(values, labels | ({} if other is not None else {"other_load": "not known: the system does not tell"}))


EVALUATION = Evaluation(
    "latency",
    measure,
    per="architecture",
    options=Options,
    quantities={
        "latency_batch<n>_median_ms": "Median time of a forward pass of n images",
        "latency_batch<n>_p25_ms": "Lower quartile of these times",
        "latency_batch<n>_p75_ms": "Upper quartile of these times",
        "dense_latency_batch<n>_median_ms": "Median time of the dense network, timed in turns with this one; not there for itself",
        "dense_latency_batch<n>_p25_ms": "Lower quartile of these times",
        "dense_latency_batch<n>_p75_ms": "Upper quartile of these times",
        "latency_batch<n>_iqr_ms": "Distance between the quartiles of these times",
        "latency_batch<n>_passes": "Number of forward passes timed",
        "latency_batch<n>_in_products_percent": "Share of the time that convolutions, dense layers and attention take",
        "throughput_batch<n>_images_per_s": "n over the median time",
        "product_layers": "Calls of convolutions, dense layers and attention in a forward pass",
        "layers": "Calls of all layers in a forward pass",
        "weights_bytes": "Parameters and buffers",
        "activations_bytes_per_image": "What layers read and write of activations for one image",
        "other_load_cores": "Cores that other processes kept busy meanwhile; not there where the system does not tell",
        "gpu_use_before_percent": "The GPU's use by others just before; on a GPU alone",
    },
    source="Wall clock; CUDA events on a GPU",
)
