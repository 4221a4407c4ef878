"""What a job is at, in a small file that ``prunebench watch`` reads: ``results/<suite>/.work/.progress/<job>.json``.

Stages say where they are with ``at`` and ``found``, which cost no more than an assignment; a thread writes the file. All jobs of a
suite write to one folder, so that one listing finds those at work among ten thousand. The file goes when its job succeeds, and
nothing of it enters a result.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunebench.artifacts import SCHEMA, read_json
from prunebench.errors import PrunebenchError

FOLDER = ".progress"
WRITE_SECONDS = 2.0
"""Changes are written this often at most."""
SIGN_OF_LIFE_SECONDS = 20.0
"""Without a change the file is written this often."""
LevelName = Literal["chain", "draw", "network", "step", "evaluation", "architecture", "block", "epoch", "criterion"]
LEVELS = get_args(LevelName)
"""What a job counts, from the outermost loop to the innermost."""


class Level(BaseModel):
    """A loop that a job is in: the ``number``-th of so many, from 1, and what it is called."""

    model_config = ConfigDict(frozen=True)

    level: LevelName
    number: int = Field(ge=1)
    of: int = Field(ge=1)
    name: str = ""


class Report(BaseModel):
    """Content of a progress file.

    Attributes:
        stage: The command: ``dense``, ``iterative`` ...
        work: The job's work folder, below ``.work``.
        state: ``running``; ``failed`` by an error; ``stopped`` from outside.
        at: Where it is, the outermost loop first.
        validation_accuracy: Of the network that was finished last, in percent.
        train_accuracy: Of the epoch that was finished last, in percent.
        started: Of this attempt; seconds since 1970, as ``updated``.
        alive_seconds: It is written again within so many seconds as long as the job lives.
        attempt: Number of the attempt, from 1; attempts that were killed are counted if they left their file.
        error: The message, of a job that failed.
    """

    stage: str
    work: str
    state: Literal["running", "failed", "stopped"] = "running"
    at: list[Level] = []
    validation_accuracy: float | None = None
    train_accuracy: float | None = None
    started: float
    updated: float
    alive_seconds: float
    attempt: int = 1
    host: str
    pid: int
    slurm_job: str | None = None
    error: str = ""

    @property
    def share(self) -> float:
        """Which part of the work is done, in [0, 1): what comes is taken to last as long as what was."""
        done, part = 0.0, 1.0
        for level in self.at:
            part /= level.of
            done += part * (min(level.number, level.of) - 1)
        return done


def key_of(work: Path) -> tuple[Path, str]:
    """The folder of the progress files for a work folder, and what the work folder is called there (its path below ``.work``)."""
    if ".work" in work.parts:
        root = next(parent for parent in [work, *work.parents] if parent.name == ".work")
        return root / FOLDER, work.relative_to(root).as_posix()
    return work / FOLDER, work.name


def file_of(work: Path) -> Path:
    """The progress file of the job that works in a folder."""
    folder, key = key_of(work)
    return folder / f"{key.replace('/', '.')}.json"


def read_report(path: Path) -> Report:
    """Read a progress file.

    Raises:
        PrunebenchError: it is gone, corrupt, or of another version.
    """
    try:
        return Report.model_validate(read_json(path))
    except ValidationError as error:
        raise PrunebenchError(f"{path}: {error.errors()[0]['msg']} in {error.errors()[0]['loc']}") from None


def write_report(path: Path, report: Report) -> None:
    """Write a progress file whole, or not.

    Unlike a result, it may be lost with the machine; and whoever writes it often must not list a folder that thousands share. So
    the temporary has one name for all attempts, each of which writes over what a killed one left.
    """
    text = json.dumps({"schema": SCHEMA, **report.model_dump(mode="json")}, indent=1, allow_nan=False)
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Keeper:
    """Keeps the file of a job.

    A job that times the machine (``quiet``) has no thread: it writes when it says something, between timings.
    """

    def __init__(self, work: Path, stage: str, quiet: bool, started: float | None) -> None:
        self.path = file_of(work)
        self.quiet = quiet
        now = time.time()
        self.report = Report(
            stage=stage,
            work=key_of(work)[1],
            started=now if started is None else started,
            updated=now,
            alive_seconds=3600.0 if quiet else 6 * SIGN_OF_LIFE_SECONDS,
            attempt=self._earlier() + 1,
            host=platform.node(),
            pid=os.getpid(),
            slurm_job=os.environ.get("SLURM_JOB_ID"),
        )
        self.changed = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="progress", daemon=True)

    def _earlier(self) -> int:
        try:
            return read_report(self.path).attempt
        except Exception:
            # Whatever is in the file, such as brackets without end (RecursionError), no job may fail by it.
            return 0

    def say(self, **changes: object) -> None:
        """Change the report; it is written soon."""
        # One assignment, so that the thread never sees half of it.
        self.report = self.report.model_copy(update=changes)
        self.changed = True
        if self.quiet:
            self.write()

    def write(self) -> None:
        """Write the file, or not: no job may fail, or its last words be lost, because a disk is full or a file system is away."""
        self.changed = False
        # Also what JSON has no word for: an accuracy that is no number is ValueError.
        with suppress(Exception):
            write_report(self.path, self.report.model_copy(update={"updated": time.time()}))

    def _keep(self) -> None:
        written = time.monotonic()
        while not self.ended.wait(WRITE_SECONDS):
            if self.changed or time.monotonic() - written >= SIGN_OF_LIFE_SECONDS:
                self.write()
                written = time.monotonic()

    def start(self) -> None:
        self.write()
        if not self.quiet:
            self.thread.start()

    def end(self, state: str | None = None, error: str = "") -> None:
        """Stop the thread, then remove the file, or say in it how the job ended."""
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
        if state:
            self.report = self.report.model_copy(update={"state": state, "error": error})
            self.write()
        else:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


_keeper: _Keeper | None = None


@contextmanager
def recorded(work: Path, stage: str, quiet: bool = False, started: float | None = None) -> Iterator[None]:
    """Keep a progress file as long as a job works in a folder.

    Args:
        work: The job's own work folder.
        stage: The command.
        quiet: Nothing else may run meanwhile, not even now and then, since the job times the machine.
        started: When the job began, in seconds since 1970, if it was at work in other folders before.
    """
    global _keeper
    keeper = _keeper = _Keeper(work, stage, quiet, started)
    keeper.start()
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        known = isinstance(error, PrunebenchError) and lines
        keeper.end("failed", lines[0] if known else f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
        raise
    except BaseException:
        # A signal, which ends a job by KeyboardInterrupt or SystemExit: the job is not at fault.
        keeper.end("stopped")
        raise
    else:
        keeper.end()
    finally:
        _keeper = None


def at(level: LevelName, number: int, of: int, name: str = "") -> None:
    """Say that the ``number``-th pass of a loop begins, from 1; the loops in it begin anew. Nothing happens outside of ``recorded``."""
    if _keeper is None:
        return
    outer = [each for each in _keeper.report.at if LEVELS.index(each.level) < LEVELS.index(level)]
    _keeper.say(at=[*outer, Level(level=level, number=number, of=max(of, number), name=name)])


def found(**accuracies: float) -> None:
    """Say an accuracy in percent: ``validation_accuracy`` or ``train_accuracy``."""
    if _keeper is not None:
        _keeper.say(**accuracies)


def words(levels: Sequence[Level]) -> str:
    """Where a job is, for people: ``step 3/5 blocks3, epoch 4/10``. A loop of one pass is named only if the pass has a name."""
    said = []
    for level in levels:
        counted = f"{level.level} {level.number}/{level.of}" if level.of > 1 else level.level
        if level.of > 1 or level.name:
            said.append(f"{counted} {level.name}".strip())
    return ", ".join(said)
