"""Corrupted images for all networks: the published files where they are, else made once and kept with a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prunebench.artifacts import fingerprint, sha256_of, write_atomically, write_text
from prunebench.corruptions import SEVERITIES, SIDE, corrupt
from prunebench.data import Split
from prunebench.data.dataset import ResidentImages
from prunebench.errors import PrunebenchError
from prunebench.evaluation.corruptions import LABELS, PUBLISHED

if TYPE_CHECKING:
    from numpy.typing import NDArray

Source = Literal["auto", "published", "made"]
# Images that are corrupted at a time, a bound on the memory (float64, some copies).
_BATCH = 500
# Files of this process whose checksum was right, as they were then: they are read again for every network.
_checked: set[tuple[Path, int, int]] = set()


class Store:
    """Corrupted images of a test split, or of some of it."""

    def __init__(self, split: Split, data_root: Path, cache: Path | None, source: Source = "auto") -> None:
        """Say where from.

        Args:
            split: The clean images.
            data_root: Folder with the datasets; published files are in its folder ``CIFAR-10-C`` or ``CIFAR-100-C``.
            cache: Folder for images that are made; None makes them every time.
            source: ``published`` files, ``made`` here, or, ``auto``, published where the folder is there.

        Raises:
            PrunebenchError: published files are asked for and not there.
        """
        self._split = split
        folder = data_root / PUBLISHED.get(split.dataset.name, "")
        there = split.dataset.name in PUBLISHED and folder.is_dir()
        if source == "published" and not there:
            wanted = f"{folder} is not there" if split.dataset.name in PUBLISHED else "none are published"
            raise PrunebenchError(
                f"corruptions: {split.dataset.name}: published images are asked for, and {wanted}; unpack CIFAR-10-C.tar "
                "(https://zenodo.org/records/2535967) or CIFAR-100-C.tar (https://zenodo.org/records/3555552) in the data root, "
                "or set the option `source: made`"
            )
        self._published = folder if there and source != "made" else None
        self._cache = cache / f"corruptions-{self._key}" if cache is not None else None

    @property
    def published(self) -> bool:
        """Whether the images are the published ones."""
        return self._published is not None

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The clean images, shape (n, 32, 32, 3)."""
        import torch

        found: NDArray[np.uint8] = self._split.pixels(torch.arange(len(self._split))).permute(0, 2, 3, 1).contiguous().numpy()
        return found

    @cached_property
    def _key(self) -> str:
        """What the made images follow from: the clean ones, the code and the libraries that may round otherwise."""
        code = [sha256_of(file) for file in sorted(Path(__file__).parent.glob("*.py"))]
        libraries = [version(name) for name in ("numpy", "scipy", "pillow", "matplotlib")]
        pixels = hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()
        return fingerprint([pixels, self._split.indices.tolist(), code, libraries])[:16]

    @property
    def identity(self) -> str:
        """What the corrupted images follow from: errors on them can be compared if it is the same."""
        return f"published {self._key}" if self.published else self._key

    def read(self, name: str, severity: int, tell: Callable[[str], Any] = print) -> Split:
        """The images under a corruption, with their labels.

        Args:
            name: One of ``CORRUPTIONS``.
            severity: 1 to 5.
            tell: Where to say that a file was corrupt and is made again.

        Raises:
            PrunebenchError: a published file is missing or not what it should be, or frost has no pictures.
        """
        import torch

        found = self._read_published(name, severity) if self._published else self._read_made(name, severity, tell)
        images = torch.from_numpy(np.array(found)).permute(0, 3, 1, 2)
        return Split(self._split.dataset, ResidentImages(images, self._split.labels), torch.arange(len(images)))

    # --- made ----------------------------------------------------------------------------------------------------

    def _read_made(self, name: str, severity: int, tell: Callable[[str], Any]) -> NDArray[np.uint8]:
        if self._cache is None:
            return self._make(name, severity)
        path = self._cache / f"{name}-{severity}.npy"
        checksum = path.with_suffix(".sha256")
        if path.is_file() and checksum.is_file():
            status = path.stat()
            seen = (path, status.st_size, status.st_mtime_ns)
            if seen in _checked or sha256_of(path) == checksum.read_text(encoding="utf-8").strip():
                _checked.add(seen)
                found: NDArray[np.uint8] = load_array(path)
                return found
            tell(f"{path}: corrupt, its SHA-256 is not that of {checksum.name}; making it again")
        made = self._make(name, severity)
        # Two jobs that do this at once write the same bytes, each whole under its name.
        write_atomically(path, lambda temporary: np.save(temporary, made, allow_pickle=False))
        write_text(checksum, sha256_of(path) + "\n")
        return made

    def _make(self, name: str, severity: int) -> NDArray[np.uint8]:
        positions = self._split.indices.tolist()
        batches = range(0, len(positions), _BATCH)
        return np.concatenate(
            [corrupt(self.pixels[at : at + _BATCH], name, severity, positions[at : at + _BATCH]) for at in batches]
        )

    # --- published -----------------------------------------------------------------------------------------------

    @cached_property
    def _official_images(self) -> int:
        """Number of images of a severity, once the published labels are found to be those of the official test part."""
        assert self._published is not None
        ours = self._split.images.labels.numpy()
        labels = load_array(self._published / LABELS)
        if not np.array_equal(labels, np.tile(ours, len(SEVERITIES))):
            raise PrunebenchError(
                f"{self._published / LABELS}: not the labels of the {len(ours)} test images of {self._split.dataset.name}, "
                f"{len(SEVERITIES)} times over; unpack it again"
            )
        return len(ours)

    def _read_published(self, name: str, severity: int) -> NDArray[np.uint8]:
        assert self._published is not None
        path = self._published / f"{name}.npy"
        number = self._official_images
        images = load_array(path)
        expected = (len(SEVERITIES) * number, SIDE, SIDE, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise PrunebenchError(f"{path}: {images.dtype} of {images.shape}, expected uint8 of {expected}; unpack it again")
        first = SEVERITIES.index(severity) * number
        chosen: NDArray[np.uint8] = images[first : first + number][self._split.indices.numpy()]
        return chosen


def load_array(path: Path) -> Any:
    """A NumPy file, mapped into memory.

    Raises:
        PrunebenchError: it is missing or corrupt.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file; the folder should hold all that was published") from None
    except (OSError, ValueError, EOFError) as error:
        raise PrunebenchError(f"{path}: not a whole NumPy file ({error}); get it again") from None
