"""Which functions and versions exist."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from siren.platforms.endpoint.code import Code
from siren.platforms.endpoint.configuration import (
    CONFIGURABLE,
    FIELDS,
    Configuration,
    check_fields,
    configured,
)
from siren.platforms.endpoint.errors import ApiError, conflict, invalid, missing
from siren.platforms.endpoint.settings import UNRESERVED_AT_LEAST, Settings

LATEST = "$LATEST"
_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_REFERENCE = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):function:"
    r"|(?:(?P<partial>\d{12}):)?function:)?"
    r"(?P<name>[a-zA-Z0-9-_]+)(?::(?P<version>\$LATEST|[a-zA-Z0-9-_]+))?"
)
_CREATED_WITH = {"FunctionName", "Code", "Publish", "Tags", "PackageType", "Architectures"}


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
        configuration = replace(configured(configuration, request), **self._stamp(now))
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
        check_fields(request, CONFIGURABLE | _CREATED_WITH)

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
        check_fields(request, CONFIGURABLE | {"RevisionId"})
        latest = self.function(name).latest
        changed = configured(latest, request)
        return {
            field: getattr(changed, field)
            for field in FIELDS
            if getattr(changed, field) != getattr(latest, field)
        }

    def publish(
        self, name: str, request: Mapping[str, Any], now: float, settled: bool = True
    ) -> Configuration:
        """PublishVersion: a new one only if $LATEST changed since the last; `settled`: if it is ready.

        Raises:
            ApiError: The code or revision is not the expected one, or an update is under way.
        """
        check_fields(request, {"CodeSha256", "Description", "RevisionId"})
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


def _check_revision(latest: Configuration, revision: str | None) -> None:
    if revision not in (None, latest.revision):
        raise ApiError(
            412,
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
        )
