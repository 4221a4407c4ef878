"""Attacks: known answers on linear networks, the order of attacks, masked gradients, and long attacks that go on where they stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from prunebench.attacks import AttackOptions, Target, Threat, described, gradient, standard
from prunebench.attacks.standard import ATTACKS, autoattack
from prunebench.data import Dataset, ResidentImages, Split, cifar10, find_dataset, load_splits, some, to_unit
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject, Values, find_evaluation
from prunebench.evaluation.autoattack import unsuited
from prunebench.models.keras_files import import_keras, training_mean
from shared import shared_data

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits that are linear in the pixels, so that the distance to the nearest other class has a formula."""

    def __init__(self, classes: int, shape: tuple[int, int, int] = (1, 6, 6), seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        weight = scale * torch.randn(classes, pixels, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)
        # The classes meet at the middle grey, near which the images are.
        self.bias = nn.Parameter(-0.5 * weight.sum(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.linear(images.flatten(1), self.weight, self.bias)

    def robust(self, images: torch.Tensor, labels: torch.Tensor, threat: Threat) -> torch.Tensor:
        """Whether no other class is within the distance, leaving aside that values end at 0 and 1."""
        apart = self.weight[labels].unsqueeze(1) - self.weight.unsqueeze(0)
        logits = self(images)
        margins = logits.gather(1, labels[:, None]) - logits
        lengths = apart.abs().sum(dim=2) if threat.norm == "Linf" else apart.norm(dim=2)
        stands = margins > threat.eps * lengths
        stands[torch.arange(len(labels)), labels] = True
        return stands.all(dim=1)


def split_of(pixels: torch.Tensor, labels: torch.Tensor, classes: int) -> Split:
    content = ResidentImages(pixels, labels)
    dataset = Dataset("grey", (*pixels.shape[1:],), classes, 0, False, lambda folder, part, download: content, "")
    return Split(dataset, content, torch.arange(len(labels)))


def grey_split(network: nn.Module, number: int, classes: int, wrong: int = 0) -> Split:
    """Images near the middle grey, labelled by the network but for the first so many."""
    pixels = torch.randint(90, 166, (number, 1, 6, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels = network(to_unit(pixels)).argmax(dim=1)
    labels[:wrong] = (labels[:wrong] + 1) % classes
    return split_of(pixels, labels, classes)


def subject(network: nn.Module, split: Split, name: str, **options: Any) -> Subject:
    kind = find_evaluation(name).options
    assert kind is not None
    filled = kind.model_validate(options).model_dump()
    dataset = split.dataset
    return Subject(network.eval(), dataset.input_shape, dataset.classes, lambda: split, CPU, options=filled, seed=7)


def run(name: str, network: nn.Module, split: Split, **options: Any) -> Values:
    return find_evaluation(name).measure(subject(network, split, name, **options))


def target_of(network: nn.Module, split: Split, batch_size: int = 250) -> Target:
    return Target.of(
        Subject(network.eval(), split.dataset.input_shape, split.dataset.classes, lambda: split, CPU, batch_size=batch_size), 1000
    )


@pytest.fixture(scope="module", autouse=True)
def fewer_queries() -> Iterator[None]:
    """Less work for the package: what these tests say does not depend on it."""
    real = pyautoattack.AutoAttack._set_version

    def less(library: Any, version: str) -> None:
        real(library, version)
        library.square.n_queries, library.fab.n_iter = 500, 30

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pyautoattack.AutoAttack, "_set_version", less)
        yield


# --- known answers ---------------------------------------------------------------------------------------------------

DISTANCES = [Threat("Linf", 2), Threat("Linf", 5), Threat("L2", 0.03), Threat("L2", 0.1)]


@pytest.mark.parametrize("threat", DISTANCES, ids=lambda threat: threat.name)
def test_gradient_attacks_are_exact_on_two_linear_classes(threat: Threat) -> None:
    network = Linear(2)
    target = target_of(network, grey_split(network, 200, 2, wrong=20), batch_size=33)
    images, labels = target.load(torch.arange(200))
    expected = network.robust(images, labels, threat)
    assert 0 < int(expected.sum()) < 180
    stands, silent = gradient.fgsm(target, [threat])
    assert torch.equal(stands[0], expected)
    assert not silent.any()
    found = gradient.pgd(target, threat, steps=20, step_size=2.5 * threat.eps / 20, restarts=1, seed=0)
    # On a sphere it nears the furthest point without reaching it.
    assert not (expected & ~found).any()
    assert int((found & ~expected).sum()) <= (0 if threat.norm == "Linf" else 2)


@pytest.mark.parametrize("threat", [Threat("Linf", 2), Threat("L2", 0.04)], ids=lambda threat: threat.name)
def test_autoattack_is_exact_on_linear_classes(threat: Threat) -> None:
    network = Linear(5)
    target = target_of(network, grey_split(network, 20, 5, wrong=3))
    images, labels = target.load(torch.arange(20))
    expected = network.robust(images, labels, threat)
    outcome = autoattack(target, threat, seed=0, classes=5)
    assert 0 < int(expected.sum()) < 17
    assert torch.equal(outcome.stands, expected)
    assert outcome.reasons == []


def test_what_leaves_the_distance_is_drawn_back() -> None:
    images = torch.rand(20, 3, 4, 4)
    for threat in (Threat("Linf", 8), Threat("L2", 0.3)):
        moved = gradient.project(images + torch.randn(images.shape), images, threat)
        change = (moved - images).flatten(1)
        furthest = change.abs().amax(dim=1) if threat.norm == "Linf" else change.norm(dim=1)
        assert float(furthest.max()) <= threat.eps * (1 + 1e-5)
        assert float(moved.min()) >= 0 and float(moved.max()) <= 1
        assert torch.allclose(gradient.project(moved, images, threat), moved, atol=1e-6)


def test_a_library_that_leaves_the_distance_is_refused() -> None:
    images = torch.full((1, 1, 2, 2), 0.5)
    standard._refuse_beyond(images + 0.03, images, Threat("Linf", 8), "square")
    with pytest.raises(PrunebenchError, match=r"square moved an image by 0\.04"):
        standard._refuse_beyond(images + 0.04, images, Threat("Linf", 8), "square")
    with pytest.raises(PrunebenchError, match="nan"):
        standard._refuse_beyond(images * torch.nan, images, Threat("Linf", 8), "square")


# --- a trained network -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Split:
    return some(load_splits(find_dataset("digits"), Path(), "test"), 60)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    split = load_splits(find_dataset("digits"), Path(), "train")
    images, labels = to_unit(split.pixels(torch.arange(len(split)))), split.labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    optimiser.zero_grad()
    return network.eval()


SMALL = {"images": 24, "linf_eps_255": [24, 48]}


def test_stronger_attacks_leave_less(trained: nn.Module, digits: Split) -> None:
    found = {name: run(name, trained, digits, **SMALL).values for name in ("fgsm", "pgd", "autoattack")}
    for size in (24, 48):
        key = f"robust_accuracy_linf_eps{size}_255_percent"
        steps = [found["fgsm"]["clean_accuracy_percent"], *(found[name][key] for name in ("fgsm", "pgd", "autoattack"))]
        assert steps == sorted(steps, reverse=True)
        after = [
            found["autoattack"][f"robust_after_{name}_linf_eps{size}_255_percent"] for name in ("apgd_ce", "apgd_t", "fab_t")
        ]
        assert [steps[0], *after, steps[-1]] == sorted([steps[0], *after, steps[-1]], reverse=True)
    key = "robust_accuracy_linf_eps{}_255_percent"
    assert 0 < found["autoattack"][key.format(24)] < found["pgd"]["clean_accuracy_percent"]
    for values in found.values():
        assert values["unreliable"] == 0
        assert values["images"] == 24
        assert len({v["clean_accuracy_percent"] for v in found.values()}) == 1
    assert found["pgd"]["unbounded_robust_accuracy_percent"] == 0


def test_robust_accuracy_is_of_all_images(trained: nn.Module, digits: Split) -> None:
    mislabelled = split_of(digits.pixels(torch.arange(40)), (digits.labels[:40] + 1) % 10, 10)
    for name in ("fgsm", "pgd", "autoattack"):
        values = run(name, trained, mislabelled, linf_eps_255=[1]).values
        assert values["robust_accuracy_linf_eps1_255_percent"] <= values["clean_accuracy_percent"] < 10


def test_pgd_does_not_depend_on_batches_and_follows_its_seed(trained: nn.Module, digits: Split) -> None:
    threat = Threat("Linf", 24)

    def flags(batch_size: int, seed: int) -> torch.Tensor:
        return gradient.pgd(
            target_of(trained, digits, batch_size), threat, steps=1, step_size=threat.eps / 4, restarts=2, seed=seed
        )

    assert torch.equal(flags(60, 0), flags(7, 0))
    images, positions = torch.full((2, 1, 8, 8), 0.5), torch.tensor([3, 9])
    both = gradient.random_start(images, positions, threat, 0)
    assert torch.equal(both[1:], gradient.random_start(images[1:], positions[1:], threat, 0))
    assert not torch.equal(both, gradient.random_start(images, positions, threat, 1))


def test_more_restarts_never_leave_more(trained: nn.Module, digits: Split) -> None:
    target, threat = target_of(trained, digits), Threat("Linf", 32)
    one, three = (gradient.pgd(target, threat, steps=2, step_size=threat.eps / 4, restarts=n, seed=0) for n in (1, 3))
    assert not (three & ~one).any()


def test_a_network_that_diverged_is_not_robust(digits: Split) -> None:
    class Diverged(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 10), torch.nan) + 0 * images.sum()

    for name in ("fgsm", "pgd", "autoattack"):
        values = run(name, Diverged(), digits, linf_eps_255=[1]).values
        assert values["robust_accuracy_linf_eps1_255_percent"] == values["clean_accuracy_percent"] == 0


# --- networks that mislead attacks -----------------------------------------------------------------------------------


class Rounded(nn.Module):
    """Logits in steps: their gradient is zero wherever it exists."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return torch.round(logits * 20) / 20 + 0 * logits


class Saturated(Rounded):
    """Logits so far apart that the cross-entropy has no gradient in float32."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 1e4 * self.network(images)  # type: ignore[no-any-return]


MASKED = {"images": 20, "linf_eps_255": [48]}
KEY = "robust_accuracy_linf_eps48_255_percent"


@pytest.mark.parametrize("mask", [Rounded, Saturated])
def test_masked_gradients_are_found(mask: type[Rounded], trained: nn.Module, digits: Split) -> None:
    network = mask(trained)
    fgsm, pgd, strong = (run(name, network, digits, **MASKED) for name in ("fgsm", "pgd", "autoattack"))
    clean = fgsm.values["clean_accuracy_percent"]
    assert clean > 80
    # The cross-entropy leads nowhere, and both attacks that follow it say so.
    assert fgsm.values[KEY] > clean - 10
    assert pgd.values[KEY] > clean - 15
    assert fgsm.values["unreliable"] == pgd.values["unreliable"] == 1
    assert fgsm.values["zero_gradient_percent"] > clean - 10
    assert "zero gradients" in pgd.labels["unreliable_reasons"]
    # AutoAttack does better than they.
    assert strong.values[KEY] < pgd.values[KEY] - 20
    flagged = strong.values["unreliable"], strong.values["unreliable_linf_eps48_255"]
    if mask is Rounded:
        assert flagged == (1, 1)
        assert "zero gradients" in strong.labels["unreliable_reasons"]
        assert standard.SQUARE in strong.labels["unreliable_reasons"]
    else:
        # Its second loss does not depend on the scale, so here its word can be taken.
        assert flagged == (0, 0)
        assert strong.values[KEY] == run("autoattack", trained, digits, **MASKED).values[KEY]


def test_random_networks_and_probabilities_are_found(trained: nn.Module, digits: Split) -> None:
    class Noisy(Rounded):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images) + 0.1 * torch.randn(len(images), 10)  # type: ignore[no-any-return]

    class Probable(Rounded):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images).softmax(dim=1)  # type: ignore[no-any-return]

    options = {"images": 6, "linf_eps_255": [200]}
    assert "random" in run("autoattack", Noisy(trained), digits, **options).labels["unreliable_reasons"]
    assert "probabilities" in run("autoattack", Probable(trained), digits, **options).labels["unreliable_reasons"]
    assert run("autoattack", trained, digits, **options).values["unreliable"] == 0


def test_a_network_without_gradients_is_better_than_chance_without_a_bound(trained: nn.Module, digits: Split) -> None:
    values = run("pgd", Rounded(trained), digits, images=20, linf_eps_255=[1]).values
    assert values["unbounded_robust_accuracy_percent"] > 10


# --- AutoAttack is the package's, and goes on where it stopped -------------------------------------------------------

QUICK = Threat("Linf", 26)


@pytest.fixture(scope="module")
def whole(trained: nn.Module, digits: Split) -> Target:
    return target_of(trained, digits.subset(torch.arange(30)), batch_size=8)


@pytest.fixture(scope="module")
def expected(whole: Target) -> standard.Outcome:
    return autoattack(whole, QUICK, seed=3, classes=10)


def test_autoattack_is_what_the_package_makes_of_it(whole: Target, expected: standard.Outcome) -> None:
    images, labels = whole.load(torch.arange(30))
    library = pyautoattack.AutoAttack(
        whole.network, norm="Linf", eps=QUICK.eps, seed=standard.derive(3, QUICK.name), version="standard"
    )
    with torch.random.fork_rng():
        _, found = library.run_standard_evaluation(images, labels, batch_size=8)
    assert torch.equal(expected.stands, found == labels)
    assert 0 < int(expected.stands.sum()) < int(whole.correct.sum())
    assert library.attacks_to_run == list(ATTACKS)


class Killed(Exception):
    pass


def test_a_killed_attack_goes_on_where_it_stopped(
    whole: Target, expected: standard.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = standard._attack, []

    def counted(target: Target, positions: torch.Tensor, threat: Threat, attack: str, seed: int, classes: int) -> Any:
        if len(done) == 3 and not (tmp_path / "again").exists():
            raise Killed
        done.append(attack)
        return real(target, positions, threat, attack, seed, classes)

    monkeypatch.setattr(standard, "_attack", counted)
    kept = tmp_path / "work" / "kept.json"
    with pytest.raises(Killed):
        autoattack(whole, QUICK, seed=3, classes=10, kept=kept)
    # It was within the first attack: three of its four batches were done.
    assert done == ["apgd-ce"] * 3
    (tmp_path / "again").touch()
    outcome = autoattack(whole, QUICK, seed=3, classes=10, kept=kept)
    assert done[3:5] == ["apgd-ce", "apgd-t"]
    for attack in ATTACKS:
        assert torch.equal(outcome.after[attack], expected.after[attack])
    number = len(done)
    autoattack(whole, QUICK, seed=3, classes=10, kept=kept)
    assert len(done) == number


def test_the_work_of_another_network_is_not_taken(trained: nn.Module, digits: Split, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    easy = Threat("Linf", 250)
    autoattack(target_of(trained, digits), easy, seed=3, classes=10, kept=kept)
    before = kept.read_text()
    changed = nn.Sequential(trained, nn.Identity(), nn.Linear(10, 10))
    with torch.no_grad():
        changed[2].weight.copy_(2 * torch.eye(10))
        changed[2].bias.zero_()
    autoattack(target_of(changed, digits), easy, seed=3, classes=10, kept=kept)
    assert kept.read_text() != before
    kept.write_text("{")
    assert not autoattack(target_of(trained, digits), easy, seed=3, classes=10, kept=kept).stands.any()


def test_an_attack_leaves_everything_else_alone(trained: nn.Module, digits: Split) -> None:
    state, tracer = torch.get_rng_state(), sys.gettrace()
    first = run("autoattack", trained, digits, images=10, linf_eps_255=[60])
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.gettrace() is tracer
    assert all(parameter.requires_grad and parameter.grad is None for parameter in trained.parameters())
    torch.rand(5)
    assert run("autoattack", trained, digits, images=10, linf_eps_255=[60]).values == first.values


# --- few classes, options ----------------------------------------------------------------------------------------------


def test_few_classes() -> None:
    network = Linear(3)
    split = grey_split(network, 10, 3)
    message = unsuited(split.dataset)
    assert message is not None and "needs 4 classes, grey has 3; take pgd" in message
    assert unsuited(find_dataset("digits")) is None
    with pytest.raises(PrunebenchError, match="needs 4 classes, not 3"):
        run("autoattack", network, split, linf_eps_255=[4])
    five = Linear(5)
    assert "4 target classes" in run("autoattack", five, grey_split(five, 6, 5), linf_eps_255=[100]).labels["attack"]


def test_distances_are_named_and_none_is_asked_for_twice() -> None:
    options = AttackOptions(linf_eps_255=[0.5, 8], l2_eps=[0.25])
    assert [threat.name for threat in options.threats] == ["linf_eps0.5_255", "linf_eps8_255", "l2_eps0.25"]
    assert [threat.eps for threat in options.threats] == [0.5 / 255, 8 / 255, 0.25]
    assert described(options.threats) == "Linf 0.5/255, Linf 8/255, L2 0.25"
    for wrong in ({"linf_eps_255": []}, {"linf_eps_255": [1, 1.0]}, {"linf_eps_255": [0]}, {"l2_eps": [-1]}):
        with pytest.raises(ValidationError):
            AttackOptions.model_validate(wrong)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "autoattack"])
def test_every_quantity_is_declared_and_explained(name: str, trained: nn.Module, digits: Split) -> None:
    evaluation = find_evaluation(name)
    values = run(name, trained, digits, images=4, linf_eps_255=[200, 0.5], l2_eps=[2.5]).values
    patterns = {
        quantity: quantity.replace(".", r"\.")
        .replace("<n>", r"[\d.]+")
        .replace("<distance>", r"(linf_eps[\d.]+_255|l2_eps[\d.]+)")
        for quantity in evaluation.quantities
    }
    for value in values:
        assert any(re.fullmatch(pattern, value) for pattern in patterns.values()), value
    for quantity, pattern in patterns.items():
        assert any(re.fullmatch(pattern, value) for value in values), quantity
    documented = (Path(__file__).parents[1] / "docs" / "quantities.md").read_text()
    assert all(f"`{quantity}`" in documented for quantity in evaluation.quantities)


@pytest.mark.shared
@pytest.mark.slow
def test_attacks_on_a_released_network(tmp_path: Path) -> None:
    root = Path(os.environ.get("PRUNEBENCH_DATA", tmp_path))
    if not (root / cifar10.DATASET.folder).is_dir():
        subprocess.run([sys.executable, shared_data("unpack_cifar10.py"), root], check=True, stdout=subprocess.DEVNULL)
    files = shared_data("released", "base.h5"), shared_data("released", "base.json")
    network, _ = import_keras(*files, training_mean(root), "resnet56")
    network.to(memory_format=torch.channels_last)
    split = load_splits(cifar10.DATASET, root, "test")
    quick = [run(name, network, split, images=200, linf_eps_255=[0.5, 1, 2, 8]).values for name in ("fgsm", "pgd")]
    for size in ("0.5", "1", "2", "8"):
        key = f"robust_accuracy_linf_eps{size}_255_percent"
        assert quick[0]["clean_accuracy_percent"] > quick[0][key] > quick[1][key] >= 0
    # Undefended, it sits at zero at the usual distance, although FGSM does not see it.
    assert quick[1]["robust_accuracy_linf_eps8_255_percent"] == 0
    assert quick[0]["robust_accuracy_linf_eps8_255_percent"] > 5
    steps = [run(name, network, split, images=8, linf_eps_255=[2]).values for name in ("fgsm", "pgd", "autoattack")]
    robust = [values["robust_accuracy_linf_eps2_255_percent"] for values in steps]
    assert robust == sorted(robust, reverse=True)
    assert all(values["unreliable"] == 0 for values in steps)
