"""Servers that the tests of one session share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from siren.worker.environment import WORKLOAD_DIR
from tests.worker import servers


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `workload` of a code package with the tiny model."""
    return servers.workload_folder(tmp_path_factory.mktemp("package") / "workload")


@pytest.fixture(autouse=True)
def _packaged_workload(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKLOAD_DIR, str(package))
