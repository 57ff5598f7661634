"""What a warm environment keeps, what a cold one imports, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from redis.exceptions import ResponseError

from siren.channels.base import StoreBusyError
from siren.channels.objects import Origin, start_object
from siren.channels.redis import RedisModel
from siren.testing import tiny_model
from siren.worker import handler, layout, loop
from siren.worker.environment import REDIS_URL, S3_URL, WORKLOAD_DIR, Environment, build_model
from siren.worker.messages import MessageError, ModelRef, Task
from siren.worker.outcome import epoch_outcome
from tests.worker.servers import client_of, cold_environment, make_cluster


def test_importing_the_handler_loads_numpy_and_little_of_siren(checkout):
    code = "import sys, siren.worker.handler; print('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    heavy = {
        "pydantic",
        "boto3",
        "botocore",
        "redis",
        "torch",
        "asyncio",
        "numba",
        "scipy",
        "concurrent.futures",
    }
    assert not heavy & set(loaded)
    ours = {name for name in loaded if name.startswith("siren.")}
    allowed = ("siren.worker", "siren.channels", "siren.hsp")
    assert {name for name in ours if not name.startswith(allowed)} == set()
    assert {name for name in ours if name.startswith("siren.hsp")} == {"siren.hsp", "siren.hsp.rules"}


def test_clients_are_made_while_lambda_initialises_the_environment(checkout):
    code = "import siren.worker.handler as h; e = h._environment; print(list(e._s3), list(e._redis))"
    region, s3, redis = "eu-west-1", "http://127.0.0.1:9", "redis://127.0.0.1:9"
    lambdas = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "AWS_REGION": region}

    def clients(variables: dict[str, str]) -> str:
        environment = {"PATH": os.defpath, **variables}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert clients({**lambdas, S3_URL: s3, REDIS_URL: redis}) == f"[('{region}', '{s3}')] ['{redis}']"
    assert clients(lambdas) == f"[('{region}', None)] []"
    assert clients({"AWS_REGION": region, S3_URL: s3}) == "[] []"


def test_a_task_uses_the_clients_of_the_initialisation_and_else_counts_them_as_loading(
    monkeypatch, s3_url, redis_url
):
    cluster, made = make_cluster(s3_url, redis_url, "additive", 1), []

    def slowly(*key):
        made.append(key)
        time.sleep(0.2)
        return client_of(s3_url)

    monkeypatch.setattr("siren.worker.environment.s3_client", slowly)
    cold = Environment()
    assert cluster.run(0, cold).load_s >= 0.2
    initialised = Environment()
    task = cluster.tasks[0]
    lambdas = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "AWS_REGION": task.region}
    initialised.initialise({**lambdas, S3_URL: s3_url, REDIS_URL: redis_url})
    client = initialised.redis(redis_url)
    assert made == [(task.region, s3_url)] * 2
    assert cluster.run(0, initialised, attempt=1).cold
    assert made == [(task.region, s3_url)] * 2
    assert initialised.redis(redis_url) is client


def test_the_tasks_cache_counts_and_another_one_that_was_configured_is_told(caplog, s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 1)
    task, nowhere = cluster.tasks[0], "redis://127.0.0.1:9"
    environment = cold_environment(task)
    environment.initialise(
        {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "AWS_REGION": task.region, REDIS_URL: nowhere}
    )
    assert [cluster.run(0, environment, attempt=i).state for i in range(2)] == ["done"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"the task's cache {redis_url} is used, not {nowhere} of SIREN_REDIS_URL: deploy again"
    ]


@pytest.mark.parametrize("kind", ["train", "collect"])
def test_a_busy_cache_is_not_waited_for_beyond_the_deadline(monkeypatch, s3_url, redis_url, kind):
    cluster, busy = make_cluster(s3_url, redis_url, "additive", 1), itertools.count()
    environment = cold_environment(cluster.tasks[0])

    def refuse(*_args, **_options):
        next(busy)
        raise ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL")

    monkeypatch.setattr(environment.redis(redis_url), "execute_command", refuse)
    with pytest.raises(StoreBusyError, match=r"until this function's time was over .*run the epoch again"):
        cluster.run(0, environment, deadline_s=0.5, kind=kind)
    assert next(busy) > 1


def test_a_warm_environment_reads_its_shard_once(s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 2)
    environment = cold_environment(cluster.tasks[0])
    first, second = (cluster.run(0, environment, attempt=i) for i in range(2))
    assert (first.cold, first.loaded_rows, second.cold, second.loaded_rows) == (True, 40, False, 0)
    assert second.s3_gets == 0
    assert first.s3_gets == 3  # rows 200-209 and 210-239 of two objects, and the start
    other = cluster.run(1, environment)
    assert (other.cold, other.loaded_rows) == (False, 40)


def test_a_shard_longer_than_the_training_set_is_read_once(s3_url):
    cluster = make_cluster(s3_url, None, "average", 1, samples=480)
    status = cluster.run(0)
    assert (status.loaded_rows, status.samples, status.position) == (240, 480, 48)


def test_status_tells_what_happened(s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 1)
    status = cluster.run(0)
    assert status.compute_s > 0
    assert status.fetch_s > 0
    assert status.update_s > 0
    assert status.load_s > 0
    assert status.square_norm_sum > 0
    assert status.max_rss_mb > 20
    assert status.s3_puts == 1
    assert status.model_key == layout.final(cluster.tasks[0].folder, 8)


@pytest.mark.parametrize("rule", ["additive", "overwrite", "average", "sync"])
@pytest.mark.parametrize("channel", ["s3", "redis"])
def test_a_diverging_worker_says_so_and_stores_no_model(monkeypatch, s3_url, redis_url, rule, channel):
    if (rule, channel) == ("additive", "s3"):
        rule = "cas"
    cluster = make_cluster(s3_url, redis_url if channel == "redis" else None, rule, 2)
    real = tiny_model.Model.loss_and_grad

    def gradient(work, params, index):
        found = real(work.model, params, work.features[:2], work.labels[:2])[1]
        return (found * np.float32(np.nan), False) if index == 2 else (found, True)

    monkeypatch.setattr(loop.Work, "gradient", gradient)
    statuses = cluster.run_all()
    assert {s.state for s in statuses} == {"diverged"}
    if rule in {"overwrite", "cas"} and channel == "s3":
        outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
        assert np.isfinite(outcome.params).all()


def test_the_wrong_package_or_start_is_refused(monkeypatch, tmp_path, s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 1)
    with pytest.raises(MessageError, match="has 4 parameters, the task's 5"):
        cluster.run(0, size=5)
    with pytest.raises(RuntimeError, match="is missing: the manager writes it"):
        cluster.run(0, launch=3)
    task = replace(cluster.tasks[0], launch=4)
    foreign = start_object(Origin("other", 1, 4, 4, 1), cluster.params)
    cluster.store.put(layout.start(task.folder), foreign)
    with pytest.raises(MessageError, match="is of run other"):
        cluster.run(0, launch=4)
    monkeypatch.setenv(WORKLOAD_DIR, str(tmp_path))
    with pytest.raises(MessageError, match="build the code package"):
        cluster.run(0, launch=5)


def test_a_model_may_import_its_siblings(monkeypatch, tmp_path):
    (tmp_path / "tiny_sibling_of_model.py").write_text("SIZE = 7\n")
    (tmp_path / "model.py").write_text(
        "import tiny_sibling_of_model\n\n\nclass Model:\n    def __init__(self, shape, classes, extra=0):\n"
        "        self.layout = {'w': (tiny_sibling_of_model.SIZE + extra,)}\n"
    )
    monkeypatch.setenv(WORKLOAD_DIR, str(tmp_path))
    before = list(sys.path)
    assert build_model(ModelRef("numpy", (3,), 2, {"extra": 1})).layout == {"w": (8,)}
    assert sys.path == before


def test_a_torch_model_needs_an_environment_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "siren.workloads.torch_model", None)
    with pytest.raises(MessageError, match="deploy the container image"):
        build_model(ModelRef("torch", (3,), 2))


def test_the_entry_point_speaks_json_and_refuses_before_it_touches_anything(s3_url):
    with pytest.raises(MessageError, match="send a JSON object"):
        handler.handler("hello", None)
    cluster = make_cluster(s3_url, None, "average", 1)
    status = handler.handler(json.loads(json.dumps(cluster.tasks[0].to_json())), None)
    assert json.loads(json.dumps(status)) == status
    assert status["state"] == "done"


def test_an_epoch_that_never_began_is_collected_as_it_started(s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 1)
    status = cluster.run(0, kind="collect")
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], [status])
    np.testing.assert_array_equal(outcome.params, cluster.params)
    assert outcome.pushes == 0
    task: Task = cluster.tasks[0]
    environment = cold_environment(task)
    shared = RedisModel(environment.redis(redis_url), task.run, 1, 0, task.size, 1)
    assert shared.version() == 0
