"""Where the AWS APIs of a platform are: on 127.0.0.1 or at AWS. One code path takes either."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Backend:
    """Where the AWS APIs of a platform are.

    Attributes:
        name: `local` or `aws`.
        region: Region of the function and of the bucket.
        bucket: Holds the data (`data/`) and what runs exchange (`runs/<run>/`).
        function_name: The function that every epoch invokes, one published version at a time.
        lambda_url: Its endpoint; None for AWS's own.
        s3_url: The S3 endpoint; None for AWS's own.
        redis_url: `redis://host:port` as workers reach it; None without a cache.
        credentials: (access key, secret, session token or ""); None for boto3's own chain. Kept
            out of `repr`, and with it out of logs.
        role_arn: Execution role of the function.
        runtime: Its runtime, `python3.13` on AWS and `python3.11` locally.
        spends_money: Whether its bill is real.
    """

    name: str
    region: str
    bucket: str
    function_name: str
    lambda_url: str | None
    s3_url: str | None
    redis_url: str | None
    credentials: tuple[str, str, str] | None = field(repr=False)
    role_arn: str
    runtime: str
    spends_money: bool
