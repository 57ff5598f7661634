"""What hiredis does to the client of Redis: CPU time of reading and writing a model.

python experiments/bench/redis_client.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis
from redis.connection import HiredisRespSerializer, PythonRespSerializer

from siren.channels.redis import redis_client
from siren.platforms.storage import start_redis

SIZES = (50_890, 1_000_000, 5_000_000)
REPEATS = 15


def clients(url: str) -> dict[str, Any]:
    """The worker's client, and those that it is compared with."""
    python = redis.Redis.from_url(url, protocol=2)
    packer = PythonRespSerializer(6000, python.get_encoder().encode)
    parser = redis.connection._RESP2Parser  # what redis-py takes without hiredis
    python.connection_pool.connection_kwargs |= {"parser_class": parser, "command_packer": packer}
    hiredis = redis.Redis.from_url(url, protocol=2)
    hiredis.connection_pool.connection_kwargs["command_packer"] = HiredisRespSerializer()
    return {"the worker's": redis_client(url), "no hiredis": python, "hiredis for all": hiredis}


def cpu_ms(call: Callable[[], object]) -> float:
    """Median CPU milliseconds of this process for one call."""
    told = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        told.append(1e3 * (time.process_time() - began))
    return statistics.median(told)


def main() -> None:
    """Prints one line for each size and client."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        with server.child:
            for size in SIZES:
                vector = memoryview(np.ones(size, np.float32)).cast("B")
                for name, client in clients(server.url).items():
                    write_ms = cpu_ms(lambda c=client, v=vector: c.set("model", v))
                    read_ms = cpu_ms(lambda c=client: c.get("model"))
                    print(f"{size:>9,} floats  {name:<15}  read {read_ms:6.2f} ms  write {write_ms:6.2f} ms")


if __name__ == "__main__":
    main()
