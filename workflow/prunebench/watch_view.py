"""``prunebench watch`` for people: tables that fit a terminal, drawn again and again by rich.

What they mean is said in words, and not by colours alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunebench.config import read
from prunebench.durations import clock
from prunebench.errors import PrunebenchError
from prunebench.progress import words
from prunebench.watch import STATES, Seen, Snapshot, Watch, label, to_json

FAILURES = 5
QUIET_SECONDS = 30.0
"""From here on it is said how long ago a job was heard of."""
COLOURS = {"running": "cyan", "silent": "yellow", "failed": "red"}


def watch(config: Path, directory: Path, every: float, once: bool, as_json: bool) -> None:
    """Show a suite until everything is done, or once.

    Args:
        config: The suite.
        directory: Where the workflow runs: ``results/`` and ``logs/`` are in it.
        every: Seconds between two looks, at least 1.
        once: Look once.
        as_json: Look once and print all that was seen as JSON.

    Raises:
        PrunebenchError: the config or the directory is not there, or the config is faulty.
    """
    if not directory.is_dir():
        raise PrunebenchError(f"--directory: {directory} is no folder; give the one that snakemake runs in")
    config = config.resolve()
    # As for the workflow, the files that a suite names are below the working directory.
    with contextlib.chdir(directory):
        watched = Watch(read(config))
        console = Console(highlight=False, markup=False, emoji=False)
        if as_json:
            print(json.dumps(to_json(watched.look()), indent=1))
        elif once:
            console.print(view(watched.look()))
        else:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(watched, console, max(every, 1.0))


def _follow(watched: Watch, console: Console, every: float) -> None:
    if not console.is_terminal:
        # A log, say: one view below the other.
        while not _show(watched, console):
            time.sleep(every)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            snapshot = watched.look()
            live.update(view(snapshot, rows=max(3, console.height // 2 - len(snapshot.stages()) // 2)), refresh=True)
            if snapshot.finished:
                return
            time.sleep(every)


def _show(watched: Watch, console: Console) -> bool:
    snapshot = watched.look()
    console.print(view(snapshot))
    return snapshot.finished


def view(snapshot: Snapshot, rows: int | None = None) -> RenderableType:
    """All of a snapshot; at most so many ``rows`` of jobs at work."""
    parts: list[RenderableType] = [_head(snapshot), "", _stages(snapshot), "", _experiments(snapshot)]
    if at_work := snapshot.of("silent") + snapshot.of("running"):
        parts += ["", _at_work(snapshot, at_work, rows)]
    if failed := snapshot.of("failed"):
        parts += ["", *_failed(snapshot, failed)]
    if snapshot.queue is not None:
        parts += ["", _queue(snapshot)]
    parts += [Text(f"Note: {note}", style="yellow") for note in snapshot.notes]
    return Group(*parts)


def _head(snapshot: Snapshot) -> Text:
    total, done = len(snapshot.seen), len(snapshot.of("done"))
    if snapshot.finished:
        ahead = "everything is done"
    elif (left := snapshot.left()) is not None:
        ahead = f"about {clock(left)} left ({len(snapshot.of('running'))} at once)"
    elif (work := snapshot.work()) is not None:
        ahead = f"nothing runs; about {clock(work)} of work left"
    elif snapshot.of("running"):
        ahead = "time left is known when a job has finished"
    else:
        ahead = "nothing runs"
    at = time.strftime("%H:%M:%S", time.localtime(snapshot.time))
    return Text.assemble((snapshot.suite, "bold"), f"  {at}  {_bar(done, total, 20)} {done}/{total} done, {ahead}")


def _bar(done: int, total: int, width: int) -> str:
    full = width * done // max(total, 1)
    return "█" * full + "░" * (width - full)


def _table(*columns: str, **numbers: str) -> Table:
    """A table without lines; the columns in ``numbers`` are aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column.replace("_", " ").capitalize(), justify="right", no_wrap=True)
    return table


def _stages(snapshot: Snapshot) -> Table:
    table = _table("Stage", "", done="", running="", silent="", failed="", queued="", waiting="", left="")
    # Numbers of thousands of jobs, too, shall fit 80 columns.
    table.padding = (0, 1, 0, 0)
    table.columns[0].no_wrap = True
    for stage in snapshot.stages():
        numbers = Counter(seen.state for seen in snapshot.seen if seen.job.stage == stage)
        left = snapshot.left(stage)
        table.add_row(
            stage,
            _bar(numbers["done"], numbers.total(), 6),
            Text(f"{numbers['done']}/{numbers.total()}", style="green" if numbers["done"] == numbers.total() else ""),
            *(Text(str(numbers[state] or ""), style=COLOURS.get(state, "")) for state in STATES if state != "done"),
            clock(left) if left else "",
        )
    return table


def _experiments(snapshot: Snapshot) -> Table:
    """Validation accuracy, and not test accuracy: nobody should choose by that while a suite runs."""
    table = _table("Experiment", "Dense network, validation", chains_done="")
    for (dataset, model), accuracies in snapshot.accuracies.items():
        chained = [seen for seen in snapshot.seen if seen.job.chains and (seen.job.dataset, seen.job.model) == (dataset, model)]
        chains = sum(len(seen.job.chains.chains) for seen in chained if seen.job.chains)
        done = sum(len(seen.job.chains.chains) for seen in chained if seen.job.chains and seen.state == "done")
        shown = f"{sum(accuracies) / len(accuracies):.2f} % (mean of {len(accuracies)})" if accuracies else "not there yet"
        table.add_row(f"{dataset} {model}", shown, f"{done}/{chains}")
    return table


def _at_work(snapshot: Snapshot, jobs: list[Seen], rows: int | None) -> Table:
    table = _table("Job", "At", "Val %", "Time", "Left", "Where")
    for column in (2, 3, 4):
        table.columns[column].no_wrap = True
    several = len(snapshot.accuracies) > 1
    shown = jobs if rows is None else jobs[:rows]
    for seen in shown:
        report = seen.report
        table.add_row(
            label(seen.job, several),
            (words(report.at) if report else "") or seen.note or "starting",
            f"{report.validation_accuracy:.2f}" if report and report.validation_accuracy is not None else "",
            clock(snapshot.time - report.started) if report else "",
            clock(seen.left) if seen.left else "",
            _where(seen, snapshot.time),
            style="yellow" if seen.state == "silent" else "",
        )
    if len(jobs) > len(shown):
        table.add_row(f"and {len(jobs) - len(shown)} more")
    return table


def _where(seen: Seen, now: float) -> str:
    """The machine, SLURM's number and state, the number of the attempt and, if it is long ago, when it was heard of."""
    said = []
    if seen.report:
        said.append(seen.report.host)
        if seen.report.slurm_job:
            said.append(f"job {seen.report.slurm_job}")
        if seen.report.attempt > 1:
            said.append(f"attempt {seen.report.attempt}")
    elif seen.slurm:
        said += [seen.slurm.nodes, f"job {seen.slurm.number}"]
    if seen.slurm:
        said.append(seen.slurm.state)
    if seen.state == "silent":
        said.append(f"SILENT: {seen.note}")
    if seen.report and now - seen.report.updated >= QUIET_SECONDS:
        said.append(f"updated {clock(now - seen.report.updated)} ago")
    return ", ".join(filter(None, said))


def _failed(snapshot: Snapshot, jobs: list[Seen]) -> list[Text]:
    several = len(snapshot.accuracies) > 1
    lines = [Text(f"{len(jobs)} failed, and will run again with the next call of snakemake, or by its retries:", style="red")]
    for seen in jobs[:FAILURES]:
        lines += [Text(f"  {label(seen.job, several)}: {seen.note}"), Text(f"    {seen.job.log}")]
    return lines + ([Text(f"  and {len(jobs) - FAILURES} more")] if len(jobs) > FAILURES else [])


def _queue(snapshot: Snapshot) -> Text:
    """SLURM in a line: how many jobs are in which state, and why they wait."""
    jobs = snapshot.queue or []
    states = Counter(job.state for job in jobs if job.state != "PENDING")
    reasons = Counter(job.reason for job in jobs if job.state == "PENDING")
    said = [f"{number} {state}" for state, number in states.most_common()]
    if reasons:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        said.append(f"{reasons.total()} PENDING ({why})")
    return Text(f"SLURM: {'; '.join(said) or 'no jobs of this folder'}")
