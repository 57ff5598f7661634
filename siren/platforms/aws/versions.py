"""Versions that are published ahead of time, so that a run need not wait for them."""

from __future__ import annotations

from siren.errors import UsageError
from siren.platforms.aws.api import Api
from siren.platforms.aws.deployment import read_deployment
from siren.platforms.aws.function import Function
from siren.platforms.aws.names import Names
from siren.platforms.aws.part import Settings
from siren.platforms.manager.versions import Versions
from siren.worlds import World


def parse_versions(texts: tuple[str, ...], world: World) -> tuple[tuple[int, int], ...]:
    """Versions as a user writes them, e.g. "1769x60" for 1,769 MB and a timeout of 60 s.

    Raises:
        UsageError: One is not of that form, or the world never runs it.
    """
    return tuple(_parse(text, world) for text in dict.fromkeys(texts))


def _parse(text: str, world: World) -> tuple[int, int]:
    memory, _, timeout = text.partition("x")
    if not (memory.isdecimal() and timeout.isdecimal()):
        raise UsageError(f"--versions {text}: write MEMORYxTIMEOUT in MB and seconds, e.g. 1769x60")
    version = int(memory), int(timeout)
    for value, known, what in zip(
        version, (world.limits.memory_grid, world.limits.timeout_rungs), ("memory", "timeout"), strict=True
    ):
        if value not in known:
            raise UsageError(
                f"--versions {text}: no {what} of {value} is used in world {world.name}: choose one of "
                f"{', '.join(map(str, known))}"
            )
    return version


class PublishedVersions:
    """See `Part`. They are removed with their function.

    Args:
        api: AWS.
        names: The deployment.
        settings: Says which.
        code_sha256: `CodeSha256` of the code that they must have.
        function: Whose they are.
    """

    kind = "versions"

    def __init__(
        self, api: Api, names: Names, settings: Settings, code_sha256: str, function: Function
    ) -> None:
        self.name = names.function
        self._api = api
        self._names = names
        self._wanted = settings.versions
        self._sha256 = code_sha256
        self._function = function

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        if self._api.find("lambda", "get_function", FunctionName=self.name) is None:
            return None
        if self._function.outdates_versions():
            return [describe(version) for version in self._wanted]
        listed = self._api.items("lambda", "list_versions_by_function", "Versions", FunctionName=self.name)
        found = {
            (version["MemorySize"], version["Timeout"])
            for version in listed
            if version["Version"] != "$LATEST" and version["CodeSha256"] == self._sha256
        }
        return [describe(version) for version in self._wanted if version not in found]

    def apply(self) -> None:
        """See `Part.apply`."""
        backend = read_deployment(self._api, self._names.deployment).backend()
        versions = Versions(backend, self._sha256, self._api.client("lambda"))
        for memory_mb, timeout_s in self._wanted:
            versions.arn(memory_mb, timeout_s)

    def exists(self) -> bool:
        """See `Part.exists`."""
        return False

    def remove(self) -> None:
        """See `Part.remove`."""


def describe(version: tuple[int, int]) -> str:
    """A version in words."""
    return f"{version[0]:,} MB with {version[1]} s"
