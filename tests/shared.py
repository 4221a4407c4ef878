"""Where the real data for checks lies: released checkpoints, golden values, CIFAR-10. Not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_data(*parts: str) -> Path:
    """A path under the folder of shared data, or skip the test when it is not there."""
    folder = Path(os.environ.get("PRUNEBENCH_SHARED", REPOSITORY.parent / "shared" / "data"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not in the folder of shared data (set PRUNEBENCH_SHARED)")
    return path
