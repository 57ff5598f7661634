"""One endpoint for all tests of a module, and what they do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME
from siren.testing.lambda_target import Account, Target, lambda_client

Start = Callable[..., contextlib.AbstractContextManager[tuple[LocalEndpoint, Account]]]


@contextlib.contextmanager
def started(*options: str) -> Iterator[tuple[LocalEndpoint, Account]]:
    """An endpoint with its own options, and its account."""
    with LocalEndpoint(options=options) as endpoint:
        own = endpoint.credentials
        target = Target(lambda: lambda_client(endpoint.url, own.access_key, own.secret_key), RUNTIME)
        account = Account(target)
        with contextlib.closing(account.client):
            yield endpoint, account


@pytest.fixture(scope="session")
def start() -> Start:
    """Starts an endpoint."""
    return started


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[LocalEndpoint, Account]]:
    """The module's endpoint, into which faults can be injected, and its account."""
    with started("--faults", "--retry-delays", "0.05") as both:
        yield both


@pytest.fixture
def endpoint(both) -> Iterator[LocalEndpoint]:
    """The module's endpoint."""
    yield both[0]
    both[0].clear_faults()


@pytest.fixture
def account(both) -> Account:
    """Its account."""
    return both[1]


@pytest.fixture(scope="module")
def function(both) -> str:
    """A function that tests share."""
    return both[1].create()
