"""What the resources of a deployment are called, and the tag that says whose they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from siren.errors import UsageError

TAG = "siren:deployment"
"""On every resource; its value is the deployment's name. Without it a resource is not Siren's."""
CHANNEL_TAG = "siren:channel"
BUCKET_TAG = "siren:bucket"
REDIS_TAG = "siren:redis"
NAME_LENGTH = 24
"""With account and region a bucket's name stays below S3's 63 characters."""
UNKNOWN_ACCOUNT = "<account>"

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def check_name(name: str) -> str:
    """A deployment's name that every service takes as part of a name.

    Raises:
        UsageError: It is not one.
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise UsageError(
            f"--name {name}: use at most {NAME_LENGTH} small letters, digits and single hyphens, and start "
            "with a letter"
        )
    return name


@dataclass(frozen=True)
class Names:
    """Names and ARNs of one deployment.

    Attributes:
        deployment: Its name.
        region: Where it is.
        account: Whose it is; `UNKNOWN_ACCOUNT` where nobody has asked AWS.
        partition: "aws", or that of another part of the world.
    """

    deployment: str
    region: str
    account: str
    partition: str = "aws"

    @property
    def tags(self) -> dict[str, str]:
        """What marks a resource as this deployment's."""
        return {TAG: self.deployment}

    @property
    def bucket(self) -> str:
        """Bucket names are shared by all accounts, so this one has the account in it."""
        return f"{self.deployment}-{self.account}-{self.region}"

    @property
    def function(self) -> str:
        """The worker function."""
        return f"{self.deployment}-worker"

    @property
    def role(self) -> str:
        """Its execution role; roles are global, so the region is in it."""
        return f"{self.deployment}-worker-{self.region}"

    @property
    def log_group(self) -> str:
        """The log group that Lambda writes to for this function."""
        return f"/aws/lambda/{self.function}"

    @property
    def cache(self) -> str:
        """The cache, its subnet and parameter groups, and the Name of what is in the VPC."""
        return f"{self.deployment}-cache"

    @property
    def bucket_arn(self) -> str:
        """ARN of the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    @property
    def function_arn(self) -> str:
        """ARN of the function, without a version."""
        return self.regional("lambda", f"function:{self.function}")

    @property
    def role_arn(self) -> str:
        """ARN of the role."""
        return f"arn:{self.partition}:iam::{self.account}:role/{self.role}"

    @property
    def log_group_arn(self) -> str:
        """ARN of the log group, without the `:*` of its streams."""
        return self.regional("logs", f"log-group:{self.log_group}")

    def regional(self, service: str, resource: str) -> str:
        """ARN of a resource of this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"
