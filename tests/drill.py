"""A clone to run suites in, and the tables that have to come out the same whatever happened on the way."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
from pathlib import Path

from shared import REPOSITORY

# What is measured differs from run to run.
MEASURED = {"measured", "provenance", "cost", "scoring_cost", "energy", "speedup", "bottleneck"}
# What a stranger would write for the test cluster, whose nodes have 16,000 MB each.
SITE = """
account: lab
cpu: {partition: cpu, max_mem_mb: 16000}
gpu: {partition: gpu, max_mem_mb: 16000}
"""


def environment(**further: str) -> dict[str, str]:
    # As when the virtual environment is active: rules call `python`.
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), **further}


def make_clone(folder: Path) -> Path:
    """What a clone has, with the one file that a site edits."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "workflow", "config", "envs", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "slurm", folder / "slurm")
    (folder / "slurm/site.yaml").write_text(SITE, encoding="utf-8")
    return folder


def tables(folder: Path, suite: str = "drill") -> dict[str, bytes]:
    found = {path.stem: path.read_bytes() for path in (folder / "results" / suite / "tables").glob("*.csv")}
    assert {"results", "scores", "removals", "accuracy"} <= found.keys()
    return {name: content for name, content in found.items() if name not in MEASURED}


def free_port(count: int) -> int:
    """A port that is free, as are those after it; below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        try:
            for number in range(port, port + count):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue
