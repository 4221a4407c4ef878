"""Energy and carbon of inference."""

from __future__ import annotations

import time

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Subject, Values, device_name, random_images, threads

JOULES_PER_KWH = 3.6e6
MICROGRAMS_PER_KG = 1e9


class Options(Section):
    """How the energy of inference is measured."""

    batch_size: int = Field(256, ge=1)
    """Images in a forward pass."""
    seconds: float = Field(60.0, gt=0)
    """How long inference is repeated."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; by default all cores that the job may use."""


def measure(subject: Subject) -> Values:
    """Repeat forward passes of ``batch_size`` random images for ``seconds``; see ``EVALUATION.quantities``.

    Raises:
        PrunebenchError: the country's carbon intensity is not known.
    """
    import torch

    from prunebench.energy_meter import EnergyMeter

    options = Options.model_validate(dict(subject.options))
    network = subject.network.to(subject.device).eval()
    images = random_images(subject, options.batch_size)
    passes = 0

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
    with threads(options.threads) as used, torch.inference_mode():
        once()
        with meter:
            meter.lap()
            end = time.perf_counter() + options.seconds
            while passes == 0 or time.perf_counter() < end:
                once()
                passes += 1
            energy = meter.lap()
    number = passes * options.batch_size
    return Values(
        {
            "inference_energy_joules_per_image": energy.energy_kwh * JOULES_PER_KWH / number,
            "inference_cpu_energy_joules_per_image": energy.cpu_energy_kwh * JOULES_PER_KWH / number,
            "inference_gpu_energy_joules_per_image": energy.gpu_energy_kwh * JOULES_PER_KWH / number,
            "inference_ram_energy_joules_per_image": energy.ram_energy_kwh * JOULES_PER_KWH / number,
            "inference_emissions_ug_per_image": energy.emissions_kg * MICROGRAMS_PER_KG / number,
            "inference_seconds_measured": energy.duration_s,
            "inference_images_measured": number,
        },
        {
            "energy_method": energy.method,
            "energy_source": energy.source,
            "device": device_name(subject.device),
            "threads": str(used),
        },
    )


EVALUATION = Evaluation(
    "energy",
    measure,
    per="architecture",
    options=Options,
    quantities={
        "inference_energy_joules_per_image": "Energy of processor, memory and, if used, GPU for one image in a large batch",
        "inference_cpu_energy_joules_per_image": "The processor's part of it",
        "inference_gpu_energy_joules_per_image": "The GPU's part of it",
        "inference_ram_energy_joules_per_image": "The memory's part of it; 0 where it is not counted",
        "inference_emissions_ug_per_image": "CO2 equivalents in micrograms: that energy times the carbon intensity",
        "inference_seconds_measured": "Wall time of the measurement",
        "inference_images_measured": "Images in it",
    },
    source="codecarbon, offline",
)
