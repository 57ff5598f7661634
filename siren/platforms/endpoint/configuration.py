"""How a version of a function is configured, and what of that Lambda accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from siren.platforms.endpoint.code import Code
from siren.platforms.endpoint.errors import invalid
from siren.platforms.endpoint.logs import JsonLog, TextLog, log_format
from siren.platforms.endpoint.settings import ENVIRONMENT_BYTES, MEMORY_MB, RUNTIME, TIMEOUT_S

_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
# "Defined runtime environment variables" of the Lambda guide: these cannot be set.
_RESERVED_VARIABLES = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|AWS_(DEFAULT_)?REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_FUNCTION_\w+"
    r"|AWS_LAMBDA_INITIALIZATION_TYPE|AWS_LAMBDA_LOG_(GROUP|STREAM)_NAME|AWS_ACCESS_KEY(_ID)?"
    r"|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|AWS_LAMBDA_RUNTIME_API|LAMBDA_(TASK_ROOT|RUNTIME_DIR)"
)
CONFIGURABLE = {
    "Description",
    "Environment",
    "EphemeralStorage",
    "Handler",
    "LoggingConfig",
    "MemorySize",
    "Role",
    "Runtime",
    "Timeout",
}
FIELDS = (
    "runtime",
    "handler",
    "role",
    "description",
    "memory_mb",
    "timeout_s",
    "ephemeral_mb",
    "variables",
    "logging",
)


@dataclass(frozen=True)
class Configuration:
    """One version of a function, or its $LATEST; a change makes another one.

    Attributes:
        name, version: Which.
        arn: With the version, except for $LATEST.
        code: What runs.
        runtime, handler, role, description, memory_mb, timeout_s, ephemeral_mb: As in the API.
        variables: Environment variables.
        logging: The API's LoggingConfig.
        architectures: As told; environments run this machine's.
        revision: Differs after each change.
        modified: When, as the API tells it.
        ready_at: Until then (on the loop's clock) it is pending.
        created: Whether it was never changed since it was made.
    """

    name: str
    version: str
    arn: str
    code: Code
    runtime: str
    handler: str
    role: str
    description: str = ""
    memory_mb: int = 128
    timeout_s: int = 3
    ephemeral_mb: int = 512
    variables: Mapping[str, str] = field(default_factory=dict)
    logging: Mapping[str, str] = field(default_factory=lambda: {"LogFormat": "Text"})
    architectures: tuple[str, ...] = ("x86_64",)
    revision: str = ""
    modified: str = ""
    ready_at: float = 0.0
    created: bool = True

    @property
    def log(self) -> TextLog | JsonLog:
        """The format of its log."""
        return log_format(self.logging["LogFormat"])

    def same_as(self, other: Configuration) -> bool:
        """Whether both run the same code in the same way."""

        def essence(one: Configuration) -> tuple[object, ...]:
            return (
                one.code.sha256,
                one.runtime,
                one.handler,
                one.role,
                one.memory_mb,
                one.timeout_s,
                one.ephemeral_mb,
                dict(one.variables),
                dict(one.logging),
            )

        return essence(self) == essence(other)

    def to_json(self, now: float) -> dict[str, Any]:
        """The API's FunctionConfiguration."""
        pending = now < self.ready_at
        told: dict[str, Any] = {
            "FunctionName": self.name,
            "FunctionArn": self.arn,
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code.zipped_bytes,
            "Description": self.description,
            "Timeout": self.timeout_s,
            "MemorySize": self.memory_mb,
            "LastModified": self.modified,
            "CodeSha256": self.code.sha256,
            "Version": self.version,
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision,
            "State": "Pending" if pending and self.created else "Active",
            "LastUpdateStatus": "InProgress" if pending and not self.created else "Successful",
            "PackageType": "Zip",
            "Architectures": list(self.architectures),
            "EphemeralStorage": {"Size": self.ephemeral_mb},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogGroup": f"/aws/lambda/{self.name}", **self.logging},
        }
        if pending and self.created:
            told |= {"StateReason": "The function is being created.", "StateReasonCode": "Creating"}
        if self.variables:
            told["Environment"] = {"Variables": dict(self.variables)}
        return told


FIELDS = (
    "runtime",
    "handler",
    "role",
    "description",
    "memory_mb",
    "timeout_s",
    "ephemeral_mb",
    "variables",
    "logging",
)


def configured(base: Configuration, request: Mapping[str, Any]) -> Configuration:
    """A configuration with a request's fields."""
    given: dict[str, Any] = {}
    for key, name in (("Handler", "handler"), ("Description", "description"), ("Role", "role")):
        if key in request:
            given[name] = request[key]
    if "Runtime" in request:
        given["runtime"] = request["Runtime"]
        if request["Runtime"] != RUNTIME:
            raise invalid(f"this endpoint runs {RUNTIME} only, the interpreter that it was started with")
    if not _ROLE.fullmatch(given.get("role", base.role)):
        raise invalid(f"Role {given.get('role', base.role)!r} is no ARN of an IAM role")
    if "MemorySize" in request:
        given["memory_mb"] = _within("MemorySize", request["MemorySize"], *MEMORY_MB)
    if "Timeout" in request:
        given["timeout_s"] = _within("Timeout", request["Timeout"], *TIMEOUT_S)
    if "EphemeralStorage" in request:
        given["ephemeral_mb"] = _within(
            "EphemeralStorage", request["EphemeralStorage"].get("Size"), 512, 10_240
        )
    if "Environment" in request:
        given["variables"] = _variables(request["Environment"].get("Variables", {}))
    if "LoggingConfig" in request:
        given["logging"] = _logging(request["LoggingConfig"])
    return replace(base, **given)


def _within(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"{name} is {value!r}: give a whole number from {least} to {most}")
    return value


def _variables(variables: Mapping[str, str]) -> dict[str, str]:
    reserved = sorted(name for name in variables if _RESERVED_VARIABLES.fullmatch(name))
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you "
            "have provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    if len(json.dumps(variables, separators=(",", ":"))) > ENVIRONMENT_BYTES:
        raise invalid(f"environment variables take more than {ENVIRONMENT_BYTES} bytes: pass less that way")
    return dict(variables)


def _logging(asked: Mapping[str, str]) -> dict[str, str]:
    check_fields(asked, {"LogFormat", "LogGroup", "ApplicationLogLevel", "SystemLogLevel"})
    given = {"LogFormat": "Text", **asked}
    if given["LogFormat"] not in (TextLog.name, JsonLog.name):
        raise invalid(f"LogFormat is {given['LogFormat']!r}: choose Text or JSON")
    if given["LogFormat"] == TextLog.name and len({"ApplicationLogLevel", "SystemLogLevel"} & set(given)):
        raise invalid("log levels need the log format JSON")
    if given.get("SystemLogLevel", "INFO") != "INFO":
        raise invalid("this endpoint writes platform logs of SystemLogLevel INFO only")
    return given


def check_fields(request: Mapping[str, Any], known: set[str]) -> None:
    """Refuses what this endpoint does not have.

    Raises:
        ApiError: Names it.
    """
    unknown = sorted(set(request) - known)
    if unknown:
        raise invalid(f"this endpoint does not have {', '.join(unknown)}: leave it out")
