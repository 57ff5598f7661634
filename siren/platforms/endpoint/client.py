"""Starts the endpoint as a child."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from siren.errors import PlatformError
from siren.platforms.processes import Child, start_child

START_S = 60.0
STOP_S = 30.0
_TOKEN = "X-Siren-Token"


@dataclass(frozen=True)
class Credentials:
    """What requests to an endpoint are signed with; made up where none are given."""

    access_key: str = field(default_factory=lambda: f"LOCAL{secrets.token_hex(8).upper()}")
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    session_token: str = field(default="", repr=False)


class LocalEndpoint:
    """A Lambda endpoint on 127.0.0.1 that ends with this process, or with its `with` block.

    Args:
        credentials: What requests must be signed with; functions get them too.
        s3_url: Where packages are fetched from.
        log: A file for what it logs.
        options: Further options of the command, e.g. `--environments 50`.

    Attributes:
        url: For boto3's `endpoint_url`.

    Raises:
        PlatformError: It does not start.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        s3_url: str | None = None,
        log: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.credentials = credentials or Credentials()
        hearing, telling = os.pipe()
        command = [sys.executable, "-m", "siren.platforms.endpoint", "--ready-fd", str(telling)]
        command += ["--s3-url", s3_url] if s3_url else []
        try:
            self.child: Child = start_child(
                [*command, *options],
                name="the Lambda endpoint",
                env=self._environment(),
                log=log,
                pass_fds=(telling,),
                grace_s=STOP_S,
            )
        except BaseException:
            os.close(hearing)
            raise
        finally:
            os.close(telling)
        self._started(hearing)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it with all its environments."""
        self.child.stop()

    def about(self) -> dict[str, Any]:
        """How it confines functions, and what it has run."""
        told: dict[str, Any] = json.loads(self._ask("GET", "/_siren/about"))
        return told

    def inject(self, kind: str, **settings: Any) -> None:
        """Injects a fault, if it was started with `--faults`: see `siren.platforms.endpoint.faults.Fault`."""
        self._ask("POST", "/_siren/faults", json.dumps({"kind": kind, **settings}))

    def faults(self) -> list[dict[str, Any]]:
        """The faults, and how often each was injected."""
        told: list[dict[str, Any]] = json.loads(self._ask("GET", "/_siren/faults"))
        return told

    def clear_faults(self) -> None:
        """Injects no more."""
        self._ask("DELETE", "/_siren/faults")

    def _started(self, hearing: int) -> None:
        with os.fdopen(hearing, "rb") as file:
            line = file.readline() if select.select([file], [], [], START_S)[0] else b""
        if not line:
            self.child.wait_until(lambda: False, 1.0)
        told = json.loads(line)
        self.url: str = told["url"]
        self.root = Path(told["root"])

    def _environment(self) -> Mapping[str, str]:
        own = self.credentials
        environment = {
            "AWS_ACCESS_KEY_ID": own.access_key,
            "AWS_SECRET_ACCESS_KEY": own.secret_key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if own.session_token:
            environment["AWS_SESSION_TOKEN"] = own.session_token
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return kept | environment

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=START_S)
        try:
            connection.request(method, path, body, {_TOKEN: self.credentials.secret_key})
            response = connection.getresponse()
            answer = response.read()
        except OSError as error:
            raise PlatformError(f"the Lambda endpoint does not answer: {error}; start it again") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise PlatformError(f"the Lambda endpoint refused {path}: {answer.decode(errors='replace')}")
        return answer
