"""What differs between clusters: the site file, and what it makes of the resources that a rule asks for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import Field, field_validator
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from prunebench.config import Section


class Nodes(Section):
    """Where a kind of job goes."""

    partition: str | None = None
    """Name, or names separated by commas; the cluster's default if not given."""
    max_runtime_min: int | None = Field(None, ge=1)
    """Longest time limit that may be asked for, in minutes."""
    max_mem_mb: int | None = Field(None, ge=1)
    """Most memory that may be asked for, in MB."""


class GpuNodes(Nodes):
    """Where jobs with a GPU go, and how they ask for it."""

    request: str = "--gpus={gpu}"
    """sbatch's option, with {gpu} for the number of GPUs."""

    @field_validator("request")
    @classmethod
    def _says_how_many(cls, value: str) -> str:
        if "{gpu}" not in value or any(brace in value.replace("{gpu}", "") for brace in "{}"):
            raise ValueError("an option of sbatch with {gpu} in it for the number of GPUs, such as --gres=gpu:{gpu}")
        return value


class Site(Section):
    """A cluster, as far as the workflow has to know it."""

    account: str | None = None
    """Who pays; not checked here, sbatch refuses a wrong one."""
    cpu: Nodes = Nodes()
    """For jobs without a GPU."""
    gpu: GpuNodes = GpuNodes()
    """For jobs with the resource gpu."""
    options: str = ""
    """Further options of sbatch, for every job."""
    alone: str = "--exclusive"
    """Options of sbatch for jobs that measure and need a node for themselves."""

    @field_validator("cpu", "gpu", mode="before")
    @classmethod
    def _all_commented_out(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("options", "alone")
    @classmethod
    def _can_be_split(cls, value: str) -> str:
        try:
            options = shlex.split(value)
        except ValueError:
            options = [""]
        if options and not options[0].startswith("-"):
            raise ValueError("options of sbatch as on its command line, such as --qos=normal --constraint=v100")
        return value

    def command(self, resources: Mapping[str, Any], threads: int, **params: Any) -> list[str]:
        """The call of sbatch for a job, without its script.

        Args:
            resources: What the rule asks for. ``slurm_partition`` and ``slurm_account`` there win over this file.
            threads: Of the job.
            params: ``settings`` of the executor; ``run_uuid`` (the job's name), ``slurm_logfile``, ``comment_str`` and ``workdir``.
        """
        asked = dict(resources)
        gpus = asked.pop("gpu", 0) or 0
        nodes: Nodes = self.gpu if gpus else self.cpu
        for key, most in (("runtime", nodes.max_runtime_min), ("mem_mb", nodes.max_mem_mb)):
            if most is not None and isinstance(asked.get(key), int):
                asked[key] = min(asked[key], most)
        job = SimpleNamespace(threads=threads, resources=_Resources(asked))
        where = {"-A": asked.get("slurm_account") or self.account, "-p": asked.get("slurm_partition") or nodes.partition}
        account, partition = (f"{flag} {shlex.quote(str(value))}" if value else "" for flag, value in where.items())
        settings = params.pop("settings")
        call = get_submit_command(job, {**params, "account": account, "partition": partition}, settings) + set_gres_string(job)
        request = [self.gpu.request.format(gpu=gpus)] if gpus else []
        further = [*request, self.options, self.alone if asked.get("alone") else ""]
        return shlex.split(" ".join([call, *further]))


class _Resources(dict[str, Any]):
    """Resources as Snakemake's jobs have them: keys are attributes too."""

    __getattr__ = dict.__getitem__
