"""Serve a Lambda endpoint on 127.0.0.1: `python -m siren.platforms.endpoint`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from siren.errors import MissingExtraError, SirenError, UsageError

HOST = "127.0.0.1"


@dataclass(frozen=True)
class EndpointConfig:
    """Serve enough of the Lambda API on 127.0.0.1 for boto3, until it is stopped.

    Requests must be signed with the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and
    AWS_SESSION_TOKEN); functions get them too. Prints one line of JSON with its url once it is ready.
    """

    root: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Its folder, empty or new; removed at the end. Default: a temporary one."""

    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = HOST
    """Only 127.0.0.1 is accepted."""

    port: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Port to listen on; 0 for a free one."""

    region: Annotated[str, tyro.conf.arg(metavar="NAME")] = "us-east-1"
    """Region of its ARNs."""

    s3_url: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """S3 server that code packages are fetched from. Default: AWS."""

    concurrency: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
    """Concurrent invocations of the account."""

    environments: Annotated[int, tyro.conf.arg(metavar="N")] = 200
    """Execution environments at once."""

    keep_alive: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 300.0
    """How long an idle environment is kept."""

    init_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 10.0
    """How long an init phase may take before it is cut and repeated within the invocation."""

    pending: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.0
    """How long a function is pending after it was created or updated."""

    retry_delays: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SECONDS")] = (60.0, 120.0)
    """Waits before an Event that failed is tried again."""

    cgroups: bool = True
    """Use cgroups where they can be written."""

    faults: bool = False
    """Let tests inject faults."""

    ready_fd: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Descriptor for the line of JSON."""


def main(config: EndpointConfig) -> int:
    """Serves; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        _serve(config)
    except SirenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _serve(config: EndpointConfig) -> None:
    if sys.platform != "linux":
        raise UsageError("the local Lambda endpoint needs Linux: use --platform twin or aws here")
    if config.host != HOST:
        raise UsageError(
            f"--host {config.host} is refused: the endpoint runs the code that it is sent, so it listens on "
            f"{HOST} only; leave --host out"
        )
    if not 0 < config.environments <= config.concurrency:
        raise UsageError("--environments must be from 1 to --concurrency")
    access_key, secret_key = (
        os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    if not access_key or not secret_key:
        raise UsageError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: requests must be signed with them")
    try:
        from siren.platforms.endpoint.server import default_root, serve
        from siren.platforms.endpoint.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "local") from error
    settings = Settings(
        root=(config.root or default_root()).resolve(),
        access_key=access_key,
        secret_key=secret_key,
        session_token=os.environ.get("AWS_SESSION_TOKEN", ""),
        region=config.region,
        s3_url=config.s3_url,
        concurrency=config.concurrency,
        environments=config.environments,
        keep_alive_s=config.keep_alive,
        init_limit_s=config.init_limit,
        pending_s=config.pending,
        retry_delays_s=config.retry_delays,
        cgroups=config.cgroups,
        faults=config.faults,
    )

    def tell(port: int) -> None:
        line = json.dumps({"url": f"http://{HOST}:{port}", "root": str(settings.root)})
        os.write(config.ready_fd, line.encode() + b"\n")
        if config.ready_fd > 2:
            os.close(config.ready_fd)

    asyncio.run(serve(settings, config.port, tell))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(EndpointConfig, prog="python -m siren.platforms.endpoint")))
