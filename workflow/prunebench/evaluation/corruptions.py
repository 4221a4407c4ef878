"""Errors on corrupted images: CIFAR-10-C's 19 corruptions at five severities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from prunebench.config import Section
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, Values

if TYPE_CHECKING:
    from torch import nn

    from prunebench.corruptions.store import Store
    from prunebench.data import Dataset, Split

Name = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]
ALL: tuple[Name, ...] = Name.__args__  # type: ignore[attr-defined]
# Errors by (corruption, severity), each the number of images classified wrongly; the clean images are "clean" of severity 0.
Wrong = dict[tuple[str, int], int]
CLEAN = ("clean", 0)
# Folders of the published files below the data root, by dataset, and the file there of the labels.
PUBLISHED = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
LABELS = "labels.npy"


class Options(Section):
    """Which corrupted images."""

    images: int = Field(10_000, ge=1)
    """Test images, the same for every network; all if there are fewer."""
    corruptions: list[Name] | None = Field(None, min_length=1)
    """Names of corruptions, by default all 19; the mean corruption error is of those among the 15 standard ones."""
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field([1, 2, 3, 4, 5], min_length=1)
    """From 1, mild, to 5."""
    source: Literal["auto", "published", "made"] = "auto"
    """`published`: files of CIFAR-10-C in the data root; `made`: by this package; `auto`: published where the folder is there."""

    @field_validator("corruptions", "severities")
    @classmethod
    def _distinct(cls, value: list[Any] | None) -> list[Any] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("each of them once")
        return value

    @property
    def names(self) -> tuple[Name, ...]:
        """The corruptions that are wanted."""
        return ALL if self.corruptions is None else tuple(self.corruptions)


def unsuited(dataset: Dataset) -> str | None:
    """Why a dataset's images cannot be corrupted, or None."""
    if dataset.input_shape == (3, 32, 32):
        return None
    return f"the corruptions of CIFAR-10-C are for 3 x 32 x 32 images, not {' x '.join(map(str, dataset.input_shape))}"


def inputs(options: Mapping[str, Any], dataset: Dataset, data_root: Path) -> list[Path]:
    """The published files, which are used where they are there, unless images are to be made in any case."""
    given = Options.model_validate(dict(options))
    if given.source == "made" or dataset.name not in PUBLISHED:
        return []
    folder = data_root / PUBLISHED[dataset.name]
    return [folder, folder / LABELS, *(folder / f"{name}.npy" for name in given.names)]


def measure(subject: Subject) -> Values:
    """Count errors on the clean and on the corrupted images; see ``EVALUATION.quantities``.

    Raises:
        PrunebenchError: the images are not of 32 x 32 pixels in colour, or files are missing.
    """
    from prunebench.corruptions.store import Store
    from prunebench.data import some

    options = Options.model_validate(dict(subject.options))
    split = some(subject.test(), options.images)
    if reason := unsuited(split.dataset):
        raise PrunebenchError(f"corruptions: {split.dataset.name}: {reason}")
    images = Store(split, subject.data_root, subject.cache, options.source)
    wrong = _count(subject.network, subject, options, split, images, subject.work)
    dense = None
    if subject.dense is not None:
        dense = wrong if _same(subject.network, subject.dense) else _count_dense(subject, options, split, images)
    values, undefined = summarise(wrong, dense, len(split), options.names, options.severities)
    values["published_images"] = float(images.published)
    labels = {"corrupted_images": "published" if images.published else "made with CIFAR-C's constants"}
    if undefined:
        labels["undefined"] = undefined
    return Values(values, labels)


def summarise(
    wrong: Mapping[tuple[str, int], int],
    dense: Mapping[tuple[str, int], int] | None,
    images: int,
    names: Sequence[str],
    severities: Sequence[int],
) -> tuple[dict[str, float], str]:
    """Errors in percent, and against those of the dense network.

    Args:
        wrong: Images classified wrongly by corruption and severity, and of the clean ones.
        dense: The same of the dense network, if there is one.
        images: Number of images.
        names: Corruptions.
        severities: Severities.

    Returns:
        Quantities, and why some of them are not there (empty if all are).
    """
    from prunebench.corruptions import CORRUPTIONS, GROUPS

    def percent(found: Mapping[tuple[str, int], int], name: str) -> float:
        return 100 * sum(found[name, severity] for severity in severities) / (images * len(severities))

    def mean(chosen: Sequence[float]) -> float:
        return sum(chosen) / len(chosen)

    errors = {name: percent(wrong, name) for name in names}
    standard = [name for name in names if CORRUPTIONS[name].group != "extra"]
    extra = [name for name in names if CORRUPTIONS[name].group == "extra"]
    clean = 100 * wrong[CLEAN] / images
    values: dict[str, float] = {f"{name}_error_percent": error for name, error in errors.items()}
    for group in GROUPS:
        if members := [errors[name] for name in standard if CORRUPTIONS[name].group == group]:
            values[f"{group}_mean_error_percent"] = mean(members)
    if extra:
        values["extra_mean_error_percent"] = mean([errors[name] for name in extra])
    values |= {
        "clean_error_percent": clean,
        "corruption_images": images,
        "corruption_severities": len(severities),
        "standard_corruptions": len(standard),
        "extra_corruptions": len(extra),
    }
    if not standard:
        return values, ""
    values["mean_corruption_error_percent"] = mean([errors[name] for name in standard])
    for severity in severities:
        values[f"severity{severity}_mean_error_percent"] = mean([100 * wrong[name, severity] / images for name in standard])
    if dense is None:
        return values, ""
    undefined = []
    of_dense = {name: percent(dense, name) for name in standard}
    if all(of_dense.values()):
        ratios = [100 * errors[name] / of_dense[name] for name in standard]
        values["mean_corruption_error_relative_to_dense_percent"] = mean(ratios)
    else:
        undefined.append("mean_corruption_error_relative_to_dense_percent: the dense network makes no error on a corruption")
    dense_clean = 100 * dense[CLEAN] / images
    excess = {name: error - dense_clean for name, error in of_dense.items()}
    if all(value > 0 for value in excess.values()):
        ratios = [100 * (errors[name] - clean) / excess[name] for name in standard]
        values["mean_excess_error_relative_to_dense_percent"] = mean(ratios)
    else:
        easy = min(excess, key=lambda name: excess[name])
        undefined.append(f"mean_excess_error_relative_to_dense_percent: {easy} does not raise the dense network's error")
    return values, "; ".join(undefined)


def _count_dense(subject: Subject, options: Options, split: Split, images: Store) -> Wrong:
    """The dense network's errors, kept for the jobs of all networks that were made from it."""
    from prunebench.artifacts import fingerprint
    from prunebench.checkpoints import digest

    assert subject.dense is not None
    folder = None
    if subject.cache is not None:
        weights = digest(subject.dense.state_dict(), str(subject.dense))
        context = [weights, str(subject.device), images.identity, sorted(options.names), sorted(options.severities)]
        folder = subject.cache / "corruption-errors" / fingerprint(context)[:16]
    return _count(subject.dense, subject, options, split, images, folder)


def _count(network: nn.Module, subject: Subject, options: Options, split: Split, images: Store, folder: Path | None) -> Wrong:
    """Images classified wrongly; after each corruption they are kept in ``folder``, where a job that was killed goes on."""
    from tqdm import tqdm

    from prunebench.artifacts import read_json, write_json
    from prunebench.evaluation.accuracy import classify

    def errors(of: Split) -> int:
        return len(of) - classify(network, of, subject.device, subject.batch_size)[0]

    path = folder / "errors.json" if folder is not None else None
    wrong: Wrong = {}
    if path is not None and path.is_file():
        try:
            kept = read_json(path, ["images", "wrong"])
            if kept["images"] == images.identity:
                wrong = {(str(name), int(severity)): int(number) for name, severity, number in kept["wrong"]}
        except (PrunebenchError, TypeError, ValueError) as error:
            print(f"{path}: starting again ({error})", flush=True)
    if CLEAN not in wrong:
        wrong[CLEAN] = errors(split)
    for name in tqdm(options.names, desc="corruptions", unit="corruption", leave=False):
        missing = [severity for severity in options.severities if (name, severity) not in wrong]
        for severity in missing:
            wrong[name, severity] = errors(images.read(name, severity, tqdm.write))
        if missing and path is not None:
            write_json(path, {"images": images.identity, "wrong": [[*key, number] for key, number in wrong.items()]})
    return wrong


def _same(network: nn.Module, dense: nn.Module) -> bool:
    """Whether the network is the dense one, whose errors need not be counted twice."""
    import torch

    ours, theirs = network.state_dict(), dense.state_dict()
    return str(network) == str(dense) and ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


EVALUATION = Evaluation(
    "corruptions",
    measure,
    per="network",
    needs_data=True,
    options=Options,
    unsuited=unsuited,
    inputs=inputs,
    quantities={
        "<corruption>_error_percent": "Error under one of the 19 corruptions, mean over the severities",
        "<group>_mean_error_percent": "Mean of these over noise, blur, weather or digital, or over the four extra corruptions",
        "clean_error_percent": "Error on the same images without corruption",
        "mean_corruption_error_percent": "Mean error over the standard corruptions, each the mean over severities; not normalised",
        "severity<n>_mean_error_percent": "Mean error over the standard corruptions at severity n",
        "mean_corruption_error_relative_to_dense_percent": (
            "mCE with the dense network in AlexNet's place: 100 times the error summed over severities over the dense network's, mean "
            "over the standard corruptions; 100 is the dense network"
        ),
        "mean_excess_error_relative_to_dense_percent": (
            "Relative mCE likewise: of the error less that on clean images; left out if a corruption does not raise the dense "
            "network's error"
        ),
        "corruption_images": "Number of images under each corruption and severity",
        "corruption_severities": "Number of severities",
        "standard_corruptions": "Number of the 15 standard corruptions that the means are of",
        "extra_corruptions": "Number of the 4 extra corruptions that were evaluated",
        "published_images": "1 if the corrupted images are the published files of CIFAR-10-C, 0 if they were made here",
    },
    source="Hendrycks and Dietterich 2019, arXiv:1903.12261",
)
