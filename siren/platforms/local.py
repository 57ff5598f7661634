"""A Lambda endpoint, an S3 server and a Redis on this machine, for as long as a run lasts."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from siren.errors import MissingExtraError
from siren.platforms.backend import Backend
from siren.platforms.endpoint.client import Credentials, LocalEndpoint
from siren.platforms.manager.clients import lambda_client
from siren.platforms.manager.site import Grounds
from siren.platforms.package import HANDLER, Package, build_package, local_target
from siren.platforms.processes import start_child
from siren.platforms.storage import start_redis, start_s3
from siren.worker.environment import REDIS_URL, S3_URL

BUCKET = "siren-local"
FUNCTION = "siren-worker"
ROLE_ARN = "arn:aws:iam::000000000000:role/siren-worker"
NEEDED = ("aiohttp", "boto3", "awslambdaric", "redis")
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""As on AWS: more threads would fight over the share of a small function."""
SWEEP = """
sweep() {
  if [ -e "$1" ]; then
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do rm -rf "$1"; sleep 0.2; done
  fi
  exit 0
}
trap 'sweep "$1"' TERM
while :; do sleep 3600 & wait $!; done
"""
"""Removes a folder when it is asked to end, again and again: servers that end beside it still write."""
SWEEP_S = 30.0


class LocalSite:
    """See `Site`: everything that is started ends with this process, and leaves nothing on the disk.

    Args:
        workload_folder: What the function runs.
        region: What the servers say where they are.
        redis: Whether a Redis is needed.
        environments: Execution environments that may exist at once.
        faults: Whether tests may inject faults into the endpoint.

    Attributes:
        root: Folder of everything that the servers write; None while they do not run.
        endpoint: The Lambda endpoint; None while it does not run.
    """

    name = "local"
    spends_money = False

    def __init__(
        self,
        workload_folder: Path,
        *,
        region: str = "us-east-1",
        redis: bool = True,
        environments: int = 200,
        faults: bool = False,
    ) -> None:
        self._workload, self._region, self._redis = workload_folder, region, redis
        self._environments, self._faults = environments, faults
        self._stack: contextlib.ExitStack | None = None
        self._grounds: Grounds | None = None
        self.root: Path | None = None
        self.endpoint: LocalEndpoint | None = None

    def check(self) -> None:
        """See `Site.check`."""
        for package in NEEDED:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, self.name)

    def open(self) -> Grounds:
        """See `Site.open`."""
        if self._grounds is None:
            with contextlib.ExitStack() as stack:
                self._grounds = self._start(stack)
                self._stack = stack.pop_all()
        return self._grounds

    def facts(self) -> Mapping[str, Any]:
        """See `Site.facts`: how functions are confined, and what is not as on AWS."""
        return {"endpoint": self.endpoint.about()} if self.endpoint else {}

    def close(self) -> None:
        """See `Site.close`."""
        if self._stack is not None:
            self._stack.close()
        self._stack = self._grounds = self.root = self.endpoint = None

    def _start(self, stack: contextlib.ExitStack) -> Grounds:
        root = Path(tempfile.mkdtemp(prefix="siren-local-"))
        self.root = root
        sweeper = start_child(["sh", "-c", SWEEP, "sh", str(root)], name="the sweeper", grace_s=SWEEP_S)
        stack.callback(sweeper.stop)
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        with ThreadPoolExecutor() as threads:
            starting_s3 = threads.submit(start_s3, root, BUCKET)
            starting_package = threads.submit(build_package, self._workload, local_target())
            cache = start_redis(root) if self._redis else None
            if cache:
                stack.enter_context(cache.child)
            store = starting_s3.result()
            stack.enter_context(store.child)
            package = starting_package.result()
        options = [
            *("--region", self._region, "--environments", str(self._environments)),
            *(["--faults"] if self._faults else []),
        ]
        endpoint = stack.enter_context(
            LocalEndpoint(Credentials(*store.credentials), store.url, root / "endpoint.log", tuple(options))
        )
        self.endpoint = endpoint
        backend = Backend(
            name=self.name,
            region=self._region,
            bucket=BUCKET,
            function_name=FUNCTION,
            lambda_url=endpoint.url,
            s3_url=store.url,
            redis_url=cache.url if cache else None,
            credentials=store.credentials,
            role_arn=ROLE_ARN,
            runtime=package.target.runtime,
            spends_money=False,
        )
        create_worker(backend, package)
        return Grounds(backend, package.sha256_base64)


def create_worker(backend: Backend, package: Package) -> None:
    """Creates the function that a local backend names, and waits until it can be invoked."""
    endpoints = {S3_URL: backend.s3_url, REDIS_URL: backend.redis_url}
    variables = THREADS | {name: url for name, url in endpoints.items() if url}
    with contextlib.closing(lambda_client(backend)) as client:
        client.create_function(
            FunctionName=backend.function_name,
            Runtime=package.target.runtime,  # type: ignore[arg-type]
            Role=backend.role_arn,
            Handler=HANDLER,
            Code={"ZipFile": package.content},
            Environment={"Variables": variables},
        )
        client.get_waiter("function_active_v2").wait(FunctionName=backend.function_name)
