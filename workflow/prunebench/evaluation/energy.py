"""Energy and carbon of inference, with what the idle device draws taken off where a counter tells it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Subject, Values, device_name, random_images, threads

if TYPE_CHECKING:
    from prunebench.energy_meter import Energy, EnergyMeter

JOULES_PER_KWH = 3.6e6
MICROGRAMS_PER_GRAM = 1e6
PARTS = ("cpu", "gpu")
# What is shorter than 50 ms codecarbon may count in the next lap, and the warm-up is no part of the measurement.
SHORTEST_WARM_UP_SECONDS = 0.1


class Options(Section):
    """How the energy of inference is measured."""

    batch_size: int = Field(256, ge=1)
    """Images in a forward pass."""
    seconds: float = Field(60.0, gt=0)
    """How long inference is repeated; counters are read some times a second, so that less than a few seconds says little."""
    idle_seconds: float = Field(10.0, gt=0)
    """How long the idle device is measured before, where it has counters."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; by default all cores that the job may use."""


def idle_watts(meter: EnergyMeter, seconds: float) -> float:
    """Power that the idle device draws, by the counters that are read; 0 where there are none: a model counts no work as no power."""
    if not meter.counters:
        return 0.0
    meter.lap()
    time.sleep(seconds)
    return _counted_joules(meter.lap(), meter.counters) / seconds


def _counted_joules(energy: Energy, counters: frozenset[str]) -> float:
    parts = {"cpu": energy.cpu_energy_kwh, "gpu": energy.gpu_energy_kwh}
    return sum(parts[part] for part in counters) * JOULES_PER_KWH


def repeat(work: Callable[[], None], seconds: float) -> int:
    """Do some work until the time is over, once at least; returns how often."""
    done, end = 0, time.perf_counter() + seconds
    while done == 0 or time.perf_counter() < end:
        work()
        done += 1
    return done


def measure(subject: Subject) -> Values:
    """Repeat forward passes of ``batch_size`` random images for ``seconds``; see ``EVALUATION.quantities``.

    Raises:
        PrunebenchError: the country's carbon intensity is not known.
    """
    import torch

    from prunebench.energy_meter import EnergyMeter
    from prunebench.load import Load, gpu_use_percent

    options = Options.model_validate(dict(subject.options))
    network = subject.network.to(subject.device).eval()
    images = random_images(subject, options.batch_size)

    def once() -> None:
        network(images)
        if subject.device.type == "cuda":
            # Or the queue of passes would grow far beyond the time.
            torch.cuda.synchronize(subject.device)

    meter = EnergyMeter(
        subject.accounting.country_iso_code,
        subject.accounting.carbon_intensity_g_per_kwh,
        subject.accounting.cpu_power_watts,
        device=subject.device,
        alone=True,
    )
    gpu_before = gpu_use_percent(subject.device)
    with threads(options.threads) as used, torch.inference_mode(), meter:
        # Work of others while the device should idle is as bad as during the run, and must not be averaged away by a quiet run.
        with Load() as load_idle:
            idle = idle_watts(meter, options.idle_seconds)
        # Clocks rise and caches fill before anything counts.
        repeat(once, max(SHORTEST_WARM_UP_SECONDS, options.seconds / 20))
        meter.lap()
        with Load() as load_run:
            passes = repeat(once, options.seconds)
            energy = meter.lap()
        counters = meter.counters
    number = passes * options.batch_size
    gross = energy.energy_kwh * JOULES_PER_KWH
    # More than what the counters saw cannot be idle power.
    net = gross - min(idle * energy.duration_s, _counted_joules(energy, counters))
    micrograms_per_joule = energy.emissions_kg * 1000 * MICROGRAMS_PER_GRAM / gross if gross else 0.0
    values = {
        "inference_net_energy_joules_per_image": net / number,
        "inference_gross_energy_joules_per_image": gross / number,
        "inference_cpu_energy_joules_per_image": energy.cpu_energy_kwh * JOULES_PER_KWH / number,
        "inference_gpu_energy_joules_per_image": energy.gpu_energy_kwh * JOULES_PER_KWH / number,
        "inference_ram_energy_joules_per_image": energy.ram_energy_kwh * JOULES_PER_KWH / number,
        "inference_net_emissions_ug_per_image": net * micrograms_per_joule / number,
        "inference_gross_emissions_ug_per_image": gross * micrograms_per_joule / number,
        "idle_power_watts": idle,
        "inference_power_watts": gross / energy.duration_s,
        "inference_seconds_measured": energy.duration_s,
        "inference_images_measured": number,
    }
    other = load_run.other_cores()
    if other is not None:
        # Without counters nothing idles, and there is nothing to tell of it.
        other = max(other, load_idle.other_cores() or 0.0)
    values |= {"other_load_cores": other} if other is not None else {}
    values |= {"gpu_use_before_percent": gpu_before} if gpu_before is not None else {}
    missing = [part.upper() for part in PARTS if part not in counters and (part == "cpu" or subject.device.type == "cuda")]
    labels = {
        "energy_method": energy.method,
        "energy_source": energy.source,
        "idle": f"{options.idle_seconds:g} s by the same counters" if counters else "none taken off",
        "device": device_name(subject.device),
        "threads": str(used),
    }
    if missing:
        labels["idle"] += f"; {' and '.join(missing)}: 0 by construction, a model of the load counts no idle power"
    return Values(values, labels | ({} if other is not None else {"other_load": "not known: the system does not tell"}))


EVALUATION = Evaluation(
    "energy",
    measure,
    per="architecture",
    options=Options,
    quantities={
        "inference_net_energy_joules_per_image": "Energy for one image in a large batch, idle power taken off",
        "inference_gross_energy_joules_per_image": "The same with idle power: processor, memory and, if used, GPU",
        "inference_cpu_energy_joules_per_image": "The processor's part of the gross energy",
        "inference_gpu_energy_joules_per_image": "The GPU's part of it",
        "inference_ram_energy_joules_per_image": "The memory's part of it; 0 where it is not counted",
        "inference_net_emissions_ug_per_image": "CO2 equivalents in micrograms: the net energy times the carbon intensity",
        "inference_gross_emissions_ug_per_image": "The same of the gross energy",
        "idle_power_watts": "What the counters of the idle device counted before; 0 where no counter is read",
        "inference_power_watts": "Gross energy over the time",
        "inference_seconds_measured": "Wall time of the measurement, without idling and warm-up",
        "inference_images_measured": "Images in it",
        "other_load_cores": (
            "Cores that other processes kept busy during the run or the idling before, the larger; not there where the system does "
            "not tell"
        ),
        "gpu_use_before_percent": "The GPU's use by others just before; on a GPU alone",
    },
    source="codecarbon, offline: RAPL, NVML, or nominal power",
)
