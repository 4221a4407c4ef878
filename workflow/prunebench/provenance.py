"""Where a result comes from: config, seed, versions, hardware, commit, time."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("prunebench", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "fvcore", "codecarbon", "snakemake")


def provenance(config_sha256: str, seed: int | None) -> dict[str, Any]:
    """The ``provenance`` object of ``docs/data-contracts.md``.

    Imports nothing heavy: versions are read from the installed packages' metadata, and GPUs are named only if torch is already there.

    Args:
        config_sha256: Digest of the config that the result depends on.
        seed: The seed it was made with, or None if nothing in it is random.
    """
    return {
        "config_sha256": config_sha256,
        "seed": seed,
        "versions": versions(),
        "hardware": hardware(),
        "commit": commit_of(Path(__file__)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among ``PACKAGES``."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        # A package that is not installed has no part in the result.
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    torch = sys.modules.get("torch")
    if torch is not None:
        # It says which build (CPU, CUDA 12.8) it is, which the metadata may not.
        found["torch"] = str(torch.__version__)
    return found


def hardware() -> dict[str, Any]:
    """``cpu``, ``logical_cores``, ``memory_gib``, ``gpus`` (names) and ``platform``."""
    torch = sys.modules.get("torch")
    gpus: list[str] = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_model(),
        "logical_cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
        "platform": platform.platform(),
    }


@cache
def cpu_model() -> str:
    """The processor's name from ``/proc/cpuinfo``, else what Python knows of it, which may be nothing but its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def commit_of(file: Path) -> str:
    """The commit that a source file was checked out from.

    Returns:
        40 hexadecimal digits, with ``-dirty`` if a tracked file of the checkout was changed; ``unknown`` if the file is not tracked by
        git (an installed package may lie inside somebody else's repository), or git is absent or does not answer within 5 s.
    """
    # GIT_DIR and the like, as set in hooks, would point to another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # Jobs side by side must not wait for, or break, each other's index lock.
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments],
            cwd=file.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        commit = git("rev-parse", "--verify", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"
