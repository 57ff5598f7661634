"""The worker's execution role."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from siren.platforms.aws.api import TAKEN, Api, RequestError
from siren.platforms.aws.names import Names
from siren.platforms.aws.part import Settings, check_ours, is_ours, tag_list, tag_mapping
from siren.platforms.aws.policies import WORKER_POLICY, trust_policy, worker_policy


class Role:
    """See `Part`.

    Args:
        api: AWS.
        names: The deployment.
        settings: What it should be like.
    """

    kind = "role"

    def __init__(self, api: Api, names: Names, settings: Settings) -> None:
        self.name = names.role
        self._api = api
        self._names = names
        self._trust = trust_policy(names)
        self._policy = worker_policy(names, vpc=settings.redis)

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        role = self._role()
        if role is None:
            return None
        check_ours(self.kind, self.name, self._names, tag_mapping(role.get("Tags", [])))
        found = [] if role["AssumeRolePolicyDocument"] == self._trust else ["trust policy"]
        policy = self._api.find("iam", "get_role_policy", RoleName=self.name, PolicyName=WORKER_POLICY)
        return found + ([] if policy and policy["PolicyDocument"] == self._policy else ["policy"])

    def apply(self) -> None:
        """See `Part.apply`."""
        if self._role() is None:
            self._create()
        found = self.differences() or []
        if "trust policy" in found:
            self._api.call(
                "iam", "update_assume_role_policy", RoleName=self.name, PolicyDocument=json.dumps(self._trust)
            )
        if "policy" in found:
            self._api.call(
                "iam",
                "put_role_policy",
                RoleName=self.name,
                PolicyName=WORKER_POLICY,
                PolicyDocument=json.dumps(self._policy),
            )

    def exists(self) -> bool:
        """See `Part.exists`."""
        return is_ours(self._names, tag_mapping((self._role() or {}).get("Tags", [])))

    def remove(self) -> None:
        """See `Part.remove`."""
        self._api.find("iam", "delete_role_policy", RoleName=self.name, PolicyName=WORKER_POLICY)
        self._api.find("iam", "delete_role", RoleName=self.name)

    def _create(self) -> None:
        try:
            self._api.call(
                "iam",
                "create_role",
                RoleName=self.name,
                AssumeRolePolicyDocument=json.dumps(self._trust),
                Description="Workers of Siren",
                Tags=tag_list(self._names.tags),
            )
        except RequestError as error:
            if error.code not in TAKEN:
                raise

    def _role(self) -> Mapping[str, Any] | None:
        answer = self._api.find("iam", "get_role", RoleName=self.name)
        return answer and answer["Role"]
