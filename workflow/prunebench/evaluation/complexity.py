"""Multiply-accumulates and parameters, counted with fvcore."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, Values

if TYPE_CHECKING:
    from torch import nn

# Operators without products of activations with weights or with each other: data movement, element-wise functions, normalisation,
# pooling, reductions. fvcore passes over some more of them by itself and lists these as unsupported.
_HARMLESS_NAMES = """
abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add add_ alias all
amax amin any argmax argmin as_strided avg_pool1d avg_pool2d avg_pool3d batch_norm broadcast_tensors ceil celu
channel_shuffle clamp_max clamp_min clone cos cumsum div div_ dropout_ elu elu_ embedding empty_like erf exp expand_as
feature_dropout fill_ flip floor_divide_ gelu gelu_ glu grid_sampler group_norm hardsigmoid hardsigmoid_ hardswish
hardswish_ hardtanh hardtanh_ index_add index_select instance_norm isfinite isnan layer_norm le leaky_relu leaky_relu_
lift_fresh log log_softmax logical_and logical_not logical_or lt masked_fill_ max_pool1d max_pool2d max_pool2d_with_indices
max_pool3d maximum mean meshgrid min minimum mish mish_ movedim mul mul_ ne neg new_ones new_tensor norm numpy_T ones_like
pad pixel_shuffle pixel_unshuffle pow prelu rand rand_like randn reciprocal reflection_pad1d reflection_pad2d relu6 relu6_
repeat repeat_interleave replication_pad2d reshape_as rms_norm rrelu rsqrt rsub scalar_tensor scatter selu selu_ sigmoid
sigmoid_ sign silu silu_ sin softmax softplus sqrt square squeeze_ std sub sub_ sum swapaxes tanh tanh_ tensor tensor_split
threshold threshold_ tile topk tril triu true_divide unflatten unfold upsample_bicubic2d upsample_bilinear2d
upsample_nearest1d upsample_nearest2d upsample_trilinear3d var var_mean view_as where zero_ linalg_vector_norm numel
"""
HARMLESS = frozenset(f"aten::{name}" for name in _HARMLESS_NAMES.split())


def _shape(value: Any) -> list[int]:
    from fvcore.nn.jit_handles import get_shape

    shape = get_shape(value)
    if shape is None:
        raise PrunebenchError("complexity: torch did not record the shapes of a product, so it cannot be counted")
    return list(shape)


def _product(left: int) -> Callable[[Sequence[Any], Sequence[Any]], Counter[str]]:
    """Counts a matrix product: elements of the result times the length of the dimension that is summed over.

    Args:
        left: Position of the left factor among the operator's inputs; the sum runs over its last dimension.
    """

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        return Counter({"products": math.prod(_shape(outputs[0])) * _shape(inputs[left])[-1]})

    return count


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Q K^T and A V for query (..., L, D), key (..., S, D) and value (..., S, E): L S D + L S E for each image and head."""
    query, key, value = (_shape(each) for each in inputs[:3])
    return Counter({"products": math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])})


def _same_convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """A convolution with padding "same" or "valid": elements of the result times the size of one filter."""
    return Counter({"products": math.prod(_shape(outputs[0])) * math.prod(_shape(inputs[1])[1:])})


def count_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of a network: those of all its modules in ``macs_by_module``, which see."""
    return macs_by_module(network, input_shape)[""]


def macs_by_module(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Multiply-accumulates of convolutions, dense layers and attention products in one forward pass of one image.

    Biases, normalisation, pooling and element-wise functions are not counted. The network itself is left as it is.

    Args:
        network: Takes images of shape (1, *input_shape).
        input_shape: (channels, height, width).

    Returns:
        Name of each module to what is done in it and below it; the empty name is that of the network.

    Raises:
        PrunebenchError: the network runs an operator that may hold products and that cannot be counted; the message names it.
    """
    import torch

    with _quiet():
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import conv_flop_jit, einsum_flop_jit

    copied = copy.deepcopy(network).cpu().eval()
    dtype = next((parameter.dtype for parameter in copied.parameters()), torch.float32)
    image = torch.zeros(1, *input_shape, dtype=dtype)
    analysis = FlopCountAnalysis(copied, image)
    # fvcore counts normalisation and the like by default: only what is named here goes into the sum.
    analysis.clear_op_handles()
    analysis.set_op_handle(
        **{f"aten::{name}": _product(0) for name in ("bmm", "dot", "linear", "matmul", "mm", "mv")},
        **{f"aten::{name}": _product(1) for name in ("addmm", "addmv", "baddbmm")},
        **{"aten::_convolution": conv_flop_jit, "aten::_convolution_mode": _same_convolution},
        **{"aten::einsum": einsum_flop_jit},
        **{"aten::scaled_dot_product_attention": _attention},
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad(), _traceable(), _quiet():
        counted = analysis.by_module()
        unknown = sorted(set(analysis.unsupported_ops()) - HARMLESS)
    if unknown:
        raise PrunebenchError(
            f"complexity: cannot count {', '.join(unknown)} in {type(network).__name__}; if the operator holds no products, add it to "
            "HARMLESS in prunebench/evaluation/complexity.py, else give it a counter there"
        )
    return {name: round(float(macs)) for name, macs in counted.items()}


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Attention layers run operator by operator: their fused inference path would hide all products from the trace."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warning of fvcore's or of torch's tracer: what they warn of is either harmless or refused."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def count_parameters(network: nn.Module) -> int:
    """Number of parameters: weights and biases, those of batch norm too, but no buffers. A shared parameter counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


_DENSE: MutableMapping[nn.Module, tuple[int, int]] = WeakKeyDictionary()


def measure(subject: Subject) -> Values:
    """Count the network and, if it is given, the dense one; see ``EVALUATION.quantities``."""
    macs, parameters = count_macs(subject.network, subject.input_shape), count_parameters(subject.network)
    values: dict[str, float] = {"macs": macs, "parameters": parameters}
    if subject.dense is not None:
        # The dense network is the same for all networks of a job.
        if subject.dense not in _DENSE:
            _DENSE[subject.dense] = count_macs(subject.dense, subject.input_shape), count_parameters(subject.dense)
        dense_macs, dense_parameters = _DENSE[subject.dense]
        values["dense_macs"] = dense_macs
        values["dense_parameters"] = dense_parameters
        values["flops_reduction_percent"] = 100 * (1 - macs / dense_macs)
        values["parameters_reduction_percent"] = 100 * (1 - parameters / dense_parameters)
    return Values(values)


EVALUATION = Evaluation(
    "complexity",
    measure,
    per="network",
    weights_matter=False,
    quantities={
        "macs": "Multiply-accumulates of convolutions, dense layers and attention products for one image",
        "parameters": "Weights and biases",
        "dense_macs": "The same of the unpruned network",
        "dense_parameters": "The same of the unpruned network",
        "flops_reduction_percent": "100 (1 - macs / dense_macs)",
        "parameters_reduction_percent": "100 (1 - parameters / dense_parameters)",
    },
    source="fvcore FlopCountAnalysis",
)
