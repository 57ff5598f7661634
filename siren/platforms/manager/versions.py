"""Published versions of the worker's function, one for each (memory, timeout).

Memory and timeout are configuration, and a published version keeps its own: what an epoch runs on is
chosen by invoking another version, never $LATEST.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from siren.errors import PlatformError
from siren.platforms.backend import Backend
from siren.platforms.manager.clients import lambda_client

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_lambda.type_defs import WaiterConfigTypeDef

log = logging.getLogger(__name__)

_WAIT: WaiterConfigTypeDef = {"Delay": 1, "MaxAttempts": 300}


class Versions:
    """The function's published versions that hold the right code; publishes what is missing.

    Args:
        backend: Names the function.
        code_sha256: What Lambda must say of the code (`CodeSha256`, base64).
        client: Of the Lambda API; made from the backend if None.
    """

    def __init__(self, backend: Backend, code_sha256: str, client: LambdaClient | None = None) -> None:
        self._name, self._sha256 = backend.function_name, code_sha256
        self._client = client or lambda_client(backend)
        self._arns: dict[tuple[int, int], str] | None = None
        self._lock = threading.Lock()

    def arn(self, memory_mb: int, timeout_s: int) -> str:
        """ARN of the version with this memory and timeout; it is published first where there is none.

        Raises:
            PlatformError: The function is missing, has other code, or cannot be published.
        """
        with self._lock:
            if self._arns is None:
                self._arns = self._published()
            key = memory_mb, timeout_s
            if key not in self._arns:
                self._arns[key] = self._publish(memory_mb, timeout_s)
            return self._arns[key]

    def _published(self) -> dict[tuple[int, int], str]:
        found = {}
        try:
            pages = self._client.get_paginator("list_versions_by_function").paginate(FunctionName=self._name)
            for page in pages:
                for version in page["Versions"]:
                    if version["Version"] != "$LATEST" and version.get("CodeSha256") == self._sha256:
                        found[version["MemorySize"], version["Timeout"]] = version["FunctionArn"]
        except _errors() as error:
            raise _refused(error, f"the versions of {self._name} cannot be listed") from error
        return found

    def _publish(self, memory_mb: int, timeout_s: int) -> str:
        log.info("publishing %s with %d MB and %d s", self._name, memory_mb, timeout_s)
        try:
            self._client.update_function_configuration(
                FunctionName=self._name, MemorySize=memory_mb, Timeout=timeout_s
            )
            self._client.get_waiter("function_updated_v2").wait(FunctionName=self._name, WaiterConfig=_WAIT)
            version = self._client.publish_version(
                FunctionName=self._name,
                CodeSha256=self._sha256,
                Description=f"{memory_mb} MB, {timeout_s} s",
            )
            self._client.get_waiter("published_version_active").wait(
                FunctionName=self._name, Qualifier=version["Version"], WaiterConfig=_WAIT
            )
        except _errors() as error:
            raise _refused(
                error, f"no version of {self._name} with {memory_mb} MB and {timeout_s} s can be published"
            ) from error
        self._check(version, memory_mb, timeout_s)
        return version["FunctionArn"]

    def _check(self, version: Any, memory_mb: int, timeout_s: int) -> None:
        """Refuses a version that is not what was asked for: somebody else may be deploying."""
        found = version["CodeSha256"], version["MemorySize"], version["Timeout"]
        if found != (self._sha256, memory_mb, timeout_s):
            raise PlatformError(
                f"version {version['Version']} of {self._name} has {found[1]} MB, {found[2]} s and code "
                f"{found[0]}, not {memory_mb} MB, {timeout_s} s and {self._sha256}: something else changes "
                "this function; end it and run again, or deploy under another name"
            )


def _errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError, WaiterError

    return BotoCoreError, ClientError, WaiterError


def _refused(error: Exception, what: str) -> PlatformError:
    return PlatformError(f"{what}: {' '.join(str(error).split())}; deploy the function again, or look at it")
