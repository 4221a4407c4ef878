"""From scores to rankings: the stage that needs no torch, and that any rule of a user's own can stand in for."""

from __future__ import annotations

import math
from pathlib import Path

from prunebench.artifacts import read_csv, write_csv
from prunebench.consistency import check_scores, check_vouched
from prunebench.criteria import find_criterion, order_of_removal
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.jobs import RankJob


def rank(job: RankJob, scores: Path, out: Path) -> None:
    """Write ``<criterion>/draw<d>/ranking.csv`` below ``out`` for each criterion and draw.

    Raises:
        CorruptFile: the scores are not whole.
    """
    rows = read_csv(scores, ["criterion", "draw", "block", "score"])
    check_vouched(scores)
    check_scores(scores, rows)
    for reference, draws in job.criteria.items():
        criterion = find_criterion(reference)
        for draw in range(draws):
            mine = [row for row in rows if row["criterion"] == criterion.name and row["draw"] == str(draw)]
            if not mine:
                raise CorruptFile(scores, f"no scores of {criterion.name}, draw {draw}")
            values = {row["block"]: row["score"] for row in mine}
            blocks = list(values)
            numbers = [_number(values[block], f"{scores}: {criterion.name}, draw {draw}, {block}") for block in blocks]
            order = order_of_removal(blocks, numbers, criterion.removes)
            write_csv(
                out / criterion.name / f"draw{draw}" / "ranking.csv",
                ["block", "rank", "score"],
                [(block, place, values[block]) for place, block in enumerate(order, start=1)],
            )


def _number(text: str, where: str) -> float:
    """A score; one that is not a finite number would put blocks in an order that means nothing."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise PrunebenchError(f"{where}: the score is '{text}', expected a finite number")
    return number
