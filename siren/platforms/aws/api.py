"""Requests to AWS, and its refusals as errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from siren.errors import MissingExtraError, PlatformError, UsageError

ABSENT = frozenset(
    {
        "404",
        "CacheClusterNotFound",
        "CacheParameterGroupNotFound",
        "CacheSubnetGroupNotFoundFault",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "NoSuchTagSet",
        "OwnershipControlsNotFoundError",
        "ResourceNotFoundException",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)
"""Error codes that mean: there is no such thing."""
TAKEN = frozenset(
    {
        "BucketAlreadyOwnedByYou",
        "CacheClusterAlreadyExists",
        "CacheParameterGroupAlreadyExists",
        "CacheSubnetGroupAlreadyExists",
        "EntityAlreadyExists",
        "ResourceAlreadyExistsException",
        "ResourceConflictException",
    }
)
"""Error codes of a creation that somebody else has done meanwhile."""
_DENIED = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_BUSY = frozenset(
    {
        "ConcurrentModification",
        "OperationAbortedException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_BROKEN = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "ServiceException",
        "ServiceFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
_QUOTA = (
    "LimitExceeded",
    "QuotaExceeded",
    "CodeStorageExceeded",
    "InsufficientCacheClusterCapacity",
    "TooMany",
)

_S3_ACTIONS = {
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadObject": "GetObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
"""Where the permission is not called like the operation (Service Authorization Reference, S3, 2026)."""

ATTEMPTS = 8
"""botocore's standard mode repeats throttled and interrupted requests, with jittered back-off."""


class RequestError(PlatformError):
    """AWS did not do what it was asked.

    Args:
        message: One sentence that ends with what to do.
        code: AWS's error code; empty if there was no answer.
        permission: The IAM action of the request, e.g. "lambda:CreateFunction".
        reason: AWS's own words.
    """

    def __init__(self, message: str, code: str, permission: str, reason: str) -> None:
        self.code = code
        self.permission = permission
        self.reason = reason
        super().__init__(message)

    @property
    def denied(self) -> bool:
        """Whether a permission is missing."""
        return self.code in _DENIED


def permission(service: str, operation: str) -> str:
    """The IAM action that allows an operation, e.g. "s3:PutLifecycleConfiguration"."""
    action = _S3_ACTIONS.get(operation, operation) if service == "s3" else operation
    return f"{service}:{action}"


def make_session(region: str | None) -> Any:
    """A boto3 session with a region that exists; from the argument, or the user's AWS configuration.

    Raises:
        MissingExtraError: boto3 is not installed.
        UsageError: No region was given anywhere, or it does not exist.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, UnknownRegionError
    except ImportError as error:
        raise MissingExtraError("boto3", "aws") from error
    try:
        session = boto3.Session(region_name=region)
        if session.region_name is None:
            raise UsageError(
                "no AWS region is given: add --region, e.g. --region us-east-1, or set AWS_DEFAULT_REGION"
            )
        session.get_partition_for_region(session.region_name)
    except UnknownRegionError as error:
        raise UsageError(f"there is no AWS region {session.region_name!r}: correct --region") from error
    except BotoCoreError as error:
        raise UsageError(f"{error}: correct your AWS configuration, e.g. AWS_PROFILE") from error
    return session


class Api:
    """AWS's services in one region.

    Args:
        session: A boto3 session that has a region.
        sleep: How to wait; tests replace it.
    """

    def __init__(self, session: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        from botocore.config import Config

        self._session = session
        self._sleep = sleep
        self._clients: dict[str, Any] = {}
        self._config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        )

    @property
    def region(self) -> str:
        """The region that requests go to."""
        return str(self._session.region_name)

    @property
    def partition(self) -> str:
        """The partition of the region, "aws" for most."""
        return str(self._session.get_partition_for_region(self.region))

    def account(self) -> str:
        """The account of the credentials.

        Raises:
            UsageError: There are no credentials.
            RequestError: AWS does not take them.
        """
        return str(self.call("sts", "get_caller_identity")["Account"])

    def client(self, service: str) -> Any:
        """The boto3 client of a service, made once."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=self._config)
        return self._clients[service]

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """The answer to one request.

        Args:
            service: boto3's name of the service.
            operation: boto3's name of the operation, e.g. "create_function".
            arguments: Its arguments.

        Raises:
            RequestError: AWS refused it, or did not answer.
            UsageError: There are no credentials.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client(service)
        try:
            answer: Mapping[str, Any] = getattr(client, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            name = client.meta.method_to_api_mapping[operation]
            raise _translated(error, permission(service, name)) from error
        return answer

    def find(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any] | None:
        """The answer to one request; None if what it asks for does not exist.

        Raises:
            RequestError, UsageError: As `call`.
        """
        try:
            return self.call(service, operation, **arguments)
        except RequestError as error:
            if error.code in ABSENT:
                return None
            raise

    def items(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """What a listing has under `key`, over all its pages.

        Raises:
            RequestError, UsageError: As `call`.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client(service)
        try:
            for page in client.get_paginator(operation).paginate(**arguments):
                yield from page.get(key, [])
        except (BotoCoreError, ClientError) as error:
            name = client.meta.method_to_api_mapping[operation]
            raise _translated(error, permission(service, name)) from error

    def call_until(
        self,
        service: str,
        operation: str,
        again: Callable[[RequestError], bool],
        limit_s: float,
        **arguments: Any,
    ) -> Mapping[str, Any]:
        """Like `call`, repeated with growing pauses while `again` says that the refusal will pass.

        Raises:
            RequestError: It did not pass within `limit_s`, or another one came.
            UsageError: As `call`.
        """
        pause_s, waited_s = 1.0, 0.0
        while True:
            try:
                return self.call(service, operation, **arguments)
            except RequestError as error:
                if not again(error) or waited_s >= limit_s:
                    raise
            self._sleep(pause_s)
            waited_s += pause_s
            pause_s = min(pause_s * 2, 10.0)

    def wait(self, what: str, ready: Callable[[], bool], limit_s: float, pause_s: float) -> None:
        """Asks until `ready` says yes.

        Raises:
            PlatformError: It did not within `limit_s`.
        """
        waited_s = 0.0
        while not ready():
            if waited_s >= limit_s:
                raise PlatformError(
                    f"waited {limit_s / 60:.0f} minutes until {what}: run the same command again later, it "
                    "goes on where it stopped"
                )
            self._sleep(pause_s)
            waited_s += pause_s


def _translated(error: Exception, action: str) -> PlatformError | UsageError:
    from botocore import exceptions

    reason = " ".join(str(error).split())
    if isinstance(error, exceptions.ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code", ""))
        words = " ".join(str(details.get("Message", "")).split())
        return RequestError(_sentence(code, words, action), code, action, words)
    missing = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.ProfileNotFound,
    )
    if isinstance(error, missing):
        return UsageError(f"{reason}: run `aws configure` or set AWS_PROFILE")
    return RequestError(
        f"no answer to {action} ({reason}): check the network, then run the same command again",
        "",
        action,
        reason,
    )


def _sentence(code: str, words: str, action: str) -> str:
    if code in _DENIED:
        return (
            f"AWS denies {action} ({words}): have that permission added; `python -m siren.deploy "
            "--print-policy --policy-of deployer` prints all that are needed"
        )
    if code in _CREDENTIALS:
        return (
            f"AWS does not accept your credentials ({code}: {words}): renew them, e.g. with `aws configure`"
        )
    if code in _BUSY:
        return f"AWS is busy with {action} ({code}): wait a minute, then run the same command again"
    if code in _BROKEN:
        return f"AWS failed at {action} ({code}: {words}): run the same command again later"
    if any(part in code for part in _QUOTA):
        return (
            f"{action} would exceed a quota of the account ({code}: {words}): remove what is not needed, or "
            "have the quota raised in Service Quotas"
        )
    return f"AWS refuses {action} ({code}: {words}): correct that, then run the same command again"
