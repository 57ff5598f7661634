"""The wheels that a code package carries: pinned by hash, fetched through pip, kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from siren.errors import PlatformError
from siren.workloads.datasets.cache import atomic_path, cache_folder

logger = logging.getLogger(__name__)

FETCH_S = 600.0
"""Longest that pip may take; a wheel has at most 17 MB."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        requirement: What pip is asked for, e.g. "redis==8.1.0".
        filename: The wheel that it must bring.
        sha256: Its hash in hex.
        platform: pip's platform tag; empty for a wheel that runs anywhere.
        python: "3.13", the Python that it is for; empty for any.
    """

    requirement: str
    filename: str
    sha256: str
    platform: str = ""
    python: str = ""


def fetch_wheel(wheel: Wheel) -> Path:
    """The wheel in the cache, fetched with pip if it is absent or damaged.

    Raises:
        PlatformError: pip cannot fetch it, or brought something else.
        DatasetError: The cache folder cannot be written.
    """
    path = cache_folder() / "wheels" / wheel.filename
    if path.is_file() and _sha256(path.read_bytes()) == wheel.sha256:
        return path
    with tempfile.TemporaryDirectory(prefix="siren-wheel-") as folder:
        content = _download(wheel, Path(folder), path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def _download(wheel: Wheel, folder: Path, cached: Path) -> bytes:
    """The wheel's bytes, checked by pip against the pinned hash."""
    logger.info("fetching %s", wheel.filename)
    pins = folder / "requirements.txt"
    pins.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    target = ["--platform", wheel.platform, "--implementation", "cp"] if wheel.platform else []
    target += ["--python-version", wheel.python] if wheel.python else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", *target]
    command += ["--requirement", str(pins), "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unavailable(wheel, cached, str(error)) from error
    fetched = folder / wheel.filename
    if done.returncode or not fetched.is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise _unavailable(wheel, cached, errors[-1] if errors else f"pip ended with {done.returncode}")
    return fetched.read_bytes()


def _unavailable(wheel: Wheel, cached: Path, reason: str) -> PlatformError:
    return PlatformError(
        f"cannot fetch {wheel.filename}: {' '.join(reason.split())}; check pip's access to its package "
        f"index, or place that file at {cached}"
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
