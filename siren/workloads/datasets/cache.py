"""The user's cache folder: verified files, written atomically, fetched at most twice."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from siren.errors import DatasetError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""`progress(what, done_bytes, total_bytes)`; the total is 0 while it is unknown."""


def cache_folder() -> Path:
    """The folder of downloaded and parsed data: `$SIREN_CACHE`, else the user's cache folder."""
    given = os.environ.get("SIREN_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("siren"))


def md5(data: bytes) -> str:
    """MD5 in hex: the checksum that data sets publish; it guards against damage, not against malice."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    Raises:
        DatasetError: The cache folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    Raises:
        DatasetError: The cache folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror or error}; "
            "free some space, or set SIREN_CACHE to another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def verified(path: Path, expected_md5: str, fetch: Callable[[], bytes]) -> bytes:
    """The content of a cached file whose MD5 is known; fetches it if it is absent or damaged.

    Args:
        path: Where it is cached.
        expected_md5: Its MD5 in hex.
        fetch: Gets it; called at most once for an absent or damaged file, and once more if what
            it brought is damaged as well.

    Raises:
        DatasetError: The data does not match its checksum after a second fetch.
    """
    if path.is_file():
        data = path.read_bytes()
        if md5(data) == expected_md5:
            return data
        logger.warning("%s does not match its MD5: fetching it again", path)
        attempts = 1
    else:
        attempts = 2
    found = "nothing"
    for _ in range(attempts):
        data = fetch()
        found = md5(data)
        if found == expected_md5:
            write_atomically(path, data)
            return data
    path.unlink(missing_ok=True)
    raise DatasetError(
        f"{path.name} does not match its checksum (MD5 {found}, expected {expected_md5}) even after it was "
        f"fetched again; run the command again later, or place a good copy at {path}"
    )


@contextmanager
def progress_or_bar(progress: Progress | None) -> Iterator[Progress]:
    """The caller's progress callback; without one a bar on stderr if that is a terminal, else a log line."""
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        with _bar() as update:
            yield update
    else:
        yield _LogOnce()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=None)

        def update(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield update


class _LogOnce:
    """Logs each new thing that is fetched, once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._seen:
            self._seen.add(what)
            logger.info("%s", what)
