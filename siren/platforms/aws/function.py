"""The worker function: its code, its configuration, its hard ceiling, its versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siren.errors import PlatformError, UsageError
from siren.platforms.aws.api import TAKEN, Api, RequestError
from siren.platforms.aws.cache import Cache
from siren.platforms.aws.names import BUCKET_TAG, REDIS_TAG, Names
from siren.platforms.aws.network import Network
from siren.platforms.aws.part import Settings, check_ours, is_ours
from siren.platforms.package import HANDLER, Package
from siren.worker.environment import REDIS_URL

UNRESERVED = 100
"""Concurrency that an account must leave to its other functions (AWS Lambda quotas, 2026)."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Workloads are profiled with one thread; more of them would fight over the share of a small function."""
READY_S = 10 * 60.0
PROPAGATION_S = 120.0
"""A new role is known everywhere after some seconds (IAM user guide, eventual consistency)."""
_PAUSE_S = 2.0
_NOT_YET = ("cannot be assumed", "does not have permissions")
"""How Lambda says that a role, or its policy, is not there yet."""


class Function:
    """See `Part`. Memory and timeout are those of its versions; `$LATEST` is never invoked.

    Args:
        api: AWS.
        names: The deployment.
        settings: What it should be like.
        package: Its code; None where the part is only removed.
        network: Where it is; None outside a VPC.
        cache: What it reaches there; its URL is in the tags for the manager, in the environment for workers.
    """

    kind = "function"

    def __init__(
        self,
        api: Api,
        names: Names,
        settings: Settings,
        package: Package | None,
        network: Network | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.name = names.function
        self._api = api
        self._names = names
        self._settings = settings
        self._package = package
        self._network = network
        self._cache = cache

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        answer = self._read()
        if answer is None:
            return None
        tags = dict(answer.get("Tags", {}))
        check_ours(self.kind, self.name, self._names, tags)
        facts = answer["Configuration"]
        found = [] if facts["CodeSha256"] == self._code.sha256_base64 else ["code"]
        if facts.get("Architectures") != [self._code.target.lambda_architecture]:
            found = ["code"]
        found += [
            key for key, value in self._configuration().items() if _comparable(key, facts.get(key)) != value
        ]
        found += [] if tags == self._tags() else ["tags"]
        reserved = answer.get("Concurrency", {}).get("ReservedConcurrentExecutions")
        return found + ([] if reserved == self._settings.concurrency else ["reserved concurrency"])

    def outdates_versions(self) -> bool:
        """Whether what is published has code or a configuration that the function will not have."""
        return not {"code", *self._configuration()}.isdisjoint(self.differences() or ())

    def check_concurrency(self) -> None:
        """Refuses a reservation that AWS would refuse.

        Raises:
            UsageError: Says what the account has.
            RequestError: AWS did not answer.
        """
        limit = self._api.call("lambda", "get_account_settings")["AccountLimit"]
        own = (self._read() or {}).get("Concurrency", {}).get("ReservedConcurrentExecutions", 0)
        free = limit["UnreservedConcurrentExecutions"] + own - UNRESERVED
        if self._settings.concurrency <= free:
            return
        total, name = limit["ConcurrentExecutions"], "Concurrent executions"
        hint = f"give --concurrency {free} or less, or " if free >= 1 else ""
        raise UsageError(
            f"--concurrency {self._settings.concurrency}: the account runs {total} functions at once in "
            f"{self._names.region}, {total - free - UNRESERVED} are reserved for others and {UNRESERVED} "
            f"must stay unreserved: {hint}have the quota {name!r} raised in Service Quotas"
        )

    def apply(self) -> None:
        """See `Part.apply`."""
        if self._read() is None:
            self._create()
        self._settle()
        found, configuration = self.differences() or [], self._configuration()
        reconfigured = not configuration.keys().isdisjoint(found)
        if "code" in found:
            architectures = [self._code.target.lambda_architecture]
            self._change("update_function_code", Architectures=architectures, **self._location())
        if reconfigured:
            self._change("update_function_configuration", **configuration)
        if reconfigured or "code" in found:
            self._remove_versions()
        if "tags" in found:
            self._api.call("lambda", "tag_resource", Resource=self._names.function_arn, Tags=self._tags())
        if "reserved concurrency" in found:
            self._change("put_function_concurrency", ReservedConcurrentExecutions=self._settings.concurrency)

    def exists(self) -> bool:
        """See `Part.exists`."""
        return is_ours(self._names, dict((self._read() or {}).get("Tags", {})))

    def remove(self) -> None:
        """See `Part.remove`: with all its versions."""
        self._api.find("lambda", "delete_function", FunctionName=self.name)

    @property
    def _code(self) -> Package:
        assert self._package is not None, "only a function that is removed has no package"
        return self._package

    def _read(self) -> Mapping[str, Any] | None:
        return self._api.find("lambda", "get_function", FunctionName=self.name)

    def _configuration(self) -> dict[str, Any]:
        """What UpdateFunctionConfiguration takes; versions add their memory and timeout."""
        vpc: dict[str, list[str]] | None = {"SecurityGroupIds": [], "SubnetIds": []}
        if self._network is not None:
            ids = self._network.ids()
            # None is no configuration: what the function has differs until the network is there.
            vpc = ids.vpc_config if ids else None
        return {
            "Runtime": self._code.target.runtime,
            "Handler": HANDLER,
            "Role": self._names.role_arn,
            "Environment": {"Variables": self._variables()},
            "VpcConfig": vpc,
        }

    def _variables(self) -> dict[str, str]:
        """Environment variables; with the cache's URL the worker makes its client during initialisation."""
        return ENVIRONMENT if self._cache is None else {**ENVIRONMENT, REDIS_URL: self._cache.url() or ""}

    def _tags(self) -> dict[str, str]:
        """The function's tags say all that a run must know, see `siren.platforms.aws.deployment`."""
        tags = {**self._names.tags, BUCKET_TAG: self._names.bucket}
        return tags if self._cache is None else {**tags, REDIS_TAG: self._cache.url() or ""}

    def _create(self) -> None:
        try:
            self._api.call_until(
                "lambda",
                "create_function",
                _is_propagating,
                PROPAGATION_S,
                FunctionName=self.name,
                Description="Worker of Siren",
                PackageType="Zip",
                Architectures=[self._code.target.lambda_architecture],
                Code=self._location(),
                Tags=self._tags(),
                **self._configuration(),
            )
        except RequestError as error:
            if error.code not in TAKEN:
                raise

    def _location(self) -> dict[str, Any]:
        """The code as CreateFunction and UpdateFunctionCode take it."""
        if not self._code.needs_s3:
            return {"ZipFile": self._code.content}
        bucket, key, owner = self._names.bucket, self._code.key, self._names.account
        if self._api.find("s3", "head_object", Bucket=bucket, Key=key, ExpectedBucketOwner=owner) is None:
            self._api.call(
                "s3", "put_object", Bucket=bucket, Key=key, Body=self._code.content, ExpectedBucketOwner=owner
            )
        return {"S3Bucket": bucket, "S3Key": key}

    def _change(self, operation: str, **arguments: Any) -> None:
        """Changes the function, waiting for changes under way before and after."""
        self._api.call_until(
            "lambda",
            operation,
            lambda error: error.code == "ResourceConflictException" or _is_propagating(error),
            PROPAGATION_S,
            FunctionName=self.name,
            **arguments,
        )
        self._settle()

    def _settle(self) -> None:
        self._api.wait(f"the function {self.name} is ready", self._is_ready, READY_S, _PAUSE_S)

    def _is_ready(self) -> bool:
        facts = self._api.call("lambda", "get_function_configuration", FunctionName=self.name)
        for status, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
            if facts.get(status) == "Failed":
                raise PlatformError(
                    f"Lambda cannot run the function {self.name} ({facts.get(reason, 'no reason given')}): "
                    "run `python -m siren.teardown`, then deploy again"
                )
        # An idle function is Inactive: its next invocation wakes it.
        return facts.get("State") in ("Active", "Inactive") and facts.get("LastUpdateStatus") == "Successful"

    def _remove_versions(self) -> None:
        """Versions keep the code and the configuration that they were published with: those are outdated."""
        versions = self._api.items("lambda", "list_versions_by_function", "Versions", FunctionName=self.name)
        for number in [version["Version"] for version in versions if version["Version"] != "$LATEST"]:
            self._api.find("lambda", "delete_function", FunctionName=self.name, Qualifier=number)


def _is_propagating(error: RequestError) -> bool:
    return error.code == "InvalidParameterValueException" and any(text in error.reason for text in _NOT_YET)


def _comparable(key: str, value: Any) -> Any:
    """A setting as Lambda reports it, in the form that it takes."""
    if key != "VpcConfig":
        return value
    facts = value or {}
    return {part: sorted(facts.get(part, [])) for part in ("SecurityGroupIds", "SubnetIds")}
