"""What Snakemake would run, a line of JSON for each job: for the test that holds ``prunebench.planned`` to it."""

from __future__ import annotations

import json
import logging

from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_prunebench import LogHandler as Progress


class LogHandler(Progress):
    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            told = {field: getattr(record, field) for field in ("rule_name", "output", "log", "benchmark")}
            print(json.dumps(told | {"runtime": record.resources.get("runtime")}), flush=True)  # type: ignore[attr-defined]
