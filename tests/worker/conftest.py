"""Servers that the tests of one session share."""

from __future__ import annotations

from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def _packaged_workload(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = servers.workload_folder(tmp_path_factory.mktemp("package") / "workload")
    monkeypatch.setenv(WORKLOAD_DIR, str(folder))
