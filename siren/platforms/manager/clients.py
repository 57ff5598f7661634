"""boto3 clients of a backend; boto3 is imported when the first one is made."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from siren.errors import MissingExtraError
from siren.platforms.backend import Backend

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client

CONNECT_S, READ_S = 10.0, 60.0
"""Patience of control-plane and storage calls; invocations have their own (`Invoker`)."""
ATTEMPTS = 5
"""Tries of calls that may be repeated without harm."""
CONNECTIONS = 16


def session(backend: Backend) -> Any:
    """A boto3 session with the backend's region and credentials.

    Raises:
        MissingExtraError: boto3 is not installed.
    """
    try:
        import boto3
        import botocore.session
    except ImportError as error:
        raise MissingExtraError("boto3", backend.name) from error
    core = botocore.session.get_session()
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    if backend.credentials is None:
        return boto3.Session(region_name=backend.region, botocore_session=core)
    key, secret, token = backend.credentials
    return boto3.Session(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        region_name=backend.region,
        botocore_session=core,
    )


@functools.cache
def _loader(data_path: str | None) -> Any:
    """Models of AWS's APIs, read once: a session of its own would read megabytes anew."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def lambda_client(backend: Backend, opened: Any = None) -> LambdaClient:
    """A client of the Lambda API; not for synchronous invocations, whose repetition costs money.

    Args:
        backend: Where the API is.
        opened: Its `session`, if there is one already.
    """
    opened = opened or session(backend)
    client: LambdaClient = opened.client("lambda", endpoint_url=backend.lambda_url, config=_config())
    return client


def s3_client(backend: Backend) -> S3Client:
    """A client of S3; local servers are addressed by path, not by a bucket's host name."""
    style = {"addressing_style": "path" if backend.s3_url else "auto"}
    client: S3Client = session(backend).client("s3", endpoint_url=backend.s3_url, config=_config(s3=style))
    return client


def _config(**more: Any) -> Any:
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        **more,
    )
