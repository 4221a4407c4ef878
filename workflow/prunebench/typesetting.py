"""From LaTeX to PDF by whatever program is installed; the same source gives the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from prunebench.errors import PrunebenchError

SOURCE = "main.tex"
PROGRAMS = ("latexmk", "pdflatex", "tectonic")
_SECONDS = 300


def epoch_line(epoch: int) -> str:
    """The line of a LaTeX file that says which time its PDF may say that it was made at, in seconds since 1970."""
    return f"% SOURCE_DATE_EPOCH={epoch}"


def typeset(folder: Path) -> str:
    """Make ``main.pdf`` of ``main.tex`` if a program that can is installed, unless it is newer than all that it is made of.

    Args:
        folder: It holds the LaTeX file, and below it lies what that includes.

    Returns:
        What was made, for people: the PDF, or the source and how to go on.

    Raises:
        PrunebenchError: there is no LaTeX file, or LaTeX stops at an error; the message has it. The source stays, and no PDF of another
            source is left beside it.
    """
    source = folder / SOURCE
    if not source.is_file():
        raise PrunebenchError(f"{source}: no such file; write it with `snakemake paper`")
    pdf = source.with_suffix(".pdf")
    inputs = [source, *(path for path in (folder / "figures").glob("*") if path.is_file())]
    if pdf.exists() and pdf.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in inputs):
        return str(pdf)
    # One that was made of other results would be taken for these.
    pdf.unlink(missing_ok=True)
    program = next((name for name in PROGRAMS if shutil.which(name)), None)
    if program is None:
        return (
            f"{source}: ready, but no PDF was made, since none of {', '.join(PROGRAMS)} is installed. On Debian and Ubuntu: "
            "sudo apt install latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
        )
    found = re.search(r"^% SOURCE_DATE_EPOCH=(\d+)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": found[1] if found else "0", "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    start = time.time_ns()
    with TemporaryDirectory() as work:
        for command in _commands(program, source.name, work):
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
            made = Path(work) / pdf.name
            if run.returncode or not made.exists():
                raise PrunebenchError(f"{source}: {program} failed: {_complaint(run.stdout + run.stderr)}")
        log = Path(work) / f"{source.stem}.log"
        if log.exists():
            shutil.copyfile(log, source.with_suffix(".log"))
        # Whole or not at all, and on the same file system.
        part = source.with_name(f".{source.stem}.part.pdf")
        shutil.copyfile(made, part)
        # What changes while LaTeX is at work is not in this PDF.
        os.utime(part, ns=(start, start))
        os.replace(part, pdf)
    return str(pdf)


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
