"""The energy meter: laps, bounds, what is counted, and that it is silent and offline."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunebench import energy_meter
from prunebench.energy_meter import Energy, EnergyMeter, carbon_intensity
from prunebench.errors import PrunebenchError

WATTS = 60.0
JOULES_PER_KWH = 3.6e6


def busy(seconds: float) -> float:
    """Keep one core busy; returns the CPU time used."""
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() < start + seconds:
        sum(range(1000))
    return time.process_time() - cpu


def test_energy_lies_between_zero_and_power_times_time() -> None:
    for _ in range(10):  # until a second passes in which no other work on the machine came between the clocks
        with EnergyMeter("DEU", cpu_power_watts=WATTS) as meter:
            meter.lap()
            cpu_seconds = busy(1.0)
            energy = meter.lap()
        # This process's CPU time is the whole processor's power for one of its cores; CPU times come in ticks of 10 ms.
        expected = WATTS * cpu_seconds / (os.cpu_count() or 1)
        if energy.cpu_energy_kwh * JOULES_PER_KWH == pytest.approx(expected, rel=0.3):
            break
    else:
        pytest.fail(f"{energy.cpu_energy_kwh * JOULES_PER_KWH:.1f} J, expected about {expected:.1f} J")
    assert energy.cpu_energy_kwh * JOULES_PER_KWH <= WATTS * energy.duration_s
    assert energy.ram_energy_kwh > 0
    assert energy.gpu_energy_kwh == 0
    assert energy.energy_kwh == pytest.approx(energy.cpu_energy_kwh + energy.ram_energy_kwh)
    assert energy.emissions_kg == pytest.approx(energy.energy_kwh * carbon_intensity("DEU") / 1000)
    assert energy.duration_s >= 1
    assert energy.method == "estimated"
    assert "60 W" in energy.source


def test_laps_add_up_to_the_total() -> None:
    with EnergyMeter("FRA", cpu_power_watts=WATTS) as meter:
        laps = []
        for seconds in (0.3, 0.01, 0.2):
            busy(seconds)
            laps.append(meter.lap())
        total = meter.reading()
    together = sum(laps, Energy())
    assert all(lap.energy_kwh >= 0 and lap.duration_s > 0 for lap in laps)
    # What is not in a lap was used between the last lap and the reading, and no machine draws more than this.
    left, seconds = total.energy_kwh - together.energy_kwh, total.duration_s - together.duration_s
    assert 0 <= left * JOULES_PER_KWH + 1e-9 <= (WATTS + 100) * seconds + 1e-6
    assert together.energy_kwh > 0
    assert together.source == total.source
    assert total.energy_kwh <= meter.reading().energy_kwh


def test_work_of_others_is_not_counted() -> None:
    # A child of a process that has ended: not this process's child, so another job.
    script = "import time; end = time.monotonic() + 1.2\nwhile time.monotonic() < end: pass"
    with EnergyMeter("DEU", cpu_power_watts=WATTS) as meter:
        subprocess.run(["sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 &', sys.executable, script], check=True)
        time.sleep(0.2)
        meter.lap()
        time.sleep(0.8)
        energy = meter.lap()
    one_core = WATTS * energy.duration_s / (os.cpu_count() or 1)
    assert energy.cpu_energy_kwh * JOULES_PER_KWH < 0.3 * one_core


def test_given_carbon_intensity_replaces_the_countrys() -> None:
    with EnergyMeter("DEU", carbon_intensity_g_per_kwh=1000.0, cpu_power_watts=WATTS) as meter:
        busy(0.1)
    assert meter.reading().emissions_kg == pytest.approx(meter.reading().energy_kwh)
    assert meter.reading().energy_kwh > 0


def test_unknown_country_is_refused() -> None:
    with pytest.raises(PrunebenchError, match=r"country_iso_code.*'XYZ'"):
        EnergyMeter("XYZ")


def test_meter_must_be_entered() -> None:
    with pytest.raises(RuntimeError, match="not entered"):
        EnergyMeter("DEU").reading()
    with pytest.raises(RuntimeError, match="not entered"):
        EnergyMeter("DEU").counters  # noqa: B018


class CPU:
    _mode, _tdp = "intel_rapl", None


class GPU:
    def _get_gpu_ids(self) -> list[int]:
        return [0]


@pytest.mark.parametrize(
    ("hardware", "device", "rapl", "method", "counters", "words"),
    [
        ([CPU()], "cpu", True, "measured", {"cpu"}, "CPU: RAPL"),
        ([CPU(), GPU()], "cpu", True, "measured", {"cpu"}, "CPU: RAPL"),  # a GPU that is not used
        ([CPU(), GPU()], "cuda:0", True, "measured", {"cpu", "gpu"}, "GPU: NVML"),
        ([CPU()], "cuda:0", True, "estimated", {"cpu"}, "no counter found"),
        ([CPU(), GPU()], "cuda:0", False, "estimated", {"gpu"}, "GPU: NVML"),
        ([], "cpu", False, "estimated", set(), "RAM: codecarbon's constant"),
    ],
)
def test_what_counters_measure(
    hardware: list[object],
    device: str,
    rapl: bool,
    method: str,
    counters: set[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(energy_meter, "nvml_index", lambda device: [0])
    found = energy_meter._describe(SimpleNamespace(_hardware=hardware), device, rapl, 400.0)
    assert (found[0], found[2]) == (method, counters)
    assert words in found[1]
    assert found[1].endswith("400 g CO2e/kWh; PUE 1")


@pytest.mark.parametrize(("ids", "method"), [([0], "measured"), ([0, 1], "estimated")])
def test_counters_of_other_gpus_too_are_no_measurement(ids: list[int], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_meter, "nvml_index", lambda device: None)
    monkeypatch.setattr(GPU, "_get_gpu_ids", lambda self: ids)
    found = energy_meter._describe(SimpleNamespace(_hardware=[CPU(), GPU()]), "cuda:0", True, 400.0)
    assert found[0] == method and f"all {len(ids)} visible GPUs" in found[1]


def test_nothing_is_written_printed_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Settings of the user's that would make codecarbon write files and call servers.
    (tmp_path / ".codecarbon.config").write_text("[codecarbon]\noutput_methods = csv,api\nlog_level = debug\n")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://192.0.2.1:9")
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "token")
    monkeypatch.setenv("CODECARBON_PUE", "100")
    monkeypatch.chdir(tmp_path)
    calls: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: calls.append(address))
    with EnergyMeter("DEU", cpu_power_watts=WATTS) as meter:
        busy(0.1)
        energy = meter.lap()
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == [".codecarbon.config"]
    assert capfd.readouterr() == ("", "")
    assert energy.cpu_energy_kwh * JOULES_PER_KWH <= WATTS * energy.duration_s


def test_slurm_allocation_is_not_taken_for_the_machine(tmp_path: Path) -> None:
    # codecarbon would ask scontrol for the job's cores, and fail where there is none.
    script = (
        "import json\nfrom prunebench.energy_meter import EnergyMeter\n"
        "with EnergyMeter('DEU', cpu_power_watts=60.0) as meter:\n    sum(range(10**6))\n"
        "import os\nprint(json.dumps([meter.reading().to_json(), os.environ['SLURM_JOB_ID']]))"
    )
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_LOCALID": "1", "PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    reading, job = json.loads(result.stdout)
    assert reading["ram_energy_kwh"] > 0
    assert job == "1"
    assert result.stderr == ""


def test_an_error_in_the_work_comes_through() -> None:
    with pytest.raises(KeyError, match="work"), EnergyMeter("DEU", cpu_power_watts=WATTS) as meter:
        raise KeyError("work")
    assert meter.reading().energy_kwh >= 0


def test_sum_of_attempts() -> None:
    first = Energy(3.0, 0.3, 10.0, 1.0, 1.5, 0.5, "measured", "CPU: A")
    second = Energy(5.0, 0.5, 20.0, 2.0, 2.5, 0.5, "estimated", "CPU: B")
    assert first + second == Energy(8.0, 0.8, 30.0, 3.0, 4.0, 1.0, "estimated", "CPU: A | CPU: B")
    assert first + first == Energy(6.0, 0.6, 20.0, 2.0, 3.0, 1.0, "measured", "CPU: A")
    assert Energy() + first == first + Energy() == first
    assert (first + second + first).source == "CPU: A | CPU: B"


def test_json_round_trip() -> None:
    energy = Energy(3.0, 0.3, 10.0, 1.0, 1.5, 0.5, "measured", "CPU: A")
    assert Energy.from_json(json.loads(json.dumps(energy.to_json()))) == energy


@pytest.mark.parametrize(
    ("key", "value"),
    [("energy_kwh", "3"), ("duration_s", True), ("method", "guessed"), ("source", 1), ("emissions_kg", None)],
)
def test_wrong_json_is_refused_by_key(key: str, value: object) -> None:
    content = {**Energy().to_json(), key: value}
    with pytest.raises(PrunebenchError, match=f"training.json: {key} is"):
        Energy.from_json(content, "training.json")
    del content[key]
    with pytest.raises(PrunebenchError, match=f"training.json: lacks {key}"):
        Energy.from_json(content, "training.json")
