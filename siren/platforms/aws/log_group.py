"""The function's log group. It is made before the function: one that Lambda makes never expires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siren.platforms.aws.api import TAKEN, Api, RequestError
from siren.platforms.aws.names import Names
from siren.platforms.aws.part import Settings, check_ours, is_ours

_MONTHS = (30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
RETENTION_DAYS = (1, 3, 5, 7, 14, *_MONTHS)
"""What PutRetentionPolicy takes (CloudWatch Logs API reference, 2026)."""


class LogGroup:
    """See `Part`.

    Args:
        api: AWS.
        names: The deployment.
        settings: What it should be like.
    """

    kind = "log group"

    def __init__(self, api: Api, names: Names, settings: Settings) -> None:
        self.name = names.log_group
        self._api = api
        self._names = names
        self._days = settings.log_days

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        group = self._group()
        if group is None:
            return None
        check_ours(self.kind, self.name, self._names, self._tags())
        return [] if group.get("retentionInDays") == self._days else ["retention"]

    def apply(self) -> None:
        """See `Part.apply`."""
        if self._group() is None:
            self._create()
        if self.differences():
            self._api.call("logs", "put_retention_policy", logGroupName=self.name, retentionInDays=self._days)

    def exists(self) -> bool:
        """See `Part.exists`."""
        return self._group() is not None and is_ours(self._names, self._tags())

    def remove(self) -> None:
        """See `Part.remove`."""
        self._api.find("logs", "delete_log_group", logGroupName=self.name)

    def _create(self) -> None:
        try:
            self._api.call("logs", "create_log_group", logGroupName=self.name, tags=self._names.tags)
        except RequestError as error:
            if error.code not in TAKEN:
                raise

    def _group(self) -> Mapping[str, Any] | None:
        groups = self._api.items("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=self.name)
        return next((group for group in groups if group["logGroupName"] == self.name), None)

    def _tags(self) -> dict[str, str]:
        answer = self._api.call("logs", "list_tags_for_resource", resourceArn=self._names.log_group_arn)
        return dict(answer.get("tags", {}))
