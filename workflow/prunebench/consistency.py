"""Whether tables are whole: cut between two lines they still read well, so each is held to what else is known of it. Free of torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunebench.artifacts import read_json, sha256_of
from prunebench.config import Suite
from prunebench.errors import CorruptFile
from prunebench.models import Architecture
from prunebench.surgery import Constraints, candidates

Row = Mapping[str, str]
VOUCHED = {"scores.csv": ("scoring.json", "scores_sha256"), "oracle.csv": ("oracle.json", "losses_sha256")}
"""Tables of the dense network, and where the job that wrote them has put their digest."""


@dataclass(frozen=True)
class Plan:
    """What a config says of the steps of chains.

    Attributes:
        constraints: What pruning must leave.
        blocks_per_step: At most so many blocks go at each step of an iterative chain.
    """

    constraints: Constraints
    blocks_per_step: int

    @classmethod
    def of(cls, suite: Suite) -> Plan:
        """What a suite's config says."""
        return cls(Constraints(**suite.constraints.model_dump()), suite.schedules.iterative.blocks_per_step)


def check_vouched(table: Path) -> None:
    """Hold ``scores.csv`` or ``oracle.csv`` to the digest in the JSON file beside it; other rules than ours need not write one.

    Raises:
        CorruptFile: the digest is another, or the JSON file is damaged.
    """
    if table.name not in VOUCHED:
        return
    name, key = VOUCHED[table.name]
    beside = table.with_name(name)
    if beside.is_file() and read_json(beside).get(key) not in (None, sha256_of(table)):
        raise CorruptFile(table, f"its SHA-256 is not the one in {name}")


def check_scores(path: Path, rows: Sequence[Row], architecture: Architecture | None = None, plan: Plan | None = None) -> None:
    """Scores of a dense network: every criterion and draw scores the same blocks, and with a plan all candidates.

    Raises:
        CorruptFile: a block is missing or there twice.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row["criterion"], row["draw"]), []).append(row["block"])
    wanted = _wanted(rows, architecture, plan)
    for (criterion, draw), blocks in groups.items():
        _same(path, f"{criterion}, draw {draw}", blocks, wanted)


def check_oracle(
    path: Path, rows: Sequence[Row], epochs: int, architecture: Architecture | None = None, plan: Plan | None = None
) -> None:
    """Losses: every block without fine-tuning and, if there was any, with it.

    Raises:
        CorruptFile: a block is missing or there twice.
    """
    wanted = _wanted(rows, architecture, plan)
    for length in dict.fromkeys((0, epochs)):
        blocks = [row["block"] for row in rows if row["fine_tuning_epochs"] == str(length)]
        _same(path, f"fine_tuning_epochs {length}", blocks, wanted)


def check_ranking(path: Path, rows: Sequence[Row], scores: Sequence[Row]) -> None:
    """A ranking: each block that has scores is there.

    Raises:
        CorruptFile: a block is missing.
    """
    ranked = [row["block"] for row in rows]
    missing = [block for block in dict.fromkeys(row["block"] for row in scores) if block not in ranked]
    if missing:
        raise CorruptFile(path, f"blocks are missing: {', '.join(missing)}")


def check_removals(path: Path, blocks: Sequence[str], removed: Iterable[Sequence[str]]) -> None:
    """The order of removal: what went from each network of the chain is how it begins, and from the smallest is all of it.

    Raises:
        CorruptFile: that is not so.
    """
    every = sorted(removed, key=len)
    if not every or list(every[-1]) != list(blocks):
        raise CorruptFile(path, f"{len(blocks)} blocks, and training.json of the chain's networks says that {_last(every)} went")
    for gone in every:
        if list(gone) != list(blocks[: len(gone)]):
            raise CorruptFile(path, "its blocks are not those that went by training.json of the chain's networks")


def check_chain_scores(
    path: Path,
    rows: Sequence[Row],
    removed: Collection[Sequence[str]],
    dense: Architecture | None = None,
    plan: Plan | None = None,
) -> None:
    """Scores of an iterative chain: each block that went had one when that was decided, and with a plan so had all candidates.

    Args:
        path: The file, for messages.
        rows: What it holds.
        removed: Blocks that went from each network of the chain, in order of removal.
        dense: The unpruned network.
        plan: The config's.

    Raises:
        CorruptFile: a step or a block is missing.
    """
    order = max(removed, key=len)
    found: dict[int, list[str]] = {}
    for row in rows:
        found.setdefault(int(row["step"]), []).append(row["block"])
    for place, block in enumerate(order):
        step = max((step for step in found if step <= place), default=0)
        _same(path, f"step {step}", [name for name in found.get(step, []) if name == block], [block])
    if not (dense and plan):
        return
    stops, step = sorted(map(len, removed)), 0
    while step < len(order):
        wanted = candidates(dense.without(order[:step]), plan.constraints)
        _same(path, f"step {step}", found.get(step, []), wanted)
        step = min([step + plan.blocks_per_step, *(stop for stop in stops if stop > step)])


def check_audit(path: Path, rows: Sequence[Row], blocks: int, networks: int) -> None:
    """An audit: each transition has a row for each block that the ones before have left.

    Args:
        path: The file, for messages.
        rows: What it holds.
        blocks: Number of the dense network's blocks.
        networks: Number of networks that were made from it.

    Raises:
        CorruptFile: rows are missing.
    """
    left = blocks
    for step in range(1, networks + 1):
        mine = [row for row in rows if row["step"] == str(step)]
        if len(mine) != left:
            raise CorruptFile(path, f"step {step} has {len(mine)} rows, and {left} blocks were there")
        left -= sum(row["status"] == "removed" for row in mine)


def check_choices(path: Path, rows: Sequence[Row], audit: Sequence[Row], criteria: int | None = None) -> None:
    """What criteria would have removed: each has a row for each transition in which blocks went.

    Args:
        path: The file, for messages.
        rows: What it holds.
        audit: Rows of ``audit.csv``.
        criteria: How many there are, if that is known.

    Raises:
        CorruptFile: rows are missing.
    """
    names = list(dict.fromkeys(row["criterion"] for row in rows))
    steps = list(dict.fromkeys(row["step"] for row in audit if row["status"] == "removed"))
    if criteria is not None and steps and len(names) != criteria:
        raise CorruptFile(path, f"{len(names)} criteria, and the config names {criteria}")
    for step in steps:
        _same(path, f"step {step}", [row["criterion"] for row in rows if row["step"] == step], names, "criterion")


def _wanted(rows: Sequence[Row], architecture: Architecture | None, plan: Plan | None) -> list[str]:
    """All candidates; where these are not known, the blocks that have any row."""
    if architecture and plan:
        return candidates(architecture, plan.constraints)
    return list(dict.fromkeys(row["block"] for row in rows))


def _same(path: Path, where: str, found: Sequence[str], wanted: Sequence[str], what: str = "block") -> None:
    wrong = {
        f"a {what} is missing": [name for name in wanted if name not in found],
        f"a {what} is there twice": [name for name in dict.fromkeys(found) if found.count(name) > 1],
        f"a {what} does not belong there": [name for name in found if name not in wanted],
    }
    for problem, names in wrong.items():
        if names:
            raise CorruptFile(path, f"{where}: {problem}: {', '.join(names)}")


def _last(every: Sequence[Sequence[str]]) -> str:
    return str(len(every[-1])) if every else "none"
