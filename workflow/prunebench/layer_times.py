"""Where the time of a forward pass goes, and how much a network moves: what tells why fewer products are not always less time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PRODUCTS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)


@dataclass(frozen=True)
class Traffic:
    """What one forward pass of one image touches.

    Attributes:
        product_layers: Calls of convolutions, dense layers and attention: as many as wait for each other, unless branches are parallel.
        layers: Calls of all layers: modules without modules in them, and attention.
        weights_bytes: Parameters and buffers, each once.
        activations_bytes: What layers read and write, summed over their calls. What is added or joined between layers is not in it.
    """

    product_layers: int
    layers: int
    weights_bytes: int
    activations_bytes: int


def layers(network: nn.Module) -> list[nn.Module]:
    """The modules that compute: those without modules in them, and attention as a whole."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        children = list(module.children())
        if isinstance(module, PRODUCTS) or not children:
            found.append(module)
        else:
            for child in children:
                visit(child)

    visit(network)
    # A module that is used at several places is one object, hooked once and called more than once.
    return list(dict.fromkeys(found))


@contextmanager
def _hooked(network: nn.Module, before: Callable[..., None] | None, after: Callable[..., None]) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for module in layers(network):
            if before is not None:
                handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def traffic(network: nn.Module, image: torch.Tensor) -> Traffic:
    """Count in one forward pass; the network is left as it is.

    Args:
        network: In evaluation mode, on the image's device.
        image: Float, shape (1, channels, height, width).
    """
    counted = {"products": 0, "layers": 0, "bytes": 0}

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        counted["products"] += isinstance(module, PRODUCTS)
        counted["layers"] += 1
        counted["bytes"] += _bytes(inputs) + _bytes(output)

    with torch.inference_mode(), _hooked(network, None, after):
        network(image)
    weights = _bytes([*network.parameters(), *network.buffers()])
    return Traffic(counted["products"], counted["layers"], weights, counted["bytes"])


def share_in_products(network: nn.Module, images: torch.Tensor, *, seconds: float, fewest: int = 3) -> float:
    """Percentage of a forward pass's time that convolutions, dense layers and attention take; the rest is normalisation, activations,
    additions and the calls themselves.

    The clocks in the hooks cost some microseconds for each layer, which count as time between layers. On a GPU the time is that on its
    stream, between events.

    Args:
        network: In evaluation mode, on the images' device.
        images: Float, shape (n, channels, height, width).
        seconds: No pass starts after this time, but ``fewest`` are made in any case, after one to warm up.
        fewest: No fewer passes than this.
    """
    on_gpu = images.device.type == "cuda"
    stamp: Callable[[], Any] = _event if on_gpu else time.perf_counter
    span: Callable[[Any, Any], float] = _event_span if on_gpu else _clock_span
    starts: dict[nn.Module, Any] = {}
    spans: list[tuple[Any, Any]] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        starts[module] = stamp()

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        end = stamp()
        if isinstance(module, PRODUCTS):
            spans.append((starts[module], end))

    in_products = whole = 0.0
    with torch.inference_mode(), _hooked(network, before, after):
        network(images)
        end, passes = time.perf_counter() + seconds, 0
        while passes < fewest or time.perf_counter() < end:
            spans.clear()
            first = stamp()
            network(images)
            last = stamp()
            whole += span(first, last)
            in_products += sum(span(*pair) for pair in spans)
            passes += 1
    return 100 * in_products / whole


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _event_span(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    end.synchronize()
    return float(start.elapsed_time(end))


def _clock_span(start: float, end: float) -> float:
    return end - start


def _bytes(value: Any) -> int:
    """Bytes of the tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0
