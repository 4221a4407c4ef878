"""The errors that a user is meant to see: one line each."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path


class PrunebenchError(Exception):
    """A mistake in the input that the user can mend.

    The message names the file, key or option at fault and what to do. The command line prints it without a traceback.
    """


class CorruptFile(PrunebenchError):
    """A file that no job can have written like this: truncated, overwritten, or at odds with the file that vouches for it.

    Attributes:
        path: The file. The command line sets it aside if it is a result, so that it is made again.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: corrupt, {problem}")
        self.path = path


class DiskFull(PrunebenchError):
    """A file could not be written for lack of space. What was there before is still there."""

    def __init__(self, path: object, reason: object) -> None:
        super().__init__(
            f"{path}: disk full ({reason}): free space, such as results/<suite>/.work of a suite that is done, "
            "and run the same command again"
        )


_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries that write by themselves put it in words: safetensors as Rust does, numpy by counts without any reason.
_IN_WORDS = re.compile(
    "|".join([*(rf"os error {code}\b|{os.strerror(code)}" for code in _FULL), r"\d+ requested and \d+ written"])
)


def lack_of_space(error: BaseException) -> str | None:
    """Why an error came, if it came since the disk or the quota is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return os.strerror(error.errno)
    return str(error) if _IN_WORDS.search(str(error)) else None
