"""``import torchvision``, also where its compiled operators do not fit the installed torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

# Operators live as long as the library that defines them.
_libraries: list[object] = []


def import_torchvision() -> ModuleType:
    """Import torchvision and return it.

    A CPU-only torch next to a torchvision built for CUDA (the one that PyPI has for Linux) cannot load torchvision's
    compiled operators, and ``import torchvision`` then fails because two of them are registered without a guard. They
    are declared here and the import is tried again: models, transforms and datasets work, a call of a missing operator
    raises. Where the plain import works, nothing else is done. Afterwards ``import torchvision`` works in all of the
    process.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _libraries:
        from torch import library as operators

        library = operators.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _libraries.append(library)
    return importlib.import_module("torchvision")
