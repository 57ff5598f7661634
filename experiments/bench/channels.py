"""Channels against their raw client libraries: `python experiments/bench/channels.py`.

Starts SeaweedFS and a Redis-compatible server on 127.0.0.1. Ours and the raw client's calls are timed in
turns; ratios are of medians of wall-clock time, above 1 where ours is slower. A `push` of Redis adds a
vector in the server, which no raw command does: its service time is CPU time of the server's only
thread for commands, because that time blocks everybody.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from siren.channels.objects import Origin, start_object
from siren.channels.redis import RedisModel, redis_client
from siren.channels.s3 import ObjectStore, S3Model
from siren.platforms import storage

PUSHES = (28, 4_400, 44_000, 1_000_000)
SIZES = {"1 KB": 256, "176 KB": 44_000, "1 MB": 262_144, "12 MB": 3_145_728, "89 MB": 23_330_816}
"""Float32 values: of a model of that many bytes."""

BUCKET = "siren-bench"


@dataclass(frozen=True)
class BenchConfig:
    """Measure the parameter channels against their raw client libraries."""

    seconds: float = 1.2
    """For each pair of calls and size; at least three of each."""

    largest: int = 0
    """Also push one vector of so many floats to Redis, e.g. 67108864 (256 MB)."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


def in_turns(ours: Callable[[], Any], raw: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Median seconds of (ours, raw), after one call of each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < 4 or time.perf_counter() < end:
        for call, into in zip((ours, raw), times, strict=True):
            start = time.perf_counter()
            call()
            into.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def redis_pushes(client: Any, config: BenchConfig) -> dict[str, float]:
    """Service time, service rate and round trip of one push, by size."""
    found = {}
    for size in (*PUSHES, config.largest) if config.largest else PUSHES:
        model = RedisModel(client, f"push-{size}", 1, 0, size, 1)
        model.seed(lambda n=size: np.ones(n, np.float32))
        update, index, trips, began_s = np.full(size, 1e-3, np.float32), 0, [], 0.0
        end = time.perf_counter() + config.seconds
        while index < 4 or time.perf_counter() < end:
            start = time.perf_counter()
            assert model.add(0, index, index, update, 1.0, 0.0).applied
            trips.append(time.perf_counter() - start)
            index += 1
            if index == 1:
                began_s = server_cpu_s(client)
            elif size == config.largest:
                break
        service_s = (server_cpu_s(client) - began_s) / (index - 1)
        found[f"redis push of {size:,} floats, server CPU ms"] = 1000 * service_s
        found[f"redis push of {size:,} floats, pushes a second"] = 1 / service_s
        found[f"redis push of {size:,} floats, round trip ms"] = 1000 * statistics.median(trips[1:])
        client.flushall()
    return found


TABLES = """
local p, u, out, fmt = redis.call('GET', KEYS[1]), ARGV[1], {}, string.rep('f', 200)
for at = 1, #u, 800 do
  local a, b = {struct.unpack(fmt, p, at)}, {struct.unpack(fmt, u, at)}
  for i = 1, 200 do a[i] = a[i] - b[i] end
  a[201] = nil
  out[#out + 1] = struct.pack(fmt, unpack(a))
end
redis.call('SET', KEYS[1], table.concat(out))
"""
"""The addition as one would write it first: what the script of `siren.channels.redis` is compared with."""


def redis_script(client: Any, config: BenchConfig, size: int = 44_000) -> dict[str, float]:
    """Server CPU time of an addition through Lua tables over that of ours."""
    model, update = RedisModel(client, "script", 1, 0, size, 1), np.full(size, 1e-3, np.float32)
    model.seed(lambda: np.ones(size, np.float32))
    client.set("w", update.tobytes())
    tables, spent, index = client.register_script(TABLES), [0.0, 0.0], 0
    end = time.perf_counter() + config.seconds
    while index < 4 or time.perf_counter() < end:
        began_s = server_cpu_s(client)
        model.add(0, index, index, update, 1.0, 0.0)
        middle_s = server_cpu_s(client)
        tables(keys=["w"], args=[update.tobytes()])
        spent[0] += middle_s - began_s
        spent[1] += server_cpu_s(client) - middle_s
        index += 1
    client.flushall()
    return {f"redis push of {size:,} floats, tables / ours": spent[1] / spent[0]}


def server_cpu_s(client: Any) -> float:
    """CPU seconds of the thread that carries out all commands."""
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])


def redis_transfers(client: Any, config: BenchConfig) -> dict[str, float]:
    """Reading and replacing a model against GET and SET of as many bytes."""
    found = {}
    for name, size in SIZES.items():
        model, params = RedisModel(client, "transfer", 1, 0, size, 1), np.ones(size, np.float32)
        model.seed(lambda p=params: p)
        body, read = params.tobytes(), model.get()
        client.set("raw", body)
        ours, raw = in_turns(model.get, lambda: client.get("raw"), config.seconds)
        found |= ratio("redis get", name, ours, raw, len(body))
        index = iter(range(10**9))
        ours, raw = in_turns(
            lambda m=model, p=params, r=read, i=index: m.write(0, next(i), r, p),
            lambda b=body: client.set("raw", b),
            config.seconds,
        )
        found |= ratio("redis put", name, ours, raw, len(body))
        client.flushall()
    return found


def s3_transfers(client: Any, config: BenchConfig) -> dict[str, float]:
    """Reading and replacing a model against GET and PUT of as many bytes."""
    found = {}
    store = ObjectStore(client, BUCKET, ("runs/bench/",))
    for name, size in SIZES.items():
        origin, params = Origin("bench", 1, 0, size, 1), np.ones(size, np.float32)
        key, body = "runs/bench/model.npz", params.tobytes()
        store.put(key, start_object(origin, params))
        client.put_object(Bucket=BUCKET, Key="raw", Body=body)
        model = S3Model(store, origin, key)
        read = model.get()
        ours, raw = in_turns(
            model.get,
            lambda key="raw": client.get_object(Bucket=BUCKET, Key=key)["Body"].read(),
            config.seconds,
        )
        found |= ratio("s3 get", name, ours, raw, len(body))
        ours, raw = in_turns(
            lambda m=model, p=params, r=read: m.write(0, 0, r, p),
            lambda b=body: client.put_object(Bucket=BUCKET, Key="raw", Body=b),
            config.seconds,
        )
        found |= ratio("s3 put", name, ours, raw, len(body))
    return found


def ratio(what: str, name: str, ours: float, raw: float, size: int) -> dict[str, float]:
    """Throughput of ours, and its time over that of the raw client."""
    return {f"{what} {name}, MB/s": size / ours / 1e6, f"{what} {name}, ours / raw client": ours / raw}


def main(config: BenchConfig) -> int:
    """Runs every benchmark; returns the exit code."""
    import boto3
    from botocore.config import Config

    found: dict[str, float] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siren-bench-")))
        redis = storage.start_redis(folder)
        stack.callback(redis.child.stop)
        cache = redis_client(redis.url)
        found |= redis_pushes(cache, config)
        found |= redis_script(cache, config)
        found |= redis_transfers(cache, config)
        s3 = storage.start_s3(folder, BUCKET)
        stack.callback(s3.child.stop)
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = s3.credentials[:2]
        client = boto3.client(
            "s3", "us-east-1", endpoint_url=s3.url, config=Config(s3={"addressing_style": "path"})
        )
        found |= s3_transfers(client, config)
    if config.as_json:
        json.dump(found, sys.stdout, indent=2)
        return 0
    for name, value in found.items():
        print(f"{name:52s} {value:12,.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
