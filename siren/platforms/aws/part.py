"""What a deployment is made of: each part knows how it should be, what differs, and how to remove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from siren.errors import UsageError
from siren.platforms.aws.names import TAG, Names


@dataclass(frozen=True)
class Settings:
    """What a deployment should be like.

    Attributes:
        redis: Whether there is a cache, and with it a VPC.
        cache_node: Its node type; empty without a cache.
        concurrency: Functions that may run at once, ever.
        log_days: Days that the log is kept.
        run_days: Days that objects of a run are kept.
        versions: (memory MB, timeout s) of the versions that are published ahead of time.
    """

    redis: bool
    cache_node: str
    concurrency: int
    log_days: int
    run_days: int
    versions: tuple[tuple[int, int], ...] = ()


class Part(Protocol):
    """One part of a deployment.

    Attributes:
        kind: What it is, e.g. "bucket".
        name: What it is called.
    """

    kind: str
    name: str

    def differences(self) -> list[str] | None:
        """What is not as it should be, in words; None if the part does not exist.

        Raises:
            UsageError: Something of that name exists and is not this deployment's.
            RequestError: AWS did not answer.
        """
        ...

    def apply(self) -> None:
        """Makes the part, or corrects what differs; does nothing to one that is as it should be.

        Raises:
            UsageError, RequestError: As `differences`.
        """
        ...

    def exists(self) -> bool:
        """Whether there is something to remove; what is not this deployment's does not count.

        Raises:
            RequestError: AWS did not answer.
        """
        ...

    def remove(self) -> None:
        """Removes it, if it is there.

        Raises:
            RequestError: AWS did not.
        """
        ...


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as most services take them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tag_mapping(tags: list[Any]) -> dict[str, str]:
    """Tags as most services return them, as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def is_ours(names: Names, tags: Mapping[str, str]) -> bool:
    """Whether tags mark a resource as this deployment's."""
    return tags.get(TAG) == names.deployment


def check_ours(kind: str, name: str, names: Names, tags: Mapping[str, str]) -> None:
    """Refuses a resource that is not this deployment's.

    Raises:
        UsageError: It lacks the tag.
    """
    if not is_ours(names, tags):
        refuse_foreign(kind, name, names)


def refuse_foreign(kind: str, name: str, names: Names) -> NoReturn:
    """Refuses a resource that has one of the deployment's names.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"the {kind} {name} exists and does not carry the tag {TAG} = {names.deployment}: choose another "
        "--name, or add the tag if it is Siren's"
    )
