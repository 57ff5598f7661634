"""One local site for all tests of this folder: starting its servers takes longer than an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from siren.platforms.local import LocalSite
from siren.testing.tiny import write_tiny_workload
from tests.platforms.manager.sites import SharedSite


@pytest.fixture(scope="package")
def tiny_folder(tmp_path_factory) -> Path:
    return write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny")


@pytest.fixture(scope="package")
def site(tiny_folder) -> Iterator[SharedSite]:
    site = LocalSite(tiny_folder, environments=12, faults=True)
    try:
        yield SharedSite(site)
    finally:
        site.close()


@pytest.fixture(autouse=True)
def no_faults(request) -> Iterator[None]:
    """No test meets the faults of another."""
    yield
    if "site" in request.fixturenames:
        endpoint = request.getfixturevalue("site").site.endpoint
        if endpoint is not None:
            endpoint.clear_faults()
