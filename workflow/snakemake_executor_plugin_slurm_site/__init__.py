"""``--executor slurm-site``: the SLURM executor plugin, told of the cluster by one file, and made to end whatever SLURM does.

Snakemake finds this module by its name. What snakemake-executor-plugin-slurm 2.8 does otherwise, and why not here:

- It takes a preempted job, and one that is not in the queue any more, for running, for ever; and looks less and less often, up to
  every 3 minutes.
- It guesses the account and checks it by accounting tools that not every site lets users run; it asks for GPUs in one way only.
- A job starts Snakemake twice, the second time by srun. Here the batch script runs the job: one start less, and no second request
  for the GPU.
- sbatch that does not reach its controller, or a full queue, costs an attempt. Here it is tried again.
- Killed by SIGKILL, it leaves its jobs in the queue, and Snakemake's lock.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Optional

from snakemake_executor_plugin_slurm import Executor as SlurmExecutor
from snakemake_executor_plugin_slurm import common_settings as common_settings
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_executor_plugin_slurm.validation import validate_or_get_slurm_job_id
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

from prunebench.squeue import SlurmJob
from snakemake_executor_plugin_slurm_site import slurm

# The same as that of `make demo`. A kill frees it, where Snakemake's own would stay.
LOCK = Path("results/.lock")
# So many looks at the queue without a job mean that it is gone; one alone may be a hiccup.
LOOKS = 3
WORDS = {
    "TIMEOUT": "its time limit of {-t} min was too short",
    "OUT_OF_MEMORY": "its {--mem} MB of memory were too little",
    "CANCELLED": "a person or the site cancelled it",
    "PREEMPTED": "another job took its place, and SLURM did not requeue it",
    "NODE_FAIL": "its node was lost, and SLURM did not requeue it",
    "FAILED": "its log says why",
}


def _says(text: str) -> dict[str, Any]:
    return {"help": text, "env_var": False, "required": False}


# Snakemake reads the types at run time and wants them so.
@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """Keys of the profile, as slurm-site-<field>."""

    file: Optional[Path] = field(default=None, metadata=_says("What is to be known of the cluster: docs/cluster.md."))  # noqa: UP045
    jobname_prefix: str = field(
        default="prunebench", metadata=_says("Names of jobs begin so; by it the next run finds those that a killed run left.")
    )
    logdir: Optional[Path] = field(default=None, metadata=_says("Folder of SLURM's logs, by rule and wildcards."))  # noqa: UP045
    keep_successful_logs: bool = field(default=False, metadata=_says("Keep the logs of jobs that succeed."))
    delete_logfiles_older_than: int = field(default=10, metadata=_says("Days after which logs are deleted; 0 keeps them."))
    requeue: bool = field(default=False, metadata=_says("Let SLURM requeue preempted jobs and those of lost nodes."))
    init_seconds_before_status_checks: int = field(
        default=10, metadata=_says("Seconds between looks at the queue while jobs end.")
    )
    max_seconds_between_status_checks: int = field(
        default=30, metadata=_says("Seconds between looks at the queue when nothing happens.")
    )

    # What the parent class reads beside these. Job arrays are broken in 2.8; the site file has options for the others.
    array_jobs: ClassVar[None] = None
    array_limit: ClassVar[int] = 1000
    partition_config: ClassVar[None] = None
    exclude_failed_nodes: ClassVar[None] = None
    efficiency_report: ClassVar[bool] = False
    no_requeue: ClassVar[bool] = False
    qos: ClassVar[None] = None
    reservation: ClassVar[None] = None
    status_command: ClassVar[str] = "squeue"


class Executor(SlurmExecutor):  # type: ignore[misc]
    """Submits jobs and waits for them."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        """Refuse to start where it could not end well; then begin with an empty queue."""
        from prunebench.config import read_section
        from prunebench.errors import PrunebenchError
        from snakemake_executor_plugin_slurm_site.site import Site

        settings = workflow.executor_settings
        self.prefix = f"{settings.jobname_prefix or 'prunebench'}-"
        self.folder = os.path.realpath(workflow.workdir_init)
        # Before the parent's __init__, which starts the thread that looks at the queue.
        try:
            self.site = read_section(settings.file, Site) if settings.file else Site()
            self.lock_file = slurm.take_lock(LOCK)
            left = slurm.cancel_left(self.prefix, self.folder)
        except (PrunebenchError, slurm.SlurmError) as error:
            raise WorkflowError(str(error)) from None
        if left:
            logger.warning(f"An earlier run left {len(left)} jobs in the queue: cancelled. They go on from their checkpoints.")
        self.queued: set[str] = set()
        self.known: set[str] = set()
        self.stopped = threading.Event()
        self.unanswered_since: float | None = None
        self.pause: float = settings.init_seconds_before_status_checks
        super().__init__(workflow, logger)

    def additional_general_args(self) -> str:
        """The batch script itself runs the job; also where a variable of the user's names a profile."""
        return "--executor local"

    def run_job(self, job: Any) -> None:
        """Submit a job. In one of the parent's threads, so whatever goes wrong has to be told here."""
        # Suites that share a folder have rules of the same names.
        suite = self.workflow.config.get("suite")
        name = self.prefix + "-".join(filter(None, [job.name, suite, get_job_wildcards(job)]))
        log = self.slurm_logdir / f"rule_{job.name}" / get_job_wildcards(job) / "%j.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            command = self.site.command(
                job.resources,
                job.threads,
                settings=self.workflow.executor_settings,
                run_uuid=name,
                slurm_logfile=log,
                comment_str=f"rule {job.name}, attempt {job.attempt}",
                workdir=self.workflow.workdir_init,
            )
            number = self.submit(command, f"#!/bin/sh\n{self.format_job_exec(job)}\n", name)
        except Exception as error:
            message = (
                f"sbatch refuses the job: {error}."
                if isinstance(error, slurm.SlurmError)
                else f"{type(error).__name__}: {error}."
            )
            if not self.known and isinstance(error, slurm.SlurmError):
                # None was ever accepted, so no other will be: one message in place of one for each job and attempt.
                self.stopped.set()
                where = f" Mend {self.workflow.executor_settings.file or 'slurm-site-file'}."
                self.workflow.scheduler.executor_error_callback(WorkflowError(message + where))
                return
            self._report_job_error_threadsafe(SubmittedJobInfo(job), message)
            return
        if number is None:
            return
        self.known.add(number)
        self.queued.add(number)
        log = log.with_name(f"{number}.log")
        self.logger.info(f"Job {job.jobid} is SLURM job {number} (log: {log}).")
        # What was asked for, which the site file may have made less than the rule's.
        options = {"-t": "?", "--mem": "?", **dict(pairwise(command))}
        aux = {"log": log, "options": options, "missed": 0, "lost": False, "told": ""}
        self._report_job_submission_threadsafe(SubmittedJobInfo(job, number, aux))

    def submit(self, command: list[str], script: str, name: str) -> str | None:
        """The number of the job in the queue, or None if the run ends before there is room for it."""
        told = False
        while not self.stopped.is_set():
            try:
                answer = slurm.ask(*command, text=script)
                return str(validate_or_get_slurm_job_id(answer.strip().split(";")[0], answer))
            except slurm.SlurmError as error:
                if not error.passes:
                    raise
                if not told:
                    self.logger.warning(f"{name} has to wait: {error}")
                told = True
            # The controller may have taken the job though its answer was lost, so not again before it says what it has.
            jobs = None
            while jobs is None and not self.stopped.wait(self.workflow.executor_settings.init_seconds_before_status_checks):
                jobs = self._look()
            for job in (jobs or {}).values():
                ours = job.name == name and job.number not in self.known and os.path.realpath(job.folder) == self.folder
                if ours and job.state not in slurm.FINAL:
                    return job.number
        return None

    def _look(self) -> dict[str, SlurmJob] | None:
        """The user's jobs in the queue; None as long as SLURM does not answer, which is told now and every ten minutes."""
        try:
            jobs = slurm.queue()
        except slurm.SlurmError as error:
            now = time.monotonic()
            if self.unanswered_since is None or now - self.unanswered_since > 600:
                self.logger.warning(f"SLURM does not answer; its jobs go on, and so does the wait for them: {error}")
                self.unanswered_since = now
            return None
        self.unanswered_since = None
        return jobs

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that ended, hand back the others. Soon again if some ended, else more and more seldom, up to a limit."""
        settings = self.workflow.executor_settings
        shortest = settings.init_seconds_before_status_checks
        longest = max(shortest, settings.max_seconds_between_status_checks)
        before, self.pause = self.pause, shortest
        if not active_jobs:
            return
        async with self.status_rate_limiter:
            jobs = await asyncio.to_thread(self._look)
        if jobs is None:
            for info in active_jobs:
                yield info
            return
        for info in active_jobs:
            info.aux["missed"] = 0 if info.external_jobid in jobs else info.aux["missed"] + 1
        gone = [info.external_jobid for info in active_jobs if info.aux["missed"] >= LOOKS]
        ended = await asyncio.to_thread(slurm.accounted, gone) if gone else {}
        waiting = 0
        for info in active_jobs:
            state = self.verdict(info, jobs.get(info.external_jobid), ended)
            if state is None:
                waiting += 1
                yield info
            else:
                self._end(info, state)
        if waiting == len(active_jobs):
            self.pause = min(before * 1.5, longest)

    def verdict(self, info: SubmittedJobInfo, job: SlurmJob | None, ended: dict[str, str]) -> str | None:
        """In which state a job ended; GONE if nobody knows; None as long as it is to be waited for."""
        if job is None:
            state = ended.get(info.external_jobid, "GONE")
            # The database may be behind, but not for ever.
            patience = LOOKS if state in slurm.FINAL or state == "GONE" else 10 * LOOKS
            return None if info.aux["missed"] < patience else state if state in slurm.FINAL else "GONE"
        if job.state in slurm.LOST:
            seen, info.aux["lost"] = info.aux["lost"], True
            return job.state if seen else None
        info.aux["lost"] = False
        if job.state in slurm.FINAL:
            return job.state
        stays = job.state in slurm.HELD or (job.state == "PENDING" and slurm.NEVER.search(job.reason))
        if stays and job.reason != info.aux["told"]:
            info.aux["told"] = job.reason
            self.logger.warning(
                f"SLURM job {job.number} ({job.name}) will not start by itself: {job.reason}. "
                f"`scontrol release {job.number}` or a change of its limits lets it, `scancel {job.number}` has it submitted anew."
            )
        return None

    def _end(self, info: SubmittedJobInfo, state: str) -> None:
        """Tell Snakemake that a job ended."""
        self.queued.discard(info.external_jobid)
        if state == "COMPLETED":
            self.report_job_success(info)
            if not self.workflow.executor_settings.keep_successful_logs:
                with suppress(OSError):
                    info.aux["log"].unlink()
            return
        if state == "GONE" or state in slurm.LOST:
            # Should it come back all the same, two would write the same files.
            self._cancel([info.external_jobid])
        words = WORDS.get(state, "").format_map(info.aux["options"])
        message = f"ended as {state}{': ' if words else ''}{words}" if state != "GONE" else "is not in the queue any more"
        self.report_job_error(info, msg=f"SLURM job {info.external_jobid} {message}.", aux_logs=[str(info.aux["log"])])

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Without what the parent adds to every message."""
        RealExecutor.print_job_error(self, job_info, msg, **kwargs)

    def _cancel(self, numbers: list[str]) -> None:
        try:
            slurm.cancel(numbers)
        except slurm.SlurmError as error:
            self.logger.warning(f"scancel fails; the next run cancels what is left: {error}")

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """All in the queue: ``active_jobs`` lacks those that are being looked at just now."""
        self._cancel(list(self.queued))

    def cancel(self) -> None:
        """Submit no more before cancelling, or some would stay."""
        self.stopped.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    def shutdown(self) -> None:
        """Do not wait for room in the queue any more."""
        self.stopped.set()
        super().shutdown()

    async def sleep(self) -> None:
        """Until the next look, or the end of the run."""
        end = time.monotonic() + self.pause
        while self.wait and time.monotonic() < end:
            await asyncio.sleep(0.2)
