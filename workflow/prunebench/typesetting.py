"""From LaTeX to PDF by whatever program is installed; the same source gives the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from prunebench.errors import PrunebenchError

PROGRAMS = ("latexmk", "pdflatex", "tectonic")
_SECONDS = 300


def typeset(source: Path, epoch: int) -> str:
    """Make ``<stem>.pdf`` beside a LaTeX file if a program that can is installed.

    Args:
        source: The LaTeX file; what it includes lies below its folder.
        epoch: The time that the document may say it was made at, in seconds since 1970.

    Returns:
        What was made, for people: the PDF, or the source and how to go on.

    Raises:
        PrunebenchError: LaTeX stops at an error; the message has it.
    """
    program = next((name for name in PROGRAMS if shutil.which(name)), None)
    if program is None:
        # One that was made of other results would be taken for these.
        source.with_suffix(".pdf").unlink(missing_ok=True)
        return (
            f"{source}: ready, but no PDF was made, since none of {', '.join(PROGRAMS)} is installed. On Debian and Ubuntu: "
            "sudo apt install latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
        )
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    with TemporaryDirectory() as folder:
        for command in _commands(program, source.name, folder):
            try:
                run = subprocess.run(
                    command,
                    cwd=source.parent,
                    env=environment,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    stdin=subprocess.DEVNULL,
                    timeout=_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise PrunebenchError(f"{source}: {program} was stopped after {_SECONDS} s") from None
            made = Path(folder) / f"{source.stem}.pdf"
            if run.returncode or not made.exists():
                raise PrunebenchError(f"{source}: {program} failed: {_complaint(run.stdout + run.stderr)}")
        log = Path(folder) / f"{source.stem}.log"
        if log.exists():
            shutil.copyfile(log, source.with_suffix(".log"))
        # Whole or not at all, and on the same file system.
        part = source.with_name(f".{source.stem}.part.pdf")
        shutil.copyfile(made, part)
        os.replace(part, source.with_suffix(".pdf"))
    return str(source.with_suffix(".pdf"))


def _commands(program: str, name: str, folder: str) -> list[list[str]]:
    plain = ["-interaction=nonstopmode", "-halt-on-error"]
    if program == "latexmk":
        return [["latexmk", "-pdf", "-norc", *plain, f"-outdir={folder}", name]]
    if program == "tectonic":
        return [["tectonic", "--keep-logs", "--outdir", folder, name]]
    # Thrice: longtable settles its widths in the second run and its pages in the third.
    return [["pdflatex", *plain, f"-output-directory={folder}", name]] * 3


def _complaint(text: str) -> str:
    """The first error of a log with the lines after it."""
    lines = text.splitlines()
    found = next((number for number, line in enumerate(lines) if re.match(r"!|error:", line)), max(0, len(lines) - 5))
    return " ".join(line.strip() for line in lines[found : found + 6]) or "it said nothing"
