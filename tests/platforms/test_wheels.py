"""Wheels come through pip, by hash, once."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from siren.errors import PlatformError
from siren.platforms.wheels import Wheel, fetch_wheel

NAME = "siren_probe-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A package index of one wheel, in a folder, and an empty cache."""
    path = tmp_path / "index" / NAME
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("siren_probe.py", "")
        archive.writestr(
            "siren_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: siren-probe\nVersion: 1.0\n"
        )
        archive.writestr(
            "siren_probe-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("siren_probe-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    return Wheel("siren-probe==1.0", NAME, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_is_fetched_once_and_again_when_damaged(
    index: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_wheel(index)
    assert path == tmp_path / "cache" / "wheels" / NAME
    assert hashlib.sha256(path.read_bytes()).hexdigest() == index.sha256
    with monkeypatch.context() as patch:
        patch.setattr("siren.platforms.wheels.subprocess.run", None)  # not asked again
        assert fetch_wheel(index) == path
    path.write_bytes(b"damaged")
    assert hashlib.sha256(fetch_wheel(index).read_bytes()).hexdigest() == index.sha256


def test_another_wheel_of_that_name_is_refused(index: Wheel, tmp_path: Path) -> None:
    forged = Wheel(index.requirement, index.filename, "0" * 64)
    with pytest.raises(PlatformError, match=rf"cannot fetch {NAME}: ERROR.*or place that file at"):
        fetch_wheel(forged)
    assert not (tmp_path / "cache" / "wheels" / NAME).exists()


def test_a_wheel_that_nobody_has_is_named(index: Wheel) -> None:
    absent = Wheel("siren-absent==1.0", "siren_absent-1.0-py3-none-any.whl", index.sha256)
    with pytest.raises(PlatformError, match=r"No matching distribution found for siren-absent==1\.0"):
        fetch_wheel(absent)
