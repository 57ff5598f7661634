"""Which functions and versions exist, and how they are configured."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from siren.platforms.endpoint.code import Code
from siren.platforms.endpoint.errors import ApiError, conflict, invalid, missing
from siren.platforms.endpoint.logs import JsonLog, TextLog, log_format
from siren.platforms.endpoint.settings import (
    ENVIRONMENT_BYTES,
    MEMORY_MB,
    RUNTIME,
    TIMEOUT_S,
    UNRESERVED_AT_LEAST,
    Settings,
)

LATEST = "$LATEST"
_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_REFERENCE = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):function:"
    r"|(?:(?P<partial>\d{12}):)?function:)?"
    r"(?P<name>[a-zA-Z0-9-_]+)(?::(?P<version>\$LATEST|[a-zA-Z0-9-_]+))?"
)
_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
# "Defined runtime environment variables" of the Lambda guide: these cannot be set.
_RESERVED_VARIABLES = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|AWS_(DEFAULT_)?REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_FUNCTION_\w+"
    r"|AWS_LAMBDA_INITIALIZATION_TYPE|AWS_LAMBDA_LOG_(GROUP|STREAM)_NAME|AWS_ACCESS_KEY(_ID)?"
    r"|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|AWS_LAMBDA_RUNTIME_API|LAMBDA_(TASK_ROOT|RUNTIME_DIR)"
)
_CONFIGURABLE = {
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
_CREATED_WITH = {"FunctionName", "Code", "Publish", "Tags", "PackageType", "Architectures"}


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


@dataclass
class Function:
    """A function with its versions.

    Attributes:
        latest: $LATEST.
        versions: Published ones, by number.
        tags: As given.
        reserved: Reserved concurrency, None if none.
        last_version: Highest number so far; numbers are never used again.
    """

    latest: Configuration
    versions: dict[str, Configuration] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    reserved: int | None = None
    last_version: int = 0

    def all(self) -> list[Configuration]:
        """$LATEST and the published ones."""
        return [self.latest, *self.versions.values()]


class Registry:
    """All functions of the account."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._functions: dict[str, Function] = {}

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())

    def reference(self, text: str, qualifier: str | None = None) -> tuple[str, str | None]:
        """The name and the version that a FunctionName (a name or any ARN) and a Qualifier mean.

        Raises:
            ApiError: It is neither, or of another account or region, or both name different versions.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise invalid(f"{text!r} is neither a function's name nor its ARN")
        for part, own in (("region", self._settings.region), ("account", self._settings.account)):
            if found[part] not in (None, own):
                raise missing(text)
        if found["partial"] not in (None, self._settings.account):
            raise missing(text)
        version = found["version"]
        if version and qualifier and version != qualifier:
            raise invalid(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        return found["name"], version or qualifier

    def function(self, name: str) -> Function:
        """The function of this name.

        Raises:
            ApiError: There is none.
        """
        if name not in self._functions:
            raise missing(self._settings.arn(name))
        return self._functions[name]

    def configuration(self, name: str, version: str | None) -> Configuration:
        """One version, $LATEST by default.

        Raises:
            ApiError: There is none.
        """
        function = self.function(name)
        if version in (None, LATEST):
            return function.latest
        if version not in function.versions:
            raise missing(self._settings.arn(name, version))
        return function.versions[str(version)]

    def create(self, request: Mapping[str, Any], code: Code, now: float) -> Configuration:
        """CreateFunction, after its code was unpacked.

        Raises:
            ApiError: A parameter is wrong, or the name is taken.
        """
        name = request["FunctionName"]
        configuration = Configuration(
            name=name,
            version=LATEST,
            arn=self._settings.arn(name),
            code=code,
            runtime=request["Runtime"],
            handler=request["Handler"],
            role=request["Role"],
            architectures=tuple(request.get("Architectures", ["x86_64"])),
        )
        configuration = replace(_configured(configuration, request), **self._stamp(now))
        self._functions[name] = Function(configuration, tags=dict(request.get("Tags", {})))
        return configuration

    def check_new(self, request: Mapping[str, Any]) -> None:
        """Refuses a CreateFunction that cannot be done, before its code is looked at."""
        name = request.get("FunctionName", "")
        if not _NAME.fullmatch(name):
            raise invalid(
                f"{name!r} is no function name: give 1 to 64 letters, digits, hyphens and underscores"
            )
        if name in self._functions:
            raise conflict(f"Function already exist: {name}")
        for needed in ("Runtime", "Handler", "Role", "Code"):
            if not request.get(needed):
                raise invalid(f"{needed} is missing: a function of package type Zip needs it")
        if request.get("PackageType", "Zip") != "Zip":
            raise invalid("this endpoint runs packages of type Zip only")
        _check_fields(request, _CONFIGURABLE | _CREATED_WITH)

    def update(self, name: str, now: float, revision: str | None, **changes: Any) -> Configuration:
        """Changes $LATEST.

        Raises:
            ApiError: An update is under way, or the revision is another one.
        """
        function = self.function(name)
        self.check_settled(function.latest, now)
        _check_revision(function.latest, revision)
        function.latest = replace(function.latest, **changes, **self._stamp(now), created=False)
        return function.latest

    def reconfigured(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The changes that an UpdateFunctionConfiguration asks for."""
        _check_fields(request, _CONFIGURABLE | {"RevisionId"})
        latest = self.function(name).latest
        changed = _configured(latest, request)
        return {
            field: getattr(changed, field)
            for field in _FIELDS
            if getattr(changed, field) != getattr(latest, field)
        }

    def publish(
        self, name: str, request: Mapping[str, Any], now: float, settled: bool = True
    ) -> Configuration:
        """PublishVersion: a new one only if $LATEST changed since the last; `settled`: if it is ready.

        Raises:
            ApiError: The code or revision is not the expected one, or an update is under way.
        """
        _check_fields(request, {"CodeSha256", "Description", "RevisionId"})
        function = self.function(name)
        latest = function.latest
        if settled:
            self.check_settled(latest, now)
        _check_revision(latest, request.get("RevisionId"))
        if request.get("CodeSha256", latest.code.sha256) != latest.code.sha256:
            raise invalid(
                f"CodeSHA256 ({request['CodeSha256']}) is different from current CodeSHA256 in $LATEST "
                f"({latest.code.sha256}). Please try again with the CodeSHA256 in $LATEST."
            )
        last = function.versions.get(str(function.last_version))
        if last and last.same_as(latest):
            return last
        function.last_version += 1
        version = str(function.last_version)
        published = replace(
            latest,
            version=version,
            arn=self._settings.arn(name, version),
            description=request.get("Description", latest.description),
            created=True,
            **self._stamp(now),
        )
        function.versions[version] = published
        return published

    def delete(self, name: str, version: str | None) -> list[Configuration]:
        """DeleteFunction: a function or one version; what went.

        Raises:
            ApiError: It does not exist, or is $LATEST alone.
        """
        function = self.function(name)
        if version is None:
            del self._functions[name]
            return function.all()
        if version == LATEST:
            raise invalid("$LATEST version cannot be deleted without deleting the function.")
        gone = function.versions.pop(version, None)
        return [gone] if gone else []

    def reserve(self, name: str, concurrency: int | None) -> None:
        """Reserves concurrency for a function, or gives it back.

        Raises:
            ApiError: Too little would be left for the others.
        """
        function = self.function(name)
        others = self.reserved() - (function.reserved or 0)
        if concurrency is not None:
            if concurrency < 0:
                raise invalid("ReservedConcurrentExecutions must be 0 or more")
            if self._settings.concurrency - others - concurrency < UNRESERVED_AT_LEAST:
                raise invalid(
                    f"Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_AT_LEAST}]."
                )
        function.reserved = concurrency

    def reserved(self) -> int:
        """Concurrency that is reserved by all functions together."""
        return sum(function.reserved or 0 for function in self)

    def check_settled(self, configuration: Configuration, now: float) -> None:
        """Refuses what must wait until a function is ready.

        Raises:
            ApiError: 409.
        """
        if now >= configuration.ready_at:
            return
        if configuration.created:
            raise conflict(
                "The operation cannot be performed at this time. "
                "The function is currently in the following state: Pending"
            )
        raise conflict(
            "The operation cannot be performed at this time. "
            f"An update is in progress for resource: {configuration.arn}"
        )

    def _stamp(self, now: float) -> dict[str, Any]:
        return {
            "revision": str(uuid.uuid4()),
            "modified": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000"),
            "ready_at": now + self._settings.pending_s,
        }


_FIELDS = (
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


def _configured(base: Configuration, request: Mapping[str, Any]) -> Configuration:
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
    _check_fields(asked, {"LogFormat", "LogGroup", "ApplicationLogLevel", "SystemLogLevel"})
    given = {"LogFormat": "Text", **asked}
    if given["LogFormat"] not in (TextLog.name, JsonLog.name):
        raise invalid(f"LogFormat is {given['LogFormat']!r}: choose Text or JSON")
    if given["LogFormat"] == TextLog.name and len({"ApplicationLogLevel", "SystemLogLevel"} & set(given)):
        raise invalid("log levels need the log format JSON")
    if given.get("SystemLogLevel", "INFO") != "INFO":
        raise invalid("this endpoint writes platform logs of SystemLogLevel INFO only")
    return given


def _check_fields(request: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(request) - known)
    if unknown:
        raise invalid(f"this endpoint does not have {', '.join(unknown)}: leave it out")


def _check_revision(latest: Configuration, revision: str | None) -> None:
    if revision not in (None, latest.revision):
        raise ApiError(
            412,
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
        )
