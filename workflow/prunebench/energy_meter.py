"""Energy and carbon of a piece of work, by codecarbon's offline tracker: no network, no files, no log lines.

What is counted depends on the machine. Only hardware counters (RAPL, NVML) measure; everything else is a model, and is labelled
``estimated``:

* CPU: the processor's nominal power times the share of its cores that this process and its children kept busy, so that jobs side
  by side do not count each other. A job that has the machine to itself (``alone``) reads the RAPL counters, where they are readable.
* RAM: codecarbon's constant for the memory in use (at least 10 W on x86). Beside RAPL it is not counted, as a constant is no measurement.
* GPU: the NVML counter of the one GPU that the job uses; nothing if it uses none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from unittest import mock

from prunebench.errors import PrunebenchError
from prunebench.provenance import cpu_model

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker

Method = Literal["measured", "estimated"]


@dataclass(frozen=True)
class Energy:
    """Energy and carbon of some work.

    Attributes:
        energy_kwh: All that was counted, in kWh.
        emissions_kg: CO2 equivalents in kg: energy times the carbon intensity of the electricity.
        duration_s: Wall time in seconds; that of several attempts is their sum.
        cpu_energy_kwh: The processor's part of ``energy_kwh``.
        gpu_energy_kwh: The GPU's part.
        ram_energy_kwh: The memory's part.
        method: ``measured`` if hardware counters gave every part that was counted, else ``estimated``.
        source: What each part comes from, in words.
    """

    energy_kwh: float = 0.0
    emissions_kg: float = 0.0
    duration_s: float = 0.0
    cpu_energy_kwh: float = 0.0
    gpu_energy_kwh: float = 0.0
    ram_energy_kwh: float = 0.0
    method: Method = "measured"
    source: str = ""

    def __add__(self, other: Energy) -> Energy:
        """The energy of both pieces of work; ``Energy()`` is the neutral element."""
        return Energy(
            self.energy_kwh + other.energy_kwh,
            self.emissions_kg + other.emissions_kg,
            self.duration_s + other.duration_s,
            self.cpu_energy_kwh + other.cpu_energy_kwh,
            self.gpu_energy_kwh + other.gpu_energy_kwh,
            self.ram_energy_kwh + other.ram_energy_kwh,
            "measured" if self.method == other.method == "measured" else "estimated",
            # A resumed job may have gone on on another machine: then both are named, each once.
            " | ".join(dict.fromkeys(part for part in f"{self.source} | {other.source}".split(" | ") if part)),
        )

    def to_json(self) -> dict[str, Any]:
        """As in ``training.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], origin: str = "energy") -> Energy:
        """The inverse of ``to_json``; keys that it does not know are ignored.

        Raises:
            PrunebenchError: a key is missing or has a value of the wrong kind; the message names ``origin`` and the key.
        """
        names = [field.name for field in fields(cls)]
        for name in names:
            if name not in content:
                raise PrunebenchError(f"{origin}: lacks {name} (see docs/data-contracts.md)")
            value = content[name]
            if name == "method":
                right, expected = value in ("measured", "estimated"), "measured or estimated"
            elif name == "source":
                right, expected = isinstance(value, str), "a string"
            else:
                right, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number"
            if not right:
                raise PrunebenchError(f"{origin}: {name} is {value!r}, expected {expected}")
        return cls(**{name: content[name] for name in names})


class EnergyMeter:
    """Counts the energy of the work done while it is entered; one tracker, any number of laps.

    Example:
        >>> with EnergyMeter("DEU") as meter:
        ...     train()
        ...     training = meter.lap()
        ...     evaluate()
        ...     evaluation = meter.lap()
        >>> meter.reading()  # both

    Naming the processor's power saves the look-up of its model in codecarbon's table (0.2 s, with pandas).

    Args:
        country_iso_code: Three-letter code of the country whose carbon intensity is used.
        carbon_intensity_g_per_kwh: Carbon intensity to use in place of the country's.
        cpu_power_watts: Nominal power of the whole processor (all sockets). By default codecarbon's table for its model, else 4 W for
            each logical core. Not used where RAPL is read.
        device: The device that the work runs on; GPU energy counts only for ``cuda`` devices.
        alone: Nothing else runs on the machine, so that counters of the whole machine (RAPL) are this job's.

    Raises:
        PrunebenchError: codecarbon has no carbon intensity for the country.
    """

    def __init__(
        self,
        country_iso_code: str,
        carbon_intensity_g_per_kwh: float | None = None,
        cpu_power_watts: float | None = None,
        *,
        device: object = "cpu",
        alone: bool = False,
    ) -> None:
        self._power = cpu_power_watts
        self._device = str(device)
        self._alone = alone
        given = carbon_intensity_g_per_kwh
        self._intensity = carbon_intensity(country_iso_code) if given is None else given
        self._tracker: OfflineEmissionsTracker | None = None
        self._final: Energy | None = None
        self._data: Any = None
        self._lap = Energy()
        self._counters: frozenset[str] | None = None

    def __enter__(self) -> Self:
        counters = self._alone and bool(_codecarbon().core.cpu.is_rapl_available())
        # codecarbon may find counters and yet be unable to set them up; the model needs none.
        failure = self._start(counters)
        if failure and counters:
            counters = False
            failure = self._start(counters)
        if failure:
            raise RuntimeError(f"codecarbon {_codecarbon().__version__} did not start: {failure}")
        self._method, self._source, self._counters = _describe(self._tracker, self._device, counters, self._intensity)
        self._started = time.perf_counter()
        return self

    def _start(self, counters: bool) -> str:
        """Start a tracker that reads RAPL or not; returns why it failed, or an empty string."""
        codecarbon, meter = _codecarbon(), self

        class Keep(codecarbon.output_methods.base_output.BaseOutput):  # type: ignore[misc,name-defined]
            """Where ``flush`` and ``stop`` deliver their totals: codecarbon's way out without a file."""

            def out(self, total: Any, delta: Any) -> None:
                meter._data = total

        with _quiet() as log:
            # Every argument that the environment or a .codecarbon.config could set otherwise is given: no network, no files.
            self._tracker = codecarbon.OfflineEmissionsTracker(
                # Without a country, and with an intensity, codecarbon loads none of its tables.
                country_iso_code=None,
                force_carbon_intensity_g_co2e_kwh=self._intensity,
                region=None,
                cloud_provider=None,
                cloud_region=None,
                country_2letter_iso_code=None,
                output_methods=[],
                output_handlers=[Keep()],
                emissions_endpoint=None,
                electricitymaps_api_token="",
                api_call_interval=-1,
                output_dir=".",
                allow_multiple_runs=True,
                log_level="warning",
                measure_power_secs=15.0,
                tracking_mode="process",
                # The load model is asked for in so many words, or codecarbon would read RAPL, which counts all jobs.
                force_mode_cpu_load=not counters,
                force_cpu_power=None if counters else self._power,
                rapl_include_dram=False,
                rapl_prefer_psys=False,
                # A constant beside a measurement would make it none; codecarbon cannot read the memory's own counter.
                force_ram_power=0.0 if counters else None,
                pue=1.0,
                wue=0.0,
                gpu_ids=nvml_index(self._device),
            )
            with _fast_cpu_model(known=self._power is not None):
                self._tracker.start()
            started = getattr(self._tracker, "_start_time", None) is not None
        return "" if started else log.text()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._tracker is not None:
            with _quiet():
                self._tracker.stop()
            self._tracker = None
            # An error of the work itself is worth more than the missing reading that may follow from it.
            if kind is None or self._data is not None:
                self._final = self._total()

    def reading(self) -> Energy:
        """Energy since the meter was entered; after it was left, of all that time.

        Parts shorter than 50 ms may be counted in the next reading.

        Raises:
            RuntimeError: the meter was never entered.
        """
        if self._final is not None:
            return self._final
        if self._tracker is None:
            raise RuntimeError("EnergyMeter: not entered; use it in a with statement")
        with _quiet():
            self._tracker.flush()
        return self._total()

    @property
    def counters(self) -> frozenset[str]:
        """Which of ``cpu`` and ``gpu`` hardware counters measure: these draw power that is seen when the device idles, a model does not.

        Raises:
            RuntimeError: the meter was never entered.
        """
        if self._counters is None:
            raise RuntimeError("EnergyMeter: not entered; use it in a with statement")
        return self._counters

    def lap(self) -> Energy:
        """Energy since the last lap, or since the meter was entered."""
        total, before = self.reading(), self._lap
        self._lap = total
        return Energy(
            total.energy_kwh - before.energy_kwh,
            total.emissions_kg - before.emissions_kg,
            total.duration_s - before.duration_s,
            total.cpu_energy_kwh - before.cpu_energy_kwh,
            total.gpu_energy_kwh - before.gpu_energy_kwh,
            total.ram_energy_kwh - before.ram_energy_kwh,
            total.method,
            total.source,
        )

    def _total(self) -> Energy:
        data, self._data = self._data, None
        if data is None:
            raise RuntimeError("codecarbon delivered no reading")
        # codecarbon counts every GPU in the machine, also when the work runs on the CPU.
        gpu = float(data.gpu_energy) if _uses_gpu(self._device) else 0.0
        energy = float(data.cpu_energy) + float(data.ram_energy) + gpu
        return Energy(
            energy,
            energy * self._intensity / 1000,
            time.perf_counter() - self._started,
            float(data.cpu_energy),
            gpu,
            float(data.ram_energy),
            self._method,
            self._source,
        )


def carbon_intensity(country_iso_code: str) -> float:
    """Carbon intensity of a country's electricity in g CO2e/kWh, from the table in codecarbon (Our World in Data).

    Raises:
        PrunebenchError: the country is not in the table. (codecarbon would take the world's average without a word.)
    """
    table = _intensities()
    if country_iso_code not in table:
        raise PrunebenchError(
            f"country_iso_code: {country_iso_code!r} is not in codecarbon's table of carbon intensities; "
            "give a three-letter ISO code such as DEU, or set carbon_intensity_g_per_kwh"
        )
    return table[country_iso_code]


@cache
def _intensities() -> dict[str, float]:
    path = Path(_codecarbon().input.DataSource().global_energy_mix_data_path)
    table = json.loads(path.read_text(encoding="utf-8"))
    return {code: float(mix["carbon_intensity"]) for code, mix in table.items() if mix.get("carbon_intensity") is not None}


@cache
def _codecarbon() -> Any:
    """The package, imported as if outside a SLURM job.

    Inside one it asks ``scontrol`` (which may be absent in a container) and takes the job's cores for the whole machine's, so that a
    job on 4 of 128 cores would be charged the nominal power of all.
    """
    hidden = {name: os.environ.pop(name) for name in ("SLURM_JOB_ID", "SLURM_JOBID") if name in os.environ}
    try:
        import codecarbon
        import codecarbon.core.cpu
        import codecarbon.input
        import codecarbon.output_methods.base_output
    finally:
        os.environ.update(hidden)
    return codecarbon


class _Log(logging.Handler):
    """Keeps the last messages for an error's sake, and prints none."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(self.format(record))

    def text(self) -> str:
        return "\n".join(self._messages[-3:]) or "it gave no reason"


@contextlib.contextmanager
def _quiet() -> Iterator[_Log]:
    """No line of codecarbon's log reaches the terminal; its constructor sets up its own handler, hence the filter on the logger."""
    logger = logging.getLogger("codecarbon")
    log = _Log()

    def divert(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            log.emit(record)
        return False

    logger.addFilter(divert)
    try:
        yield log
    finally:
        logger.removeFilter(divert)


@contextlib.contextmanager
def _fast_cpu_model(known: bool) -> Iterator[None]:
    """Spare the 1.2 s of CPU time that py-cpuinfo spends in child processes on what codecarbon does not ask.

    codecarbon wants the model's name alone, which py-cpuinfo takes from ``/proc/cpuinfo`` too. If the power is ``known``, it needs no
    name either: without one it does not search its table.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import cpuinfo

    with mock.patch.object(cpuinfo, "get_cpu_info", lambda: {} if known else {"brand_raw": cpu_model()}):
        yield


def _uses_gpu(device: str) -> bool:
    return device.startswith("cuda")


def nvml_index(device: str) -> list[int] | None:
    """NVML's number of a CUDA device (CUDA's own numbers follow CUDA_VISIBLE_DEVICES), or None where NVML does not know it."""
    if not _uses_gpu(device):
        return None
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.device(device)).uuid
        return [int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")))]
    except (pynvml.NVMLError, AttributeError, RuntimeError):  # an AMD device, a part of a GPU (MIG), an old torch
        return None


def _describe(tracker: Any, device: str, counters: bool, intensity: float) -> tuple[Method, str, frozenset[str]]:
    """Method, source and what is read from counters, from the hardware that codecarbon found."""
    parts: list[str] = []
    read: set[str] = set()
    measured = True
    hardware = {type(item).__name__: item for item in tracker._hardware}
    cpu = hardware.get("CPU")
    mode, power = getattr(cpu, "_mode", "unknown"), getattr(cpu, "_tdp", None)
    if counters and mode == "intel_rapl":
        read.add("cpu")
        parts.append("CPU: RAPL counters; RAM: not counted")
    else:
        measured = False
        watts = f"{power:g} W" if isinstance(power, int | float) else "unknown"
        if mode == "cpu_load":
            parts.append(f"CPU: nominal power ({watts}) x share of its cores kept busy")
        else:
            parts.append(f"CPU: codecarbon's {str(mode).replace('_', ' ')}, of all jobs on the machine")
        parts.append("RAM: codecarbon's constant for its size")
    if not device.startswith("cpu"):
        gpu = hardware.get("GPU") if _uses_gpu(device) else None
        counted = [] if gpu is None else list(gpu._get_gpu_ids())
        if counted and nvml_index(device) is not None:
            read.add("gpu")
            parts.append("GPU: NVML")
        elif counted:
            # Which of them the work runs on is not known (an AMD device, a part of a GPU): with others beside it, that is no measurement.
            read.add("gpu")
            measured = measured and len(counted) == 1
            parts.append(f"GPU: driver's counters of all {len(counted)} visible GPUs")
        else:
            measured = False
            parts.append("GPU: not counted, no counter found")
    parts.append(f"{intensity:g} g CO2e/kWh; PUE 1")
    return "measured" if measured else "estimated", "; ".join(parts), frozenset(read)
