"""Files are written whole or not at all, whatever the disk and the system do, and read with suspicion."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from prunebench import artifacts
from prunebench.errors import CorruptFile, DiskFull, PrunebenchError, lack_of_space


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


BIG = 200_000  # bytes
WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: artifacts.write_text(path, "x" * BIG),
    "csv": lambda path: artifacts.write_csv(path, ["a"], [[number] for number in range(BIG)]),
    "safetensors": lambda path: artifacts.write_atomically(path, lambda file: save_file({"a": torch.zeros(BIG)}, file)),
    "npy": lambda path: artifacts.write_atomically(path, lambda file: np.save(file, np.zeros(BIG))),
    "parquet": lambda path: artifacts.write_atomically(
        path, lambda file: pd.DataFrame({"a": np.random.default_rng(0).random(BIG)}).to_parquet(file, engine="pyarrow")
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_costs_nothing(tiny_disk: Path, kind: str) -> None:
    path = tiny_disk / f"file.{kind}"
    path.write_bytes(b"old")
    with pytest.raises(DiskFull) as error:
        WRITERS[kind](path)
    assert str(error.value).startswith(f"{path}: disk full (")
    assert "run the same command again" in str(error.value) and "\n" not in str(error.value)
    assert [found.name for found in tiny_disk.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
    artifacts.write_text(path, "new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_as_good_as_a_full_disk(tmp_path: Path, code: int) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code), str(path))

    with pytest.raises(DiskFull, match=os.strerror(code)):
        artifacts.write_atomically(tmp_path / "new" / "file.json", write)
    assert not list((tmp_path / "new").iterdir())


def test_other_failures_are_no_lack_of_space() -> None:
    for error in (OSError(errno.EACCES, "Permission denied"), ValueError("28"), OSError("os error 280"), OSError()):
        assert lack_of_space(error) is None


def test_a_killed_writers_temporary_goes_when_nobody_can_be_at_work_on_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    mine = tmp_path / ".scores.1234.csv"
    others = [tmp_path / name for name in (".scores.1234.json", ".more.scores.1.csv", "scores.1234.csv", ".scores.csv", ".lock")]
    for file in (mine, *others):
        file.write_text("half")
    artifacts.write_text(path, "a\n")
    assert mine.exists(), "another node may be at work on it"
    for file in (mine, *others):
        os.utime(file, (time.time() - 2 * artifacts.DAY,) * 2)
    artifacts.write_text(path, "a\n")
    assert not mine.exists() and all(file.exists() for file in others)
    # Who holds the folder need not wait.
    artifacts.clear_temporaries(tmp_path.rglob(".*"))
    assert {file.name for file in tmp_path.iterdir()} == {"scores.csv", "scores.1234.csv", ".scores.csv", ".lock"}


def test_writing_leaves_the_mask_of_the_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the whole process: while one thread changes it to read it, files of the others get the wrong permissions."""
    mask = os.umask(0o022)
    os.umask(mask)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "umask", lambda new: calls.append(new) or mask)
        artifacts.write_text(tmp_path / "file.json", "{}")
    assert calls == [] and (tmp_path / "file.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_temporary_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A killed job that linked a file leaves such a one; the next process may have its number."""
    kept = tmp_path / "kept.json"
    kept.write_text("kept")
    os.link(kept, tmp_path / f".file.{os.getpid()}.json")
    artifacts.write_text(tmp_path / "file.json", "new")
    assert kept.read_text() == "kept" and (tmp_path / "file.json").read_text() == "new"


TABLE = b"block,score\nstage1.block1,0.25\nstage1.block2,0.125\n"


@pytest.mark.parametrize("size", [size for size in range(len(TABLE)) if TABLE[:size][-1:] != b"\n"])
def test_a_table_cut_within_a_line_is_corrupt(tmp_path: Path, size: int) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(TABLE[:size])
    with pytest.raises(CorruptFile) as error:
        artifacts.read_csv(path, ["block", "score"])
    assert error.value.path == path and str(path) in str(error.value)


@pytest.mark.parametrize(
    "damage", [b"\x00" * 60, b"\xff\xfe", b"block,score\n\x00,\x001\n", b"block,score\n1\n", b"block,score\n1,2,3\n"]
)
def test_other_damage_of_a_table_is_corrupt_too(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(damage)
    with pytest.raises(CorruptFile):
        artifacts.read_csv(path, ["block", "score"])


def test_every_truncation_of_a_json_file_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    artifacts.write_json(path, {"a": [1, 2.5], "b": "ä"})
    whole = path.read_bytes()
    for size in range(len(whole.rstrip())):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptFile) as error:
            artifacts.read_json(path)
        assert error.value.path == path


def test_a_file_is_set_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("half")
    assert artifacts.set_aside(path) == artifacts.set_aside(path) == tmp_path / "scores.csv.corrupt"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv.corrupt"]
    # One that was damaged in the same way may be a link to the same file.
    os.link(tmp_path / "scores.csv.corrupt", path)
    artifacts.set_aside(path)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv.corrupt"]
    # A retry by the cluster finds it missing, and its log is the one that is read.
    with pytest.raises(PrunebenchError, match=r"no such file, since it was set aside as scores\.csv\.corrupt: run the workflow"):
        artifacts.read_csv(path, [])
    with pytest.raises(PrunebenchError, match=r"no such file$"):
        artifacts.read_csv(tmp_path / "other.csv", [])
