"""A deployment as `siren.run --platform aws` needs it: read from the function's tags."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from siren.errors import PlatformError
from siren.platforms.aws.api import Api, make_session
from siren.platforms.aws.names import BUCKET_TAG, REDIS_TAG, TAG, Names, check_name
from siren.platforms.backend import Backend

_NOBODY = "000000000000"


@dataclass(frozen=True)
class Deployment:
    """What was deployed.

    Attributes:
        name: The deployment's name.
        region: Where it is.
        bucket: Its bucket.
        function_name: Its worker function.
        role_arn: That function's execution role.
        redis_url: `redis://host:port` inside the VPC; None without a cache.
        runtime: The function's runtime.
        code_sha256: `CodeSha256` of its code.
        concurrency: Functions that may run at once, ever.
    """

    name: str
    region: str
    bucket: str
    function_name: str
    role_arn: str
    redis_url: str | None
    runtime: str
    code_sha256: str
    concurrency: int

    def backend(self) -> Backend:
        """Where the AWS APIs are; credentials are those of boto3's own chain."""
        return Backend(
            name="aws",
            region=self.region,
            bucket=self.bucket,
            function_name=self.function_name,
            lambda_url=None,
            s3_url=None,
            redis_url=self.redis_url,
            credentials=None,
            role_arn=self.role_arn,
            runtime=self.runtime,
            spends_money=True,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def read_deployment(api: Api, name: str) -> Deployment:
    """What is deployed under a name; one request.

    Raises:
        PlatformError: Nothing of Siren's is, or only a part.
        UsageError: The name cannot be one, or there are no credentials.
    """
    names = Names(check_name(name), api.region, _NOBODY)
    answer = api.find("lambda", "get_function", FunctionName=names.function)
    tags = dict((answer or {}).get("Tags", {}))
    command = f"python -m siren.deploy --name {name} --region {api.region}"
    if answer is None or tags.get(TAG) != name:
        raise PlatformError(f"no deployment named {name} is in {api.region}: run `{command}`")
    concurrency = answer.get("Concurrency", {}).get("ReservedConcurrentExecutions")
    if BUCKET_TAG not in tags or concurrency is None:
        raise PlatformError(f"the deployment {name} in {api.region} is not complete: run `{command}` again")
    facts = answer["Configuration"]
    return Deployment(
        name=name,
        region=api.region,
        bucket=tags[BUCKET_TAG],
        function_name=facts["FunctionName"],
        role_arn=facts["Role"],
        redis_url=tags.get(REDIS_TAG),
        runtime=facts["Runtime"],
        code_sha256=facts["CodeSha256"],
        concurrency=concurrency,
    )


def find_deployment(name: str, region: str | None = None) -> Backend:
    """Where the AWS APIs of a deployment are.

    Args:
        name: Its name.
        region: Where it is; that of the user's AWS configuration if None.

    Raises:
        PlatformError: There is no such deployment.
        UsageError: No region or no credentials; the name cannot be one.
    """
    return read_deployment(Api(make_session(region)), name).backend()
