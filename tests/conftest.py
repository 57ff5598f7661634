"""What holds for every test: one thread per library, no network, no account, no files left behind."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import platformdirs
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def _prepare_environment() -> None:
    """Set what this process and the commands that tests start must see; comes before numpy's import."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ["MPLBACKEND"] = "Agg"
    # Commands run from a folder of their own and still test this checkout.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *([inherited] if inherited else [])])
    # Data sets are verified by checksum, so tests share those that the user already has. A test of
    # the cache itself points this to its own tmp_path.
    os.environ.setdefault("SIREN_CACHE", platformdirs.user_cache_dir("siren"))
    # No test can reach an account, not even by mistake.
    os.environ.pop("AWS_PROFILE", None)
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_SESSION_TOKEN="testing",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )
    # Output does not depend on the terminal that the tests are started from.
    for name in ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        os.environ.pop(name, None)


_prepare_environment()

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("repeatable"), print_blob=True
)
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False, max_examples=1000)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "repeatable")


def _is_local(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True  # AF_UNIX and the like never leave the machine
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guarded(method: Callable[..., Any], address_position: int) -> Callable[..., Any]:
    def call(self: socket.socket, *args: Any) -> Any:
        address = args[address_position]
        if not _is_local(self.family, address):
            # pytest.fail is no Exception: code that tries its sources one by one cannot swallow it.
            pytest.fail(f"a test tried to reach {address!r}: only this machine may be reached")
        return method(self, *args)

    return call


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine, and every look-up of a host's name."""
    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _is_local(socket.AF_INET, (name,)):
            pytest.fail(f"a test tried to look up {name!r}: only this machine may be reached")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name, position in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name), position))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder of its own, so that a run folder never lands in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of this checkout."""
    return CHECKOUT


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A deployment that is there, and a list of what is asked of it."""
    from siren.errors import PlatformError
    from siren.platforms.aws.deployment import Deployment
    from siren.platforms.manager.aws_site import AwsSite

    asked: list[str] = []
    found = Deployment(
        name="siren",
        region="us-east-1",
        bucket="siren-000000000000-us-east-1",
        function_name="siren-worker",
        role_arn="arn:aws:iam::000000000000:role/siren-worker-us-east-1",
        redis_url="redis://cache:6379",
        runtime="python3.13",
        code_sha256="sha",
        concurrency=5,
    )

    def opened(site: AwsSite) -> None:
        asked.append("open")
        raise PlatformError("as far as this test goes; end it here")

    monkeypatch.setattr(AwsSite, "find", lambda site: found)
    monkeypatch.setattr(AwsSite, "open", opened)
    return asked
