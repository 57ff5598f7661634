"""Measures on this machine what the world `local` is made of: `python experiments/calibrate_local.py`.

    python experiments/calibrate_local.py            # prints old and new values, then checks predictions
    python experiments/calibrate_local.py --write    # and writes them into envs/local.toml

Everything goes the way of a run: the local endpoint, SeaweedFS and Redis of `siren.platforms.local`,
functions that the manager's invoker calls, the worker's own channels. Values are medians; sigmas of
logarithms are half the distance between the quantiles of 16 % and 84 %. Run it when nothing else runs:
`--write` refuses a machine whose load average says otherwise, unless `--busy`. Takes two to three minutes.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import os
import platform
import re
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro

from experiments.bench import channels
from experiments.bench.epoch_overhead import SharedSite
from siren.channels.redis import redis_client
from siren.channels.s3 import ObjectStore
from siren.platforms.backend import Backend
from siren.platforms.endpoint.server import STARTS
from siren.platforms.local import THREADS
from siren.platforms.manager.clients import lambda_client, s3_client
from siren.platforms.manager.invoker import Answer, Fate, Invoker
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.manager.versions import Versions
from siren.platforms.package import Package, build_package, local_target
from siren.profiling.fit import expected_parts
from siren.twin.twin import job_of
from siren.types import Action, EpochReport
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import LIFETIMES, Costing, EpochPlan, make_costing

WORLD = Path(__file__).resolve().parents[1] / "envs" / "local.toml"
PROBE = Path(__file__).with_name("local_probe.py")
COMMAND = "experiments/calibrate_local.py"
WORKLOAD = "softmax-digits"
RUN, BLOB = "calibration", "runs/calibration/blob.bin"
MEMORY_MB, LARGER_MB, TIMEOUT_S = 1769, 3538, 60
"""One vCPU, and two."""
BLOB_BYTES, MODEL_FLOATS, TRANSFERS = 64 * 1024 * 1024, 4_194_304, 4
REQUESTS, TOGETHER = 300, 4
COLD, COLD_WORKERS, WARM, FAN_OUT, FAN_OUTS = 8, 8, 100, 40, 5
EPOCHS = 9
PARTS = ("fetch", "compute", "update")
LEAST_LATENCY = 0.1
"""Of a round trip, so much at least is no service: with one client they cannot be told apart exactly."""
BUSY_LOAD = 0.5
UNLIMITED = Decimal(10**6)


@dataclass(frozen=True)
class CalibrateConfig:
    """Measure the constants of the world `local` on this machine."""

    write: bool = False
    """Write them into the world file."""

    world: Path = WORLD
    """The world file."""

    busy: bool = False
    """Write even if other programs keep the machine busy."""


@dataclass(frozen=True)
class Measured:
    """One value: where it belongs, in the unit that the file states, and how it was found."""

    section: str
    key: str
    value: float
    how: str


class Rig:
    """A site with the worker's function and the probe's, both invoked as the manager invokes.

    Args:
        backend: The site's.
        worker_sha256, probe_sha256: `CodeSha256` of the two.
    """

    def __init__(self, backend: Backend, worker_sha256: str, probe_sha256: str) -> None:
        self.backend = backend
        self.invoker = Invoker(backend)
        probe = replace(backend, function_name="siren-probe")
        self._probe, self._worker = Versions(probe, probe_sha256), Versions(backend, worker_sha256)
        self._base = {
            "run": RUN,
            "region": backend.region,
            "bucket": backend.bucket,
            "s3_url": backend.s3_url,
            "redis_url": backend.redis_url,
        }

    def probe(self, memory_mb: int = MEMORY_MB, timeout_s: int = TIMEOUT_S) -> str:
        """ARN of a version of the probe."""
        return self._probe.arn(memory_mb, timeout_s)

    def worker(self) -> str:
        """ARN of a version of the worker."""
        return self._worker.arn(MEMORY_MB, TIMEOUT_S)

    def together(self, arn: str, events: Sequence[dict[str, Any]]) -> list[tuple[float, float, Answer]]:
        """(sent, answered, answer) of invocations that leave together; times in Unix seconds."""

        async def one(event: dict[str, Any]) -> tuple[float, float, Answer]:
            sent = time.time()
            answer = await self.invoker.invoke(arn, json.dumps(event).encode(), longest_s=2.0 * TIMEOUT_S)
            assert answer.fate is Fate.RETURNED, answer.detail
            return sent, time.time(), answer

        async def every() -> list[tuple[float, float, Answer]]:
            return list(await asyncio.gather(*(one(event) for event in events)))

        return self.invoker.run(every())

    def ask(self, arn: str, measure: str, functions: int = 1, **settings: Any) -> list[dict[str, Any]]:
        """What so many probes at once tell of a measurement, each under a name of its own."""
        events = [
            {**self._base, "measure": measure, "name": f"{measure}-{i}", **settings} for i in range(functions)
        ]
        return [told(answer) for _, _, answer in self.together(arn, events)]


def told(answer: Answer) -> dict[str, Any]:
    """What a probe returned."""
    assert not answer.failed, answer.payload
    found: dict[str, Any] = json.loads(answer.payload)
    return found


def with_probe(package: Package) -> Package:
    """The worker's package with the probe in it."""
    body = io.BytesIO(package.content)
    with zipfile.ZipFile(body, "a") as archive:
        archive.write(PROBE, PROBE.name)
    return replace(package, content=body.getvalue())


@contextmanager
def open_rig(site: SharedSite, folder: Path) -> Iterator[Rig]:
    """The probe beside the worker on a site that is open meanwhile."""
    grounds = site.open()
    probe = with_probe(build_package(folder, local_target()))
    with closing(lambda_client(grounds.backend)) as client:
        client.create_function(
            FunctionName="siren-probe",
            Runtime=probe.target.runtime,  # type: ignore[arg-type]
            Role=grounds.backend.role_arn,
            Handler=f"{PROBE.stem}.handler",
            Code={"ZipFile": probe.content},
            Environment={"Variables": THREADS},
        )
        client.get_waiter("function_active_v2").wait(FunctionName="siren-probe")
    rig = Rig(grounds.backend, grounds.code_sha256, probe.sha256_base64)
    try:
        yield rig
    finally:
        rig.invoker.close()


# --- statistics ---------------------------------------------------------------------------------


def log_sigma(values: Sequence[float]) -> float:
    """Spread of the logarithms: half the distance between the quantiles of 16 % and 84 %."""
    low, high = np.quantile(np.log(values), (0.16, 0.84))
    return float(high - low) / 2


def rate_together(parts: Sequence[dict[str, Any]], amount: str | None = None) -> float:
    """What probes that ran together did in a second; requests, or the sum of `amount`."""
    window = max(part["to"] for part in parts) - min(part["from"] for part in parts)
    return sum(part[amount] if amount else len(part["writes"]) for part in parts) / window


# --- what is measured ---------------------------------------------------------------------------


def starts(rig: Rig) -> Iterator[Measured]:
    """Cold and warm starts of an empty handler, one at a time, and how fast many begin."""
    inits, placements, warms = [], [], []
    for i in range(COLD):
        arn = rig.probe(timeout_s=TIMEOUT_S + 1 + i)  # a version of its own has no environment yet
        (sent, _, answer) = rig.together(arn, [{}])[0]
        assert answer.report is not None
        if answer.report.init_ms == 0:
            raise SystemExit("an empty environment did not start within 10 s: wait until nothing else runs")
        inits.append(answer.report.init_ms / 1000)
        placements.append(told(answer)["began"] - sent - inits[-1])
    for _ in range(WARM):
        (sent, _, answer) = rig.together(arn, [{}])[0]
        warms.append(told(answer)["began"] - sent)
    cold = f"first invocations of an empty handler at {MEMORY_MB} MB, {COLD} versions"
    yield Measured("start", "init_median", statistics.median(inits), f"{cold}: Init Duration")
    yield Measured("start", "init_sigma", log_sigma(inits), f"{cold}: Init Duration")
    yield Measured(
        "start",
        "placement",
        statistics.median(placements),
        f"{cold}: time to the handler, less Init Duration",
    )
    yield Measured(
        "start", "warm", statistics.median(warms), f"time to an empty handler, median of {WARM} invocations"
    )
    answers = rig.together(rig.worker(), [{}] * COLD_WORKERS)  # no task: refused once it is initialised
    ends = sorted(ended for _, ended, _ in answers)
    yield Measured("start", "scale_out_burst", STARTS, "environments that the endpoint initialises at once")
    yield Measured(
        "start",
        "scale_out_rate",
        (COLD_WORKERS - STARTS) / (ends[-1] - ends[STARTS - 1]),
        f"{COLD_WORKERS} cold workers at once: those after the first {STARTS}",
    )
    arn = rig.probe()
    rates = []
    for i in range(FAN_OUTS + 1):
        began = sorted(told(answer)["began"] for _, _, answer in rig.together(arn, [{}] * FAN_OUT))
        if i:  # the first time they are cold
            early, late = (began[round(share * (FAN_OUT - 1))] for share in (0.1, 0.9))
            rates.append(0.8 * (FAN_OUT - 1) / (late - early))
    yield Measured(
        "start",
        "fan_out",
        statistics.median(rates),
        f"{FAN_OUT} invocations at once of warm empty handlers: rate at which the middle 80 % begin, median "
        f"of {FAN_OUTS}",
    )


def latencies(rig: Rig) -> Iterator[Measured]:
    """Reads and writes of a small model from inside one function, and what they take of the store."""
    arn = rig.probe()
    for channel, service in (("s3", s3_service(rig)), ("redis", redis_service(rig))):
        yield from service
        service_s = service[0].value
        rig.ask(arn, f"{channel}_latency", count=20)  # its clients are made
        found = rig.ask(arn, f"{channel}_latency", count=REQUESTS)[0]
        what = f"a model of 28 floats from one function of {MEMORY_MB} MB, {REQUESTS} requests"
        for kind in ("read", "write"):
            times = found[f"{kind}s"]
            median, less = statistics.median(times), ""
            if kind == "write":
                median, less = max(median - service_s, LEAST_LATENCY * median), ", less service_base"
            yield Measured(f"channels.{channel}", f"{kind}_median", median, what + less)
            yield Measured(f"channels.{channel}", f"{kind}_sigma", log_sigma(times), what)


def s3_service(rig: Rig) -> list[Measured]:
    """The time for which a small write keeps the S3 server."""
    arn = rig.probe()
    settings: dict[str, Any] = {"functions": TOGETHER, "count": REQUESTS // 2, "writes_only": True}
    rig.ask(arn, "s3_latency", functions=TOGETHER, count=5)
    rate = rate_together(rig.ask(arn, "s3_latency", **settings))
    what = f"one over the rate of small writes from {TOGETHER} functions"
    return [Measured("channels.s3", "service_base", 1 / rate, what)]


def redis_service(rig: Rig) -> list[Measured]:
    """CPU time of the server for a push; from the smallest and the largest vector."""
    client = redis_client(str(rig.backend.redis_url))
    found = channels.redis_pushes(client, channels.BenchConfig(seconds=1.0))
    client.close()
    small, large = channels.PUSHES[0], channels.PUSHES[-1]
    service = {n: found[f"redis push of {n:,} floats, server CPU ms"] / 1000 for n in (small, large)}
    slope = (service[large] - service[small]) / (large - small)
    what = f"CPU time of the server's thread for pushes of {small} and {large:,} floats"
    base = max(service[small] - slope * small, 0.0)
    return [
        Measured("channels.redis", "service_base", base, what),
        Measured("channels.redis", "service_per_float", slope, what),
    ]


def bandwidths(rig: Rig) -> Iterator[Measured]:
    """Bytes a second of one function, of several together, and of the scheduler."""
    client = s3_client(rig.backend)
    store = ObjectStore(client, rig.backend.bucket, (f"runs/{RUN}/",))
    store.put(BLOB, bytes(BLOB_BYTES))
    s3 = {"key": BLOB, "bytes": BLOB_BYTES, "count": TRANSFERS}
    own = {}
    for memory_mb in (MEMORY_MB, LARGER_MB):
        arn = rig.probe(memory_mb)
        rig.ask(arn, "s3_transfer", **{**s3, "count": 1})
        rates = [rate_together(rig.ask(arn, "s3_transfer", **s3), "bytes") for _ in range(3)]
        own[memory_mb] = statistics.median(rates)
    what = f"ranged reads of {BLOB_BYTES >> 20} MB from SeaweedFS, one function of"
    yield Measured("network", "per_vcpu", own[MEMORY_MB], f"{what} {MEMORY_MB} MB")
    yield Measured("network", "per_function", max(own.values()), f"{what} up to {LARGER_MB} MB")
    redis = {"floats": MODEL_FLOATS, "count": 2 * TRANSFERS}
    for channel, settings in (("s3", s3), ("redis", redis)):
        arn = rig.probe()
        measure = f"{channel}_transfer"
        rig.ask(arn, measure, functions=TOGETHER, **{**settings, "count": 1})
        rates = [rate_together(rig.ask(arn, measure, TOGETHER, **settings), "bytes") for _ in range(3)]
        size = (BLOB_BYTES if channel == "s3" else 4 * MODEL_FLOATS) >> 20
        yield Measured(
            f"channels.{channel}",
            "aggregate",
            statistics.median(rates),
            f"{TOGETHER} functions of {MEMORY_MB} MB read {size} MB each at once, again and again",
        )
    times = [seconds(lambda: store.get(BLOB, BLOB_BYTES)) for _ in range(5)]
    client.close()
    rate = BLOB_BYTES / statistics.median(times)
    yield Measured("scheduler", "bandwidth", rate, f"reads of {BLOB_BYTES >> 20} MB by the manager's client")
    yield Measured("scheduler", "vcpus", float(os.cpu_count() or 1), "cores of the machine")
    yield Measured("cpu", "vcpus_max", float(os.cpu_count() or 1), "cores of the machine")


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# --- the world file -----------------------------------------------------------------------------

_SECTION = re.compile(r"\[([\w.]+)\]")
_ENTRY = re.compile(r'(\w+) = \{ value = ([^,]+), unit = "([^"]+)", source = "[^"]*", date = "[^"]*" \}')


def rewritten(
    text: str, measured: Sequence[Measured], machine: str
) -> tuple[str, list[tuple[str, str, str]]]:
    """The world file with the measured values, and (what, old value, new value with its unit) of each."""
    values = {(found.section, found.key): found for found in measured}
    today, section, lines, changes = str(datetime.now(tz=UTC).date()), "", [], []
    for line in text.splitlines():
        entry, header = _ENTRY.fullmatch(line), _SECTION.fullmatch(line)
        section = header.group(1) if header else section
        found = values.pop((section, entry.group(1)), None) if entry else None
        if entry and found:
            key, old, unit = entry.groups()
            new = toml_number(found.value, whole=isinstance(found.value, int))
            source = f"{COMMAND}, {machine}: {found.how}"
            changes.append((f"{section}.{key}", old, f"{new} {unit}"))
            line = f'{key} = {{ value = {new}, unit = "{unit}", source = "{source}", date = "{today}" }}'
        lines.append(line)
    assert not values, f"the world file lacks {sorted(values)}"
    return "\n".join(lines) + "\n", changes


def toml_number(value: float, *, whole: bool) -> str:
    """A number with three significant digits."""
    if whole:
        return str(value)
    if value >= 1e5:
        digits = 2 - math.floor(math.log10(value))
        return f"{round(value, digits):_.0f}"
    text = f"{value:.3g}"
    return text if "." in text or "e" in text else f"{text}.0"


def machine_name() -> str:
    """What it was measured on, without its name."""
    version = ".".join(platform.python_version_tuple())
    return f"{os.cpu_count()}-core {platform.machine().replace('_', '-')} machine, Python {version}"


# --- predictions --------------------------------------------------------------------------------


def epochs(site: SharedSite, costing: Costing, action: Action) -> list[EpochReport]:
    """A cold epoch and warm ones of the workload, for real."""
    running = FunctionPlatform(load_workload(WORKLOAD), costing, 0, site, f"calibration-{action}")
    running.start()
    plan = EpochPlan(action, TIMEOUT_S, TIMEOUT_S - 1.0, UNLIMITED)
    reports = [running.run_epoch(plan) for _ in range(1 + EPOCHS)]
    running.close()
    return reports


def expected_s(costing: Costing, action: Action, cold: int) -> float:
    """Seconds of an epoch, `cold` of whose functions start cold and load their shard."""
    numbers = (action.functions, action.memory_mb, cold, cold)
    return float(costing.expect(*(np.array([float(number)]) for number in numbers)).duration_s[0])


def show_predictions(site: SharedSite, world: Path) -> None:
    """Prints what the world predicts of epochs beside what they take."""
    job = job_of(load_workload(WORKLOAD))
    costing = make_costing(load_world(str(world)), job, lifetimes_max=LIFETIMES)
    print(
        f"\n{WORKLOAD}, {costing.job.update_rule} over {costing.job.channel}: seconds, predicted / measured"
    )
    print(f"{'action':>10s}" + "".join(f"{n:>18s}" for n in ("cold epoch", "warm epoch", *PARTS)))
    for n in (1, 2):
        action = Action(n, MEMORY_MB)
        cold, *warm = epochs(site, costing, action)
        expected = [expected_s(costing, action, cold_functions) for cold_functions in (n, 0)]
        expected += expected_parts(costing, n, MEMORY_MB)
        found = [cold.duration_s, statistics.median(epoch.duration_s for epoch in warm)]
        found += [statistics.median(getattr(epoch, f"{part}_s") for epoch in warm) for part in PARTS]
        pairs = [f"{a:.3f} / {b:.3f}" for a, b in zip(expected, found, strict=True)]
        print(f"{action!s:>10s}" + "".join(f"{pair:>18s}" for pair in pairs))


def main(config: CalibrateConfig) -> int:
    """Measures, prints, and writes if asked to; returns the exit code."""
    load = os.getloadavg()[0]
    if config.write and not config.busy and load > BUSY_LOAD:
        print(
            f"the load average is {load:.1f}: wait until nothing else runs, or say --busy",
            file=sys.stderr,
        )
        return 2
    workload, began = load_workload(WORKLOAD), time.monotonic()
    site = SharedSite(workload.folder)
    try:
        with open_rig(site, workload.folder) as rig:
            measured = []
            for found in itertools.chain(starts(rig), latencies(rig), bandwidths(rig)):
                print(f"{found.section}.{found.key} = {found.value:.4g}", file=sys.stderr)
                measured.append(found)
        text, changes = rewritten(config.world.read_text(encoding="utf-8"), measured, machine_name())
        print(f"{'constant':32s} {'old':>14s}  new (load average at the beginning: {load:.1f})")
        for what, old, new in changes:
            print(f"{what:32s} {old:>14s}  {new}")
        with TemporaryDirectory() as folder:
            world = Path(folder) / config.world.name
            world.write_text(text, encoding="utf-8")
            load_world(str(world))
            if config.write:
                config.world.write_text(text, encoding="utf-8")
            show_predictions(site, world)
    finally:
        site.end()
    done = "written to" if config.write else "not written to"
    print(f"\n{time.monotonic() - began:.0f} s; {done} {config.world}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CalibrateConfig)))
