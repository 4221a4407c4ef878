"""The corruptions of CIFAR-10-C: known answers, what severity does, the same images for every network, the cache, the errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from prunebench import corruptions
from prunebench.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, blur, corrupt, digital, noise, store, weather
from prunebench.corruptions.draws import Draws
from prunebench.corruptions.store import Store
from prunebench.data import Dataset, ResidentImages, Split
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject
from prunebench.evaluation import corruptions as evaluation

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photographs() -> Bytes:
    """Six images with the smooth areas and edges of photographs: shape (6, 32, 32, 3)."""
    noise = np.random.default_rng(0).normal(size=(6, 32, 32, 3))
    areas = sum(2**scale * blur.smooth(noise, 2**scale, mode="wrap") for scale in range(4))
    return np.clip(128 + 60 * areas / areas.std(), 0, 255).astype(np.uint8)


def grey(level: int) -> Bytes:
    return np.full((1, 32, 32, 3), level, dtype=np.uint8)


def distance(changed: Bytes, images: Bytes) -> float:
    return float(np.abs(changed.astype(float) - images).mean())


# --- every corruption ----------------------------------------------------------------------------------------------------


def test_there_are_fifteen_and_four() -> None:
    groups = [corruption.group for corruption in CORRUPTIONS.values()]
    assert [groups.count(group) for group in (*GROUPS, "extra")] == [3, 4, 4, 4, 4]
    assert tuple(CORRUPTIONS) == evaluation.ALL


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_are_changed_bytes_and_the_same_again(name: str, photographs: Bytes) -> None:
    before = photographs.copy()
    for severity in SEVERITIES:
        changed = corrupt(photographs, name, severity, range(6))
        assert changed.dtype == np.uint8 and changed.shape == photographs.shape
        assert np.array_equal(changed, corrupt(photographs, name, severity, range(6)))
    assert distance(changed, photographs) > 0.5
    assert np.array_equal(before, photographs)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_does_not_depend_on_the_others(name: str, photographs: Bytes) -> None:
    together = corrupt(photographs, name, 5, [7, 1, 2, 3, 4, 900])
    alone = corrupt(photographs[5:], name, 5, [900])
    assert np.array_equal(together[5:], alone)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if "noise" in name] + ["snow", "fog", "frost", "spatter"])
def test_each_image_has_random_numbers_of_its_own(name: str, photographs: Bytes) -> None:
    twice = corrupt(np.repeat(photographs[:1], 2, axis=0), name, 5, [3, 4])
    assert not np.array_equal(twice[0], twice[1])


def test_random_numbers_are_the_same_on_every_machine() -> None:
    draws = Draws("fog", 3, [0, 7])
    assert draws.uniform(2).tolist() == [[0.6990383358846102, 0.8791882974947712], [0.7075721328620563, 0.05971382010620807]]
    assert draws.normal(1).tolist() == [[pytest.approx(-0.02693965671988016)], [pytest.approx(0.6966896033621457)]]
    assert draws.integers(3, low=-1, high=1).tolist() == [[-1, 0, -1], [-1, 0, 0]]


# The constants of elastic, frost, glass, saturate and spatter mix several things, so that no simple distance grows with them.
@pytest.mark.parametrize(
    "name", [n for n in CORRUPTIONS if n not in ("elastic_transform", "frost", "glass_blur", "saturate", "spatter", "snow")]
)
def test_severity_moves_images_further(name: str, photographs: Bytes) -> None:
    many = np.repeat(photographs, 6, axis=0)
    distances = [distance(corrupt(many, name, severity, range(36)), many) for severity in SEVERITIES]
    # Motion blur's constants grow twice in each of their two parts, and its angles are drawn anew.
    rise = -0.6 if name == "motion_blur" else 0.0
    assert all(later - earlier > rise for earlier, later in pairwise(distances)), distances
    assert distances[-1] > 1.3 * distances[0]


@pytest.mark.parametrize(("name", "severity"), [("gaussian", 1), ("fog", 0), ("fog", 6)])
def test_unknown_corruptions_are_refused(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match="there is no corruption"):
        corrupt(grey(0), name, severity, [0])


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes of shape"):
        corrupt(np.zeros((1, 8, 8, 3), dtype=np.uint8), "fog", 1, [0])
    with pytest.raises(ValueError, match="bytes of shape"):
        corrupt(grey(0), "fog", 1, [0, 1])


# --- known answers -------------------------------------------------------------------------------------------------------


def test_noise_has_the_deviation_that_it_says() -> None:
    images = np.full((20, 32, 32, 3), 0.5)
    for name, expected in (("gaussian_noise", 0.08), ("speckle_noise", 0.12 / 2), ("shot_noise", (0.5 / 100) ** 0.5)):
        apply, constant = CORRUPTIONS[name].apply, CORRUPTIONS[name].constants[2]
        changed = apply(images, Draws(name, 3, range(20)), constant)
        assert changed.mean() == pytest.approx(0.5, abs=0.002)
        assert changed.std() == pytest.approx(expected, rel=0.02)


def test_shot_noise_counts_photons() -> None:
    assert noise.shot_noise(np.zeros((1, 32, 32, 3)), Draws("shot_noise", 1, [0]), 50).max() == 0
    counted = noise.shot_noise(np.full((10, 32, 32, 3), 1 / 255), Draws("shot_noise", 1, range(10)), 50) * 50
    assert np.array_equal(counted, np.rint(counted))
    assert (counted == 0).mean() == pytest.approx(np.exp(-50 / 255), abs=0.01)


def test_impulse_noise_hits_as_often_as_it_says() -> None:
    changed = corrupt(np.repeat(grey(100), 20, axis=0), "impulse_noise", 5, range(20))
    assert set(np.unique(changed)) == {0, 100, 255}
    assert (changed != 100).mean() == pytest.approx(0.07, abs=0.005)
    assert (changed == 255).sum() / (changed == 0).sum() == pytest.approx(1, abs=0.1)


def test_contrast_moves_values_to_the_channels_mean() -> None:
    image = grey(100)
    image[0, :16] = 200
    changed = corrupt(image, "contrast", 2, [0])
    # Half of the distance to the mean of 150.
    assert set(np.unique(changed[0, :16])) == {175} and set(np.unique(changed[0, 16:])) == {125}
    assert np.array_equal(corrupt(grey(77), "contrast", 5, [0]), grey(77))


def test_brightness_adds_to_grey_and_stops_at_white() -> None:
    assert np.array_equal(corrupt(grey(100), "brightness", 4, [0]), grey(151))
    assert np.array_equal(corrupt(grey(200), "brightness", 5, [0]), grey(255))


def test_saturate_takes_colour_away_and_adds_it() -> None:
    image = grey(0)
    image[:] = (200, 100, 100)
    # Saturation of a half: times 0.1 leaves 200 and 190, times 1.5 makes 200 and 50.
    assert corrupt(image, "saturate", 2, [0])[0, 0, 0].tolist() == [200, 190, 190]
    assert corrupt(image, "saturate", 3, [0])[0, 0, 0].tolist() == [200, 50, 50]
    assert np.array_equal(corrupt(grey(90), "saturate", 3, [0]), grey(90))


def test_pixelate_averages_boxes() -> None:
    stripes = grey(0)
    stripes[0, :, ::2] = 200
    halved = digital.pixelate(stripes / 255, Draws("pixelate", 1, [0]), 0.5)
    assert np.array_equal(np.rint(halved * 255), np.full((1, 32, 32, 3), 100))


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "elastic_transform"])
def test_blur_and_distortion_leave_an_even_image_alone(name: str) -> None:
    for severity in SEVERITIES:
        assert np.abs(corrupt(grey(123), name, severity, [0]).astype(int) - 123).max() <= 1


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur"])
def test_blur_spreads_a_point_alike_to_all_sides_and_loses_no_light(name: str) -> None:
    point = np.zeros((1, 32, 32, 3))
    point[0, 16, 16] = 1
    spread = CORRUPTIONS[name].apply(point, Draws(name, 5, [0]), CORRUPTIONS[name].constants[4])[0, 1:, 1:, 0]
    assert spread.sum() == pytest.approx(1)
    assert np.allclose(spread, spread.T) and np.allclose(spread, spread[::-1])
    assert spread[15, 15] < 0.6


def test_motion_blur_follows_its_angle() -> None:
    point = np.zeros((2, 32, 32, 1))
    point[:, 16, 16] = 1
    spread = blur.along_line(point, 6, 2, np.array([0.0, -90.0]))[..., 0]
    # To the right of a pixel is looked for what is seen there, so light goes to the left; up, and light goes down.
    assert spread[0, 16].sum() == pytest.approx(1) and spread[0, 16, 17:].sum() == 0
    assert spread[1, :, 16].sum() == pytest.approx(1) and spread[1, :16].sum() == 0
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert spread[0, 16, 16] == pytest.approx(1 / weights.sum())


def test_zoom_keeps_the_middle_and_magnifies() -> None:
    assert np.array_equal(blur.zoom_matrix(1.0, 32), np.eye(32))
    matrix = blur.zoom_matrix(2.0, 32)
    assert matrix.shape == (32, 32)
    assert np.allclose(matrix.sum(axis=1), 1)
    ramp = matrix @ np.arange(32)
    assert ramp[0] == 8 and ramp[-1] == 23


def test_glass_takes_neighbours_above_and_left() -> None:
    ramp = np.broadcast_to(np.arange(32)[None, :, None, None] * 8 + np.arange(32)[None, None, :, None], (1, 32, 32, 3)) / 300
    changed = blur.glass_blur(ramp, Draws("glass_blur", 1, [0]), (0.05, 1, 1))
    step = np.rint(np.floor(ramp * 255) - changed * 255)[0, 2:, 2:, 0]
    rows = np.floor(ramp * 255)[0, :, :, 0]
    options = [rows[2:, 2:] - rows[2 - dy : 32 - dy, 2 - dx : 32 - dx] for dy in (0, 1) for dx in (0, 1)]
    assert all(any(step[i, j] == option[i, j] for option in options) for i, j in np.ndindex(step.shape))
    assert len({int(value) for value in step.ravel()}) > 3
    # The first two rows and columns are out of reach.
    assert np.allclose(changed[0, :2] * 255, np.floor(ramp[0, :2] * 255)) and np.allclose(
        changed[0, :, :2] * 255, rows[:, :2, None]
    )


def test_fog_is_a_cloud_and_darkens() -> None:
    clouds = weather.cloud(Draws("fog", 1, range(8)), 32, 2)
    assert clouds.min(axis=(1, 2)).tolist() == [0] * 8 and clouds.max(axis=(1, 2)).tolist() == [1] * 8
    # Neighbours are alike, as in no noise.
    assert np.abs(np.diff(clouds, axis=1)).mean() < 0.5 * np.abs(clouds - np.roll(clouds, 16, axis=1)).mean()
    foggy = weather.fog(np.full((8, 32, 32, 3), 0.5), Draws("fog", 1, range(8)), (1, 2))
    assert foggy.min() == pytest.approx(0.5 * 0.5 / 1.5) and foggy.max() == pytest.approx(0.5)


def test_snow_and_water_only_add_light() -> None:
    assert (corrupt(grey(60), "snow", 3, [0]) >= 60).all()
    assert (corrupt(grey(60), "spatter", 3, [0]) >= 60).all()
    mud = corrupt(grey(200), "spatter", 5, [1])
    assert mud.min() < 100 and mud.max() == 200


def test_frost_is_a_piece_of_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    monkeypatch.setattr(weather, "frost_pictures", lambda: (picture,))
    frozen = np.rint(weather.frost(np.zeros((1, 32, 32, 3)), Draws("frost", 1, [0]), (1, 1)) * 255)[0]
    corners = [(i, j) for i in range(8) for j in range(18) if np.array_equal(picture[i : i + 32, j : j + 32], frozen)]
    assert len(corners) == 1


def test_without_pictures_frost_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weather, "find_spec", lambda name: None)
    weather.frost_pictures.cache_clear()
    with pytest.raises(PrunebenchError, match=r"pip install .imagecorruptions>=1\.1\.2.; or .* CIFAR-10-C .* leave frost out"):
        corrupt(grey(0), "frost", 1, [0])
    weather.frost_pictures.cache_clear()


def test_edges_are_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    drops = blur.smooth(np.random.default_rng(0).normal(0.65, 0.1, (40, 32, 32)), 0.8)
    levels = (np.where(drops < 0.7, 0, drops) * 255).astype(np.uint8)
    theirs = np.stack([cv2.Canny(each, 50, 150) > 0 for each in levels])
    ours = np.stack([weather.outlines(each.astype(float), 50, 150) for each in levels])
    # OpenCV rounds the diagonals' slope.
    assert theirs.mean() > 0.1 and (ours != theirs).mean() < 2e-4


def test_affine_maps_are_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).random((32, 32, 3))
    matrix = np.array([[0.9, 0.2, -3.0], [-0.1, 1.1, 5.0]])
    theirs = cv2.warpAffine(
        image, matrix, (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    columns, rows = np.meshgrid(np.arange(32.0), np.arange(32.0))
    x, y = np.tensordot(matrix, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    assert np.abs(digital.between(image[None], y[None], x[None], digital.mirrored)[0] - theirs).max() < 0.02


# --- the store -----------------------------------------------------------------------------------------------------------

DATASET = Dataset("cifar10", (3, 32, 32), 10, 4, True, lambda *_: None, "")  # type: ignore[arg-type,return-value]


def split_of(photographs: Bytes, positions: list[int]) -> Split:
    """Some of 20 test images."""
    whole = torch.from_numpy(np.resize(photographs, (20, 32, 32, 3))).permute(0, 3, 1, 2).contiguous()
    return Split(DATASET, ResidentImages(whole, torch.arange(20) % 10), torch.tensor(positions))


def pixels(split: Split) -> Bytes:
    return split.pixels(torch.arange(len(split))).permute(0, 2, 3, 1).numpy()


def test_images_are_made_once_and_checked(photographs: Bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(photographs, [4, 2])
    first = Store(split, tmp_path, tmp_path / "cache").read("fog", 3)
    assert first.labels.tolist() == [4, 2]
    assert np.array_equal(pixels(first), corrupt(pixels(split), "fog", 3, [4, 2]))
    calls: list[str] = []
    monkeypatch.setattr(store, "corrupt", lambda *given: calls.append(given[1]) or corrupt(*given))  # type: ignore[func-returns-value]
    again = Store(split, tmp_path, tmp_path / "cache").read("fog", 3)
    assert np.array_equal(pixels(again), pixels(first)) and not calls
    (path,) = (tmp_path / "cache").rglob("*.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told: list[str] = []
    repaired = Store(split, tmp_path, tmp_path / "cache").read("fog", 3, told.append)
    assert np.array_equal(pixels(repaired), pixels(first)) and calls == ["fog"]
    assert len(told) == 1 and str(path) in told[0] and "corrupt" in told[0]


def test_a_file_without_checksum_is_made_again(photographs: Bytes, tmp_path: Path) -> None:
    split = split_of(photographs, [4, 2])
    Store(split, tmp_path, tmp_path / "cache").read("contrast", 1)
    (checksum,) = (tmp_path / "cache").rglob("*.sha256")
    checksum.unlink()
    Store(split, tmp_path, tmp_path / "cache").read("contrast", 1)
    assert checksum.is_file()


def test_other_images_are_kept_apart(photographs: Bytes, tmp_path: Path) -> None:
    one, other = (Store(split_of(photographs, positions), tmp_path, tmp_path) for positions in ([0, 1], [1, 0]))
    assert one.identity != other.identity
    assert np.array_equal(pixels(one.read("gaussian_noise", 1)), pixels(other.read("gaussian_noise", 1))[::-1])


def publish(root: Path, labels: Any, images: Any) -> Path:
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", labels)
    np.save(folder / "fog.npy", images)
    return folder


def test_published_images_are_taken_where_they_are(photographs: Bytes, tmp_path: Path) -> None:
    split = split_of(photographs, [4, 2])
    images = np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    publish(tmp_path, np.tile(np.arange(20) % 10, 5).astype(np.uint8), images)
    found = Store(split, tmp_path, None)
    assert found.published
    assert np.array_equal(pixels(found.read("fog", 3)), images[[44, 42]])
    made = Store(split, tmp_path, None, "made")
    assert not made.published and found.identity != made.identity
    with pytest.raises(PrunebenchError, match=r"snow\.npy: no such file"):
        found.read("snow", 3)


def test_published_files_are_checked(photographs: Bytes, tmp_path: Path) -> None:
    split = split_of(photographs, [4, 2])
    with pytest.raises(PrunebenchError, match=r"CIFAR-10-C is not there; unpack CIFAR-10-C\.tar"):
        Store(split, tmp_path, None, "published")
    folder = publish(tmp_path, np.zeros(100, dtype=np.uint8), np.zeros((99, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(PrunebenchError, match=r"labels\.npy: not the labels of the 20 test images"):
        Store(split, tmp_path, None).read("fog", 1)
    np.save(folder / "labels.npy", np.tile(np.arange(20) % 10, 5))
    with pytest.raises(PrunebenchError, match=r"fog\.npy: uint8 of \(99, 32, 32, 3\), expected"):
        Store(split, tmp_path, None).read("fog", 1)
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:1000])
    with pytest.raises(PrunebenchError, match=r"fog\.npy: not a whole NumPy file"):
        Store(split, tmp_path, None).read("fog", 1)


# --- the evaluation ------------------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Class 0 for dark images, else class 1."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        margin = images.mean(dim=(1, 2, 3)) - self.limit
        return torch.stack([-margin, margin], dim=1)


def subject(tmp_path: Path, network: nn.Module, dense: nn.Module | None = None, **options: Any) -> Subject:
    whole = torch.cat([torch.full((3, 3, 32, 32), level, dtype=torch.uint8) for level in (50, 150, 250)])
    split = Split(DATASET, ResidentImages(whole, torch.tensor([0] * 3 + [1] * 6)), torch.arange(9))
    given = {"severities": [1, 5], **options}
    return Subject(
        network,
        (3, 32, 32),
        10,
        lambda: split,
        torch.device("cpu"),
        dense=dense,
        options=given,
        data_root=tmp_path,
        cache=tmp_path / "cache",
    )


def test_errors_are_counted(tmp_path: Path) -> None:
    # 50, 150 and 250 become 62, 162, 255 and then 126, 226, 255 (severities 1 and 5): of three classes of images one crosses 100.
    names = ["brightness", "contrast", "saturate"]
    values = evaluation.measure(subject(tmp_path, Bright(100 / 255), corruptions=names)).values
    assert values["brightness_error_percent"] == pytest.approx(100 / 6)
    assert values["contrast_error_percent"] == 0
    assert values["mean_corruption_error_percent"] == pytest.approx(100 / 12)
    assert values["weather_mean_error_percent"] == pytest.approx(100 / 6)
    assert values["extra_mean_error_percent"] == values["clean_error_percent"] == 0
    assert values["severity5_mean_error_percent"] == pytest.approx(100 / 6) and values["severity1_mean_error_percent"] == 0
    assert (values["standard_corruptions"], values["extra_corruptions"], values["corruption_images"]) == (2, 1, 9)
    assert "noise_mean_error_percent" not in values and "mean_corruption_error_relative_to_dense_percent" not in values


def test_errors_are_compared_with_those_of_the_dense_network() -> None:
    names, severities = ["fog", "snow", "saturate"], [1, 2]
    dense = {
        ("clean", 0): 10,
        ("fog", 1): 20,
        ("fog", 2): 40,
        ("snow", 1): 40,
        ("snow", 2): 60,
        ("saturate", 1): 99,
        ("saturate", 2): 99,
    }
    ours = {
        ("clean", 0): 20,
        ("fog", 1): 30,
        ("fog", 2): 60,
        ("snow", 1): 40,
        ("snow", 2): 50,
        ("saturate", 1): 9,
        ("saturate", 2): 9,
    }
    values, undefined = evaluation.summarise(ours, dense, 100, names, severities)
    assert not undefined
    # Fog 90 / 60, snow 90 / 100; less the clean errors 50 / 40 and 50 / 80. The extra one has no part in it.
    assert values["mean_corruption_error_relative_to_dense_percent"] == pytest.approx(100 * (1.5 + 0.9) / 2)
    assert values["mean_excess_error_relative_to_dense_percent"] == pytest.approx(100 * (50 / 40 + 50 / 80) / 2)
    itself, _ = evaluation.summarise(dense, dense, 100, names, severities)
    assert (
        itself["mean_corruption_error_relative_to_dense_percent"] == itself["mean_excess_error_relative_to_dense_percent"] == 100
    )
    flawless = {**dense, ("fog", 1): 0, ("fog", 2): 0}
    values, undefined = evaluation.summarise(ours, flawless, 100, names, severities)
    assert "mean_corruption_error_relative_to_dense_percent" not in values and "no error on a corruption" in undefined
    assert "fog does not raise" in undefined


def test_the_dense_network_is_evaluated_once(tmp_path: Path) -> None:
    dense = Bright(60 / 255)
    first = evaluation.measure(subject(tmp_path, Bright(100 / 255), dense, corruptions=["fog", "contrast"]))
    passes = dense.passes
    assert passes == 5
    second = evaluation.measure(subject(tmp_path, Bright(100 / 255), dense, corruptions=["fog", "contrast"]))
    assert dense.passes == passes and second.values == first.values
    evaluation.measure(subject(tmp_path, Bright(100 / 255), Bright(61 / 255), corruptions=["fog", "contrast"]))
    itself = evaluation.measure(subject(tmp_path, Bright(0.1), Bright(0.1), corruptions=["contrast"]))
    assert itself.values.get("mean_corruption_error_relative_to_dense_percent", 100) == 100


def test_a_count_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    whole = replace(subject(tmp_path, Bright(0.4), corruptions=["fog", "contrast"]), work=tmp_path / "work")
    expected = evaluation.measure(whole).values
    read = Store.read

    def killed(self: Store, name: str, *rest: Any) -> Split:
        if name == "contrast":
            raise KeyboardInterrupt
        return read(self, name, *rest)

    attempt = replace(whole, work=tmp_path / "again")
    monkeypatch.setattr(Store, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluation.measure(attempt)
    asked: list[str] = []

    def remembered(self: Store, name: str, *rest: Any) -> Split:
        asked.append(name)
        return read(self, name, *rest)

    monkeypatch.setattr(Store, "read", remembered)
    assert evaluation.measure(attempt).values == expected
    assert set(asked) == {"contrast"}


def test_small_images_are_refused(tmp_path: Path) -> None:
    digits = Dataset("digits", (1, 8, 8), 10, 1, False, lambda *_: None, "")  # type: ignore[arg-type,return-value]
    assert "not 1 x 8 x 8" in (evaluation.unsuited(digits) or "")
    assert evaluation.unsuited(DATASET) is None
    split = Split(
        digits, ResidentImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)), torch.arange(2)
    )
    with pytest.raises(PrunebenchError, match="corruptions: digits: "):
        evaluation.measure(Subject(Bright(0.5), (1, 8, 8), 10, lambda: split, torch.device("cpu")))


@pytest.mark.parametrize(
    "options", [{"corruptions": ["rain"]}, {"corruptions": []}, {"severities": [6]}, {"severities": [1, 1]}, {"images": 0}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        evaluation.Options.model_validate(options)


def test_the_package_has_every_constant() -> None:
    assert all(len(corruption.constants) == len(SEVERITIES) for corruption in corruptions.CORRUPTIONS.values())


def test_published_files_that_come_make_the_job_run_again(tmp_path: Path) -> None:
    options = {"corruptions": ["fog", "frost"]}
    folder = tmp_path / "CIFAR-10-C"
    asked = [folder, *(folder / f"{name}.npy" for name in ("labels", "fog", "frost"))]
    assert evaluation.EVALUATION.inputs is not None
    assert sorted(evaluation.EVALUATION.inputs(options, DATASET, tmp_path)) == sorted(asked)
    assert evaluation.EVALUATION.inputs({**options, "source": "made"}, DATASET, tmp_path) == []
    assert evaluation.EVALUATION.inputs(options, replace(DATASET, name="others"), tmp_path) == []
