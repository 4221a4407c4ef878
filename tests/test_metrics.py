"""Metrics: known answers, what each is invariant to and what not, degenerate features, batches."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from prunebench.errors import PrunebenchError
from prunebench.metrics import METRICS, MetricError
from prunebench.metrics import gaussian as gaussian_module
from prunebench.metrics.gaussian import gaussian_stochastic
from prunebench.metrics.statistics import FeatureStatistics

SAMPLES, DIMENSION, CLASSES = 90, 5, 3
GAUSSIAN = ["gaussian_stochastic_0", "gaussian_stochastic_1", "gaussian_stochastic_2"]
CENTRED = ["cka", "linear_0", "linear_1", "permutation"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statistics(dense: Tensor, silenced: Tensor, labels: Tensor, batch: int = 1000, classes: int = 0) -> FeatureStatistics:
    if silenced.ndim == 2:
        silenced = silenced[None]
    needs = ("features", "labels", "values")
    stats = FeatureStatistics(len(silenced), dense.shape[1], classes or int(labels.max()) + 1, needs)
    for rows in torch.arange(len(labels)).split(batch):
        stats.update(dense[rows], silenced[:, rows], labels[rows])
    return stats


def score(name: str, dense: Tensor, silenced: Tensor, labels: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return METRICS[name](statistics(dense, silenced, labels)).item()


def features(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Positive, correlated features of three classes, a disturbed copy and the labels."""
    rng = generator(seed)
    labels = torch.arange(SAMPLES) % CLASSES
    centres = 3 * torch.rand(CLASSES, DIMENSION, generator=rng, dtype=torch.float64)
    mix = torch.randn(DIMENSION, DIMENSION, generator=rng, dtype=torch.float64)
    dense = centres[labels] + torch.randn(SAMPLES, DIMENSION, generator=rng, dtype=torch.float64) @ mix
    noise = torch.randn(SAMPLES, DIMENSION, generator=rng, dtype=torch.float64)
    return dense.relu() + 0.1 * dense, dense.relu() + 0.1 * dense + 0.3 * noise, labels


def rotation(seed: int = 1, dimension: int = DIMENSION) -> Tensor:
    return torch.linalg.qr(torch.randn(dimension, dimension, generator=generator(seed), dtype=torch.float64)).Q


def gaussian_sample(mean: Tensor, variances: Tensor, count: int = 200) -> Tensor:
    """Samples whose own mean and unbiased, diagonal covariance are exactly these."""
    raw = torch.randn(count, len(mean), generator=generator(7), dtype=torch.float64)
    raw = raw - raw.mean(0)
    return torch.linalg.qr(raw).Q * (count - 1) ** 0.5 * variances.sqrt() + mean


# ---- identical features


@pytest.mark.parametrize("name", METRICS)
def test_identical_features_have_distance_zero(name: str) -> None:
    dense, _, labels = features()
    assert 0 <= score(name, dense, dense.clone(), labels) < 1e-12


@pytest.mark.parametrize("name", METRICS)
def test_different_features_have_positive_distance_that_grows_with_the_disturbance(name: str) -> None:
    dense, disturbed, labels = features()
    more = dense + 3 * (disturbed - dense)
    small, large = METRICS[name](statistics(dense, torch.stack([disturbed, more]), labels)).tolist()
    assert 1e-4 < small < large


# ---- invariances


def transformed(kind: str, x: Tensor) -> Tensor:
    """The features after a transformation of one network's units."""
    if kind == "rotation":
        return x @ rotation()
    if kind == "permutation":
        return x[:, torch.tensor([2, 0, 4, 1, 3])]
    if kind == "scaling":
        return 2.5 * x
    if kind == "translation":
        return x + torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5], dtype=x.dtype)
    assert kind == "invertible"
    return x @ (rotation(2) * torch.tensor([0.2, 1.0, 2.0, 3.0, 6.0], dtype=x.dtype)) @ rotation(3)


INVARIANCES = {
    "cka": {"rotation", "permutation", "scaling", "translation"},
    "linear_0": {"rotation", "permutation", "scaling", "translation", "invertible"},
    "linear_1": {"rotation", "permutation", "scaling", "translation"},
    "permutation": {"permutation", "scaling", "translation"},
    # The other two start their search at the identity, so turning one network's features may lead to another optimum.
    "gaussian_stochastic_2": {"rotation", "permutation"},
    "wasserstein": {"permutation"},
}


@pytest.mark.parametrize("kind", ["rotation", "permutation", "scaling", "translation", "invertible"])
@pytest.mark.parametrize("name", INVARIANCES)
def test_invariant_to_just_these_transformations_of_one_network(name: str, kind: str) -> None:
    dense, silenced, labels = features()
    before, after = score(name, dense, silenced, labels), score(name, dense, transformed(kind, silenced), labels)
    if kind in INVARIANCES[name]:
        assert after == pytest.approx(before, rel=1e-9)
    else:
        assert abs(after / before - 1) > 0.01


@pytest.mark.parametrize("name", ["gaussian_stochastic_0", "gaussian_stochastic_1"])
def test_gaussian_is_invariant_to_a_rotation_of_both_networks_and_to_a_small_one_of_one(name: str) -> None:
    dense, silenced, labels = features()
    turn = rotation()
    skew = 0.05 * (turn - turn.mT)
    before = score(name, dense, silenced, labels)
    assert score(name, dense @ turn, silenced @ turn, labels) == pytest.approx(before, rel=1e-6)
    assert score(name, dense, silenced @ torch.linalg.matrix_exp(skew), labels) == pytest.approx(before, rel=1e-4)


def test_gaussian_sees_translation_only_if_it_looks_at_means() -> None:
    dense, silenced, labels = features()
    moved = transformed("translation", silenced)
    before, after = ([score(name, dense, x, labels) for name in GAUSSIAN] for x in (silenced, moved))
    assert after[0] == pytest.approx(before[0], rel=1e-9)
    assert after[1] > 1.01 * before[1]
    assert after[2] > 1.01 * before[2]


@pytest.mark.parametrize("name", GAUSSIAN + ["wasserstein"])
def test_distances_scale_with_the_features(name: str) -> None:
    dense, silenced, labels = features()
    assert score(name, 4 * dense, 4 * silenced, labels) == pytest.approx(4 * score(name, dense, silenced, labels))


@pytest.mark.parametrize("name", METRICS)
def test_order_of_samples_does_not_matter_but_pairing_does(name: str) -> None:
    dense, silenced, labels = features()
    shuffle = torch.randperm(SAMPLES, generator=generator(5))
    before = score(name, dense, silenced, labels)
    assert score(name, dense[shuffle], silenced[shuffle], labels[shuffle]) == pytest.approx(before, rel=1e-6)
    # Samples come class by class in turn, so this moves each sample to the place of the next one of its class.
    unpaired = silenced.roll(CLASSES, 0)
    after = score(name, dense, unpaired, labels)
    if name in CENTRED:
        assert after > 1.1 * before
    else:  # These compare distributions, not samples.
        assert after == pytest.approx(before, rel=1e-6)


# ---- known answers


def test_cka_of_uncorrelated_features_is_one_and_their_angles_are_right() -> None:
    hadamard = torch.tensor([[1.0]])
    for _ in range(3):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    dense, silenced, labels = hadamard[:, 1:4], hadamard[:, 4:7], torch.zeros(8, dtype=torch.long)
    assert score("cka", dense, silenced, labels) == 1.0
    for name in ("linear_0", "linear_1", "permutation"):
        assert score(name, dense, silenced, labels) == pytest.approx(math.pi / 2)


def test_cka_and_angles_of_one_unit_follow_its_correlation() -> None:
    rng = generator(3)
    dense = torch.randn(40, 1, generator=rng, dtype=torch.float64)
    silenced = dense + torch.randn(40, 1, generator=rng, dtype=torch.float64)
    correlation = torch.corrcoef(torch.cat([dense, silenced], 1).T)[0, 1].item()
    labels = torch.zeros(40, dtype=torch.long)
    assert score("cka", dense, silenced, labels) == pytest.approx(1 - correlation**2)
    for name in ("linear_0", "linear_1", "permutation"):
        assert score(name, dense, silenced, labels) == pytest.approx(math.acos(correlation))


def test_linear_0_is_the_angle_of_the_mean_canonical_correlation() -> None:
    from sklearn.cross_decomposition import CCA

    dense, silenced, labels = features()
    cca = CCA(n_components=DIMENSION, max_iter=5000, tol=1e-12).fit(dense.numpy(), silenced.numpy())
    x, y = (torch.from_numpy(scores) for scores in cca.transform(dense.numpy(), silenced.numpy()))
    correlations = [torch.corrcoef(torch.stack([x[:, i], y[:, i]]))[0, 1].item() for i in range(DIMENSION)]
    expected = math.acos(sum(correlations) / DIMENSION)
    assert score("linear_0", dense, silenced, labels) == pytest.approx(expected, rel=1e-4)


def test_linear_1_is_the_angle_after_scipys_procrustes_alignment() -> None:
    from scipy.linalg import orthogonal_procrustes

    dense, silenced, labels = features()
    x, y = dense - dense.mean(0), silenced - silenced.mean(0)
    turn = torch.from_numpy(orthogonal_procrustes(y.numpy(), x.numpy())[0])
    expected = math.acos(((x * (y @ turn)).sum() / (x.norm() * y.norm())).item())
    assert score("linear_1", dense, silenced, labels) == pytest.approx(expected)


def test_linear_1_never_exceeds_permutation() -> None:
    for seed in range(5):
        data = features(seed)
        assert score("linear_1", *data) < score("permutation", *data)


def test_wasserstein_of_shifted_features_is_the_shift() -> None:
    dense, _, labels = features()
    assert score("wasserstein", dense, dense + 0.75, labels) == pytest.approx(0.75)


def test_wasserstein_is_scipys() -> None:
    from scipy.stats import wasserstein_distance

    dense, silenced, labels = features()
    expected = wasserstein_distance(dense.numpy().ravel(), silenced.numpy().ravel())
    assert score("wasserstein", dense, silenced, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("a", [0, 1, 2])
def test_gaussian_of_one_class_with_diagonal_covariances(a: int) -> None:
    s, t = (torch.tensor(x, dtype=torch.float64) for x in ([9.0, 4.0, 1.0], [16.0, 4.0, 0.25]))
    offset = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    dense, silenced = gaussian_sample(torch.zeros(3), s), gaussian_sample(offset, t)
    labels = torch.zeros(len(dense), dtype=torch.long)
    # The dense mean is zero, so no rotation brings the other nearer: only covariances decide, already aligned.
    bures = (1 + 0 + 0.25) if a < 2 else 0.0
    expected = math.sqrt(a * 5.0 + (2 - a) * bures)
    assert score(f"gaussian_stochastic_{a}", dense, silenced, labels) == pytest.approx(expected, rel=1e-6)


def test_gaussian_undoes_a_rotation() -> None:
    rng = generator(4)
    labels = torch.arange(300) % 3
    scales = torch.tensor([[4.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 5.0]], dtype=torch.float64)
    dense = torch.randn(300, 3, generator=rng, dtype=torch.float64) * scales[labels] + scales[labels]
    angle = torch.tensor(0.4, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    for a in (0, 1, 2):
        unaligned = (2 - a) * 0.1 + a * 0.1
        assert score(f"gaussian_stochastic_{a}", dense, dense @ turn, labels) < 1e-3 * unaligned


def test_gaussian_ends_in_a_local_optimum_of_its_definition() -> None:
    dense, silenced, labels = features()
    for a in (0, 1):
        found = score(f"gaussian_stochastic_{a}", dense, silenced, labels)
        assert found <= _definition(dense, silenced, labels, torch.eye(DIMENSION, dtype=torch.float64), a)
        # Aligned features of the silenced network cannot be aligned any better by a small rotation.
        stats = statistics(dense, silenced, labels)
        aligned = _best_rotation(stats, a)
        assert _definition(dense, silenced, labels, aligned, a) == pytest.approx(found, rel=1e-6)
        for seed in range(20):
            turn = rotation(seed)
            nearby = aligned @ torch.linalg.matrix_exp(0.02 * (turn - turn.mT))
            assert _definition(dense, silenced, labels, nearby, a) >= found * (1 - 1e-7)


@pytest.mark.parametrize("a", [0, 1])
def test_dead_units_leave_the_gaussian_alignment_no_freedom(a: int) -> None:
    """Where the networks' dead units differ, a decomposition alone would let rounding errors choose the optimum."""
    rng = generator()
    labels = torch.arange(120) % 3
    spread = 0.5 + torch.rand(3, 6, generator=rng, dtype=torch.float64)[labels]
    dense = torch.randn(120, 6, generator=rng, dtype=torch.float64) * spread
    silenced = dense + 0.3 * torch.randn(120, 6, generator=rng, dtype=torch.float64)
    dense[:, 3:], silenced[:, 1:3] = 0, 0
    name = f"gaussian_stochastic_{a}"
    expected = score(name, dense, silenced, labels)
    for seed in range(6):  # A rotation of both only changes how things are rounded.
        turn = rotation(seed, 6)
        assert score(name, dense @ turn, silenced @ turn, labels) == pytest.approx(expected, rel=2e-9)


def test_gaussian_stops_where_a_slow_and_strict_alternation_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, silenced, labels = few_samples()
    for a in (0, 1):
        quick = gaussian_stochastic(statistics(dense, silenced, labels), a)
        with monkeypatch.context() as strict:
            strict.setattr(gaussian_module, "MOMENTUM", 0.0)
            strict.setattr(gaussian_module, "RELATIVE_IMPROVEMENT", 1e-12)
            torch.testing.assert_close(quick, gaussian_stochastic(statistics(dense, silenced, labels), a), rtol=1e-5, atol=0)


def _definition(dense: Tensor, silenced: Tensor, labels: Tensor, turn: Tensor, a: float) -> float:
    """The formula at a given rotation, with scipy's matrix square root."""
    from scipy.linalg import sqrtm

    total = 0.0
    for k in range(CLASSES):
        x, y = dense[labels == k], silenced[labels == k] @ turn
        s, t = x.T.cov().numpy(), y.T.cov().numpy()
        root = sqrtm(s).real
        bures = s.trace() + t.trace() - 2 * sqrtm(root @ t @ root).real.trace()
        total += a * (x.mean(0) - y.mean(0)).square().sum().item() + (2 - a) * bures
    return math.sqrt(total / CLASSES)


def _best_rotation(stats: FeatureStatistics, a: float) -> Tensor:
    moments = stats.class_moments("test")
    roots = [gaussian_module._square_roots(x) for x in (moments.dense_covariances, moments.silenced_covariances)]
    found, unfinished = gaussian_module._align(moments.dense_means, roots[0], moments.silenced_means, roots[1], a)
    assert unfinished == 0
    return found[0]


# ---- batches


@pytest.mark.parametrize("batch", [1, 7, 45])
@pytest.mark.parametrize("name", METRICS)
def test_batch_size_does_not_matter(name: str, batch: int) -> None:
    dense, silenced, labels = features()
    # A large common offset in float32 is what a careless sum of squares would not survive.
    dense, silenced = (dense + 100).float(), torch.stack([silenced + 100, dense + 101]).float()
    whole = METRICS[name](statistics(dense, silenced, labels))
    cut = METRICS[name](statistics(dense, silenced, labels, batch))
    torch.testing.assert_close(cut, whole, rtol=1e-4 if name in GAUSSIAN else 1e-5, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_moments_are_those_of_all_samples_however_far_from_zero(offset: float) -> None:
    dense, silenced, labels = features()
    dense, silenced = dense + offset, silenced + offset
    stats = statistics(dense, silenced, labels, 13)
    moments = stats.feature_moments("test")
    torch.testing.assert_close(moments.dense / (SAMPLES - 1), dense.T.cov())
    torch.testing.assert_close(moments.silenced[0] / (SAMPLES - 1), silenced.T.cov())
    joint = torch.cat([dense, silenced], 1).T.cov()
    torch.testing.assert_close(moments.cross[0] / (SAMPLES - 1), joint[:DIMENSION, DIMENSION:])
    torch.testing.assert_close(moments.dense_mean, dense.mean(0))
    within = stats.class_moments("test")
    for k in range(CLASSES):
        torch.testing.assert_close(within.dense_covariances[k], dense[labels == k].T.cov())
        torch.testing.assert_close(within.silenced_covariances[0, k], silenced[labels == k].T.cov())
        torch.testing.assert_close(within.silenced_means[0, k], silenced[labels == k].mean(0))


# ---- degenerate features


def few_samples() -> tuple[Tensor, Tensor, Tensor]:
    """Four samples a class, less than the 12 units, and one class of a single sample."""
    rng = generator(8)
    labels = torch.tensor([0] * 4 + [1] * 4 + [2] * 4 + [3])
    dense = torch.randn(13, 12, generator=rng).relu()
    return dense, (dense + 0.3 * torch.randn(3, 13, 12, generator=rng)).relu(), labels


def dead(which: str) -> tuple[Tensor, Tensor, Tensor]:
    """Two units of one network, or both, that never change: one at zero, one at another value."""
    dense, silenced, labels = features()
    dense, silenced = dense.clone(), silenced.clone()
    for name, x in (("dense", dense), ("silenced", silenced)):
        if which in (name, "both"):
            x[:, 1], x[:, 3] = 0.0, 3.3
    return dense.float(), silenced.float(), labels


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("which", ["few", "single", "dense", "silenced", "both"])
def test_finite_and_reproducible_on_few_samples_and_dead_units(name: str, which: str) -> None:
    if which == "few":
        dense, silenced, labels = few_samples()
    elif which == "single":  # One sample in every class.
        dense, silenced, _ = few_samples()
        labels = torch.arange(13)
    else:
        dense, silenced, labels = dead(which)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = METRICS[name](statistics(dense, silenced, labels))
        again = METRICS[name](statistics(dense, silenced, labels, 4))
    assert first.dtype == torch.float64
    assert first.isfinite().all()
    assert (first >= 0).all()
    torch.testing.assert_close(again, first, rtol=1e-4 if name in GAUSSIAN else 1e-5, atol=1e-7)


def test_linear_0_of_fewer_samples_than_units_ties_at_zero() -> None:
    dense, silenced, labels = few_samples()
    # Whitened, nine samples in 12 units are an orthogonal frame, which can be turned into any other: nothing to see.
    assert METRICS["linear_0"](statistics(dense[:9], silenced[:, :9], labels[:9])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", METRICS)
def test_identical_features_with_dead_units_and_few_samples_have_distance_zero(name: str) -> None:
    for dense, _, labels in (few_samples(), dead("both")):
        assert score(name, dense, dense.clone(), labels) < 1e-6


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("which", ["dense", "silenced", "both"])
def test_features_that_never_change(name: str, which: str) -> None:
    dense, silenced, labels = features()
    constant = torch.full_like(dense, 1.1)
    dense = constant if which in ("dense", "both") else dense
    silenced = constant if which in ("silenced", "both") else silenced
    if name in CENTRED:
        culprit = "candidate 0" if which == "silenced" else "dense"
        with pytest.raises(MetricError, match=f"{name}.*{culprit}"):
            score(name, dense, silenced, labels)
    else:
        assert (score(name, dense, silenced, labels) == pytest.approx(0, abs=1e-7)) == (which == "both")


def test_gaussian_from_a_point_mass_is_the_spread() -> None:
    dense, _, labels = features()
    constant = torch.full_like(dense, 2.0)
    spread = sum(dense[labels == k].var(0).sum().item() for k in range(CLASSES)) / CLASSES
    assert score("gaussian_stochastic_0", constant, dense, labels) == pytest.approx(math.sqrt(2 * spread))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_features_are_an_error(name: str, value: float) -> None:
    dense, silenced, labels = features()
    silenced[3, 2] = value
    with pytest.raises(MetricError, match=f"{name}.*NaN or infinite"):
        score(name, dense, silenced, labels)


def test_classes_without_samples_do_not_count() -> None:
    data = features()
    for name in GAUSSIAN:
        assert METRICS[name](statistics(*data, classes=50)).item() == score(name, *data)


# ---- mistakes


@pytest.mark.parametrize("name", METRICS)
def test_no_samples_is_an_error(name: str) -> None:
    with pytest.raises(MetricError, match=f"{name}.*no samples"):
        METRICS[name](FeatureStatistics(2, 3, 4, {METRICS[name].need}))


@pytest.mark.parametrize("name", METRICS)
def test_statistics_that_lack_what_a_metric_needs_are_an_error(name: str) -> None:
    needs = {"features", "labels", "values"} - {METRICS[name].need}
    stats = FeatureStatistics(1, DIMENSION, CLASSES, needs)
    dense, silenced, labels = features()
    stats.update(dense, silenced[None], labels)
    with pytest.raises(MetricError, match=f"{name}.*needs"):
        METRICS[name](stats)


def test_absurd_class_statistics_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(PrunebenchError, match=r"'labels'.*GiB.*12 candidates x 1000 classes"):
        FeatureStatistics(12, 2048, 1000, ["features", "labels"])


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_outside_the_classes_are_an_error(label: int) -> None:
    dense, silenced, labels = features()
    labels[5] = label
    with pytest.raises(PrunebenchError, match=f"label {label}.*{CLASSES} classes"):
        statistics(dense, silenced, labels, classes=CLASSES)


def test_parameters_outside_the_definition_are_an_error() -> None:
    stats = statistics(*features())
    with pytest.raises(MetricError, match="gaussian_stochastic_3"):
        gaussian_stochastic(stats, 3)


def test_an_alignment_that_does_not_converge_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_module, "MAXIMUM_ROUNDS", 2)
    with pytest.warns(RuntimeWarning, match="gaussian_stochastic_0: 1 of 1 .*2 rounds"):
        METRICS["gaussian_stochastic_0"](statistics(*features()))


def test_candidates_are_scored_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, silenced, labels = few_samples()
    together = METRICS["gaussian_stochastic_1"](statistics(dense, silenced, labels))
    alone = torch.cat([METRICS["gaussian_stochastic_1"](statistics(dense, x, labels)) for x in silenced])
    monkeypatch.setattr(gaussian_module, "CHUNK_BYTES", 1)
    chunked = METRICS["gaussian_stochastic_1"](statistics(dense, silenced, labels))
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, chunked)


def test_unknown_needs_are_refused() -> None:
    with pytest.raises(PrunebenchError, match="gradients"):
        FeatureStatistics(1, 2, 3, ["gradients"])
