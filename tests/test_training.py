"""The training loop: reproducible, also when it is killed and goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from helpers import OneKwh, architecture, images, random_network, random_split
from prunebench import training
from prunebench.config import Dense, FineTuning, Training
from prunebench.data import Split
from prunebench.energy_meter import Energy
from prunebench.errors import PrunebenchError
from prunebench.training import Run, Trained, batches, learning_rate, make_optimizer, train

TINY = ("resnet20", (1, 8, 8))


def run(tmp_path: Path, epochs: int = 4, **changes: Any) -> Run:
    split = random_split(37)
    settings = FineTuning(learning_rate=0.05, batch_size=16)
    base = Run("tiny", split.dataset, split, settings, epochs, 1, "cpu", tmp_path / "checkpoint.safetensors")
    return replace(base, **changes)


def tiny(**options: Any) -> Any:
    pruned = architecture(*TINY, **options).without(["stage1.block1", "stage1.block2", "stage2.block1", "stage2.block2"])
    return random_network(pruned)


def state(network: nn.Module) -> dict[str, bytes]:
    return {name: values.contiguous().numpy().tobytes() for name, values in network.state_dict().items()}


def trained(described: Run, energy: Any = Energy) -> tuple[dict[str, bytes], Trained]:
    network = tiny()
    result = train(network, described, energy)
    return state(network), result


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, history = trained(run(tmp_path))
    torch.manual_seed(123)  # the global generator has no part in it
    second, again = trained(run(tmp_path))
    assert first == second
    assert history == again
    assert first != state(tiny())


def test_dropout_is_drawn_by_the_seed_and_the_epoch(tmp_path: Path) -> None:
    results = []
    for generator, epochs in ((1, [0, 1]), (2, [0, 1]), (3, [0, 2])):
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        nn.init.zeros_(network[2].weight)
        nn.init.zeros_(network[2].bias)
        for epoch in epochs:
            torch.manual_seed(generator)  # as if the process had been killed and something else been drawn
            described = run(tmp_path, 1, first_epoch=epoch)
            train(
                network, replace(described, split=random_split(16)), Energy
            )  # one batch: its order changes no sum but by rounding
        results.append(network[2].weight.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


@pytest.mark.parametrize("changes", [{"seed": 2}, {"first_epoch": 1}])
def test_another_seed_or_first_epoch_gives_another_order(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert trained(run(tmp_path, epochs=1))[0] != trained(run(tmp_path, epochs=1, **changes))[0]


def test_later_epochs_see_the_orders_that_a_longer_run_sees(tmp_path: Path) -> None:
    orders: dict[str, list[list[int]]] = {"at once": [], "in turn": []}

    class Recorder(Split):
        def pixels(self, positions: torch.Tensor) -> torch.Tensor:
            orders[self.name].append(positions.tolist())  # type: ignore[attr-defined]
            return super().pixels(positions)

    def recorder(name: str) -> Split:
        split = random_split(37)
        recording = Recorder(split.dataset, split.images, split.indices)
        object.__setattr__(recording, "name", name)
        return recording

    train(tiny(), run(tmp_path, 3, split=recorder("at once")), Energy)
    for epoch in range(3):
        train(tiny(), run(tmp_path, 1, split=recorder("in turn"), first_epoch=epoch), Energy)
    assert orders["at once"] == orders["in turn"]
    assert len(orders["at once"]) == 9


def test_every_image_is_seen_once_an_epoch() -> None:
    order = torch.randperm(33)
    parts = batches(order, 16)
    assert torch.equal(torch.cat(parts), order)
    # A last image by itself has no variance: it joins the batch before.
    assert [len(part) for part in parts] == [16, 17]
    assert [len(part) for part in batches(torch.arange(34), 16)] == [16, 16, 2]
    assert [len(part) for part in batches(torch.arange(1), 16)] == [1]


def test_a_last_batch_of_one_image_can_be_trained_on(tmp_path: Path) -> None:
    split = random_split(17, (1, 4, 4))  # stage 3 has 1 x 1 pixels
    network = random_network(architecture("resnet20", (1, 4, 4)))
    result = train(network, run(tmp_path, 1, split=split, dataset=split.dataset), Energy)
    assert math.isfinite(result.history[0]["train_loss"])


class Killed(Exception):
    """In place of a signal."""


def killed_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Write a checkpoint after each epoch, and die right after that of epoch ``epochs``."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    write = training.write_checkpoint

    def write_and_die(*arguments: Any) -> None:
        write(*arguments)
        if len(arguments[4]) == epochs:
            raise Killed

    monkeypatch.setattr(training, "write_checkpoint", write_and_die)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    expected, whole = trained(run(tmp_path))
    with monkeypatch.context() as patch:
        killed_after(patch, epochs)
        with pytest.raises(Killed):
            train(tiny(), run(tmp_path), Energy)
    seen: list[int] = []
    monkeypatch.setattr(training, "learning_rate", lambda *arguments: seen.append(1) or learning_rate(*arguments))
    found, rest = trained(run(tmp_path))
    assert found == expected
    assert rest.history == whole.history
    assert [row["epoch"] for row in rest.history] == [1, 2, 3, 4]
    assert len(seen) == (4 - epochs) * 3  # the finished epochs were not trained again


def test_an_error_within_an_epoch_costs_that_epoch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, whole = trained(run(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        calls = iter(range(8))  # three steps an epoch: dies in the third epoch
        patch.setattr(training, "to_unit", lambda pixels: (next(calls), pixels.float() / 255)[1])
        with pytest.raises((StopIteration, RuntimeError)):
            train(tiny(), run(tmp_path), Energy)
    found, rest = trained(run(tmp_path))
    assert (found, rest.history) == (expected, whole.history)


def test_energy_of_attempts_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = Energy()

    def energy() -> Energy:
        nonlocal spent
        spent = spent + OneKwh().lap()
        return spent

    assert train(tiny(), run(tmp_path), energy).earlier_energy is None
    for attempt, epochs in enumerate((1, 3), start=1):
        spent = Energy()
        with monkeypatch.context() as patch:
            killed_after(patch, epochs)
            with pytest.raises(Killed):
                train(tiny(), run(tmp_path), energy)
        spent = Energy()
        result = train(tiny(), run(tmp_path, epochs=4), Energy)
        assert result.earlier_energy is not None
        # One lap at each checkpoint of each attempt: 1 in the first, 2 more in the second.
        assert result.earlier_energy.energy_kwh == (1.0 if attempt == 1 else 3.0)


def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            train(tiny(), run(tmp_path), Energy)
    return tmp_path / "checkpoint.safetensors"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("nonsense"),
        lambda path: flip(path, -3),
        lambda path: flip(path, path.stat().st_size // 2),
        lambda path: flip(path, 60),
        lambda path: save_file(load_file(path), path),
    ],
    ids=["truncated", "empty", "text", "last value", "middle value", "metadata", "no metadata"],
)
def test_a_corrupt_checkpoint_is_named_and_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    expected, whole = trained(run(tmp_path / "other"))
    path = checkpoint(tmp_path, monkeypatch)
    damage(path)
    capsys.readouterr()
    found, result = trained(run(tmp_path))
    assert str(path) in capsys.readouterr().out
    assert (found, result) == (expected, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"epochs": 5},
        {"first_epoch": 3},
        {"name": "another"},
        {"context": "another dataset"},
        {"settings": FineTuning(learning_rate=0.051, batch_size=16)},
        {"split": random_split(36)},
    ],
)
def test_a_checkpoint_of_another_run_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    path = checkpoint(tmp_path, monkeypatch)
    capsys.readouterr()
    found, result = trained(run(tmp_path, **changes))
    assert f"{path}: checkpoint of another configuration" in capsys.readouterr().out
    assert (found, result) == trained(run(tmp_path / "other", **changes))


def test_a_checkpoint_that_began_with_other_weights_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where their magnitudes are the same."""
    path = checkpoint(tmp_path, monkeypatch)
    network = tiny()
    with torch.no_grad():
        network.classifier.weight.neg_()
    capsys.readouterr()
    train(network, run(tmp_path), Energy)
    assert f"{path}: checkpoint of another configuration" in capsys.readouterr().out


def test_a_checkpoint_holds_the_momentum_of_every_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path, monkeypatch)
    with safe_open(path, framework="pt") as handle:
        shapes = {name[9:]: tuple(handle.get_tensor(name).shape) for name in handle.keys() if name.startswith("momentum.")}
    assert shapes == {name: tuple(parameter.shape) for name, parameter in tiny().named_parameters()}


def test_a_diverging_run_names_the_learning_rate(tmp_path: Path) -> None:
    settings = FineTuning(learning_rate=1e6, batch_size=16)
    with pytest.raises(PrunebenchError, match=r"tiny: the loss is .* learning rate .*lower learning_rate"):
        train(tiny(), run(tmp_path, settings=settings), Energy)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_cosine_schedule(progress: float) -> None:
    expected = {0.0: 0.2, 0.25: 0.2 * (2 + math.sqrt(2)) / 4, 0.5: 0.1, 0.75: 0.2 * (2 - math.sqrt(2)) / 4, 0.999: 0.0}
    assert learning_rate(Dense(learning_rate=0.2), progress) == pytest.approx(expected[progress], abs=1e-6)


def test_step_schedule_of_the_papers(tmp_path: Path) -> None:
    settings = Dense(learning_rate=0.1, schedule="step")
    rates = [learning_rate(settings, epoch / 200) for epoch in range(200)]
    assert rates == pytest.approx([0.1] * 100 + [0.01] * 50 + [0.001] * 50)


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_the_rate_falls_within_a_run_and_begins_high(tmp_path: Path, schedule: Any) -> None:
    settings = FineTuning(learning_rate=0.05, batch_size=16, schedule=schedule)
    rates = [row["learning_rate"] for row in trained(run(tmp_path, settings=settings))[1].history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 / 10 < rates[0] <= 0.05


def test_weight_decay_falls_on_convolution_kernels_alone(tmp_path: Path) -> None:
    network = tiny(keras_compatible=True)
    optimizer = make_optimizer(network, Training(weight_decay=0.5, learning_rate=0.1, momentum=0))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kernels = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert 0 < len(kernels) < len(before)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if name in kernels else 1.0))


def test_momentum_is_that_of_nesterov() -> None:
    """Against v = 0.9 v + g, w = w - rate (g + 0.9 v), for a gradient of 1."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.zeros_(network[0].weight)
    optimizer = make_optimizer(network, Training(learning_rate=0.1, momentum=0.9))
    weight = velocity = 0.0
    for _ in range(3):
        network[0].weight.grad = torch.ones(1, 1)
        optimizer.step()
        velocity = 0.9 * velocity + 1.0
        weight -= 0.1 * (1.0 + 0.9 * velocity)
    assert network[0].weight.item() == pytest.approx(weight)


def test_no_epochs_leave_the_network_untouched(tmp_path: Path) -> None:
    found, result = trained(run(tmp_path, epochs=0))
    assert found == state(tiny())
    assert result == Trained([], None)


def test_batch_norm_momentum_is_that_of_the_config(tmp_path: Path) -> None:
    network = tiny()
    train(network, run(tmp_path, 1, settings=FineTuning(batch_norm_momentum=0.01, batch_size=37, augment=False)), Energy)
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.01}
    # Known answer for the first batch norm after a single step: 0.99 old + 0.01 of the batch.
    reference = tiny()
    split = random_split(37)
    with torch.no_grad():
        inputs = reference.conv(reference.normalise(split.pixels(torch.arange(37)).float() / 255))
    expected = 0.99 * reference.bn.running_mean + 0.01 * inputs.mean((0, 2, 3))
    torch.testing.assert_close(network.bn.running_mean, expected)


def test_the_network_is_left_in_evaluation_mode_and_learns(tmp_path: Path) -> None:
    network = tiny()
    # 20 images to learn by heart.
    split = random_split(20)
    settings = FineTuning(learning_rate=0.05, batch_size=10, augment=False)
    history = train(network, run(tmp_path, 12, split=split, settings=settings), Energy).history
    assert not network.training
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["train_accuracy"] > 80
    assert torch.equal(network(images(4)), network(images(4)))
