"""What only our endpoint can be asked: its limits, its start, its refusals."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from siren.errors import PlatformError
from siren.platforms.endpoint import sweep
from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME

SLOW_INIT = "import time; time.sleep({s})\ndef handler(event, context): return 'ready'"


def command(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, which must end by itself."""
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **environment}
    return subprocess.run(
        [sys.executable, "-m", "siren.platforms.endpoint", *options],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(*options: str, **environment: str) -> str:
    done = command(*options, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "192.168.1.2"])
def test_only_loopback_is_listened_on(host):
    assert "it listens on 127.0.0.1 only; leave --host out" in refusal("--host", host)


def test_it_needs_credentials():
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refusal(AWS_SECRET_ACCESS_KEY="")


def test_a_root_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds other files: choose an empty or a new folder" in refusal("--root", str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_root_in_use_is_refused(tmp_path):
    sweep.record(tmp_path, [])
    assert f"is in use by process {os.getpid()}" in refusal("--root", str(tmp_path))


def test_the_root_of_a_dead_endpoint_is_used_again(tmp_path):
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    (root / sweep.RECORD).write_text(json.dumps({"pid": os.getpid(), "born": "1", "groups": []}))
    with LocalEndpoint(options=("--root", str(root))) as endpoint:
        assert endpoint.root == root
        assert endpoint.about()["environments"] == 0
    assert not root.exists()


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be had: leave --port out" in refusal("--port", port)


def test_more_environments_than_concurrency_are_refused():
    assert "--environments must be from 1 to --concurrency" in refusal(
        "--environments", "20", "--concurrency", "10"
    )


def test_an_endpoint_that_does_not_start_tells_why(tmp_path):
    with pytest.raises(PlatformError, match=r"the Lambda endpoint ended with code 2 .*leave --host out"):
        LocalEndpoint(log=tmp_path / "log", options=("--host", "0.0.0.0"))


def listening_addresses(pid: int) -> set[str]:
    """Hexadecimal addresses that a process listens on."""
    inodes = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink()))
        inodes |= {found[1]} if found else set()
    tables = [Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_it_listens_on_loopback_with_all_its_environments(endpoint, account, function):
    account.invoke(function)
    assert listening_addresses(endpoint.child.pid) == {"0100007F"}


def test_about_tells_how_functions_are_confined(endpoint):
    about = endpoint.about()
    assert set(about["confinement"]) == {"cpu", "memory", "freezer"}
    assert about["runtime"] == RUNTIME
    assert "the size of /tmp" in about["not_enforced"]


def test_nothing_secret_is_in_the_log(start, tmp_path):
    log = tmp_path / "log"
    with LocalEndpoint(log=log) as endpoint:
        secret = endpoint.credentials.secret_key
        assert secret not in repr(endpoint.credentials)
        assert secret.encode() not in Path(f"/proc/{endpoint.child.pid}/cmdline").read_bytes()
    assert secret not in log.read_text()


def test_waiters_wait_for_what_is_pending(start):
    with start("--pending", "0.3") as (_, account):
        name = account.create()
        account.configure(name, Timeout=20)
        assert account.invoke(account.publish(name)["FunctionArn"]).error is None


def test_idle_environments_are_ended_after_a_while(start):
    with start("--keep-alive", "0.2") as (endpoint, account):
        name = account.create()
        first = account.invoke(name)
        deadline = time.monotonic() + 20
        while endpoint.about()["environments"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = account.invoke(name)
        assert second.payload["pid"] != first.payload["pid"]
        assert second.report["init"]


def test_idle_environments_give_way_to_others(start):
    with start("--environments", "2") as (endpoint, account):
        one, two, three = (account.create() for _ in range(3))
        pids = {name: account.invoke(name).payload["pid"] for name in (one, two)}
        account.invoke(three)  # the one that rested longest goes
        assert endpoint.about()["environments"] == 2
        assert account.invoke(two).payload["pid"] == pids[two]
        assert account.invoke(one).payload["pid"] != pids[one]
        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(account.invoke, name, "sleep", s=3) for name in (one, two)]
            time.sleep(1.5)
            refused = account.refused(account.client.invoke, FunctionName=three)
            assert [each.result().error for each in running] == [None, None]
        assert refused["Reason"] == "ConcurrentInvocationLimitExceeded"
        assert endpoint.about()["most"] == 2


def test_the_accounts_concurrency_is_shared(start):
    with start("--concurrency", "101", "--environments", "50") as (_, account):
        one, two = account.create(), account.create()
        account.client.put_function_concurrency(FunctionName=one, ReservedConcurrentExecutions=1)
        limit = account.client.get_account_settings()["AccountLimit"]
        assert (limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]) == (101, 100)
        refused = account.refused(
            account.client.put_function_concurrency, FunctionName=two, ReservedConcurrentExecutions=1
        )
        assert "below its minimum value of [100]" in refused["Error"]["Message"]


def test_an_update_ends_idle_environments(start):
    with start() as (endpoint, account):
        name = account.create()
        account.invoke(name)
        assert endpoint.about()["environments"] == 1
        account.configure(name, MemorySize=512)
        assert endpoint.about()["environments"] == 0
        account.publish(name)
        account.invoke(name, qualifier="1")
        account.client.delete_function(FunctionName=name)
        assert endpoint.about()["environments"] == 0


def test_an_init_phase_that_takes_too_long_is_repeated_within_the_invocation(start):
    with start("--init-limit", "0.6") as (_, account):
        answer = account.invoke(account.create(SLOW_INIT.format(s=1), Timeout=60))
        assert (answer.error, answer.payload) == (None, "ready")
        assert "INIT_REPORT Init Duration: 600.00 ms\tPhase: init\tStatus: timeout" in answer.log
        assert answer.report["init"] is None
        assert float(answer.report["duration"]) >= 1000
        assert int(answer.report["billed"]) >= float(answer.report["duration"]) + 600
        ended = account.invoke(account.create(SLOW_INIT.format(s=30), Timeout=1))
        assert "Task timed out after 1.00 seconds" in ended.payload["errorMessage"]
        assert (float(ended.report["duration"]), ended.report["billed"]) == (1000, "1600")


def test_what_it_does_not_have_is_refused_by_name(account, function):
    with pytest.raises(ClientError, match=r"does not have Layers: leave it out"):
        account.create(Layers=["arn:aws:lambda:us-east-1:000000000000:layer:one:1"])
    with pytest.raises(ClientError, match=rf"runs {RUNTIME} only"):
        account.client.update_function_configuration(FunctionName=function, Runtime="python3.8")


def test_a_client_that_goes_away_does_not_end_its_invocation(endpoint, account):
    name = account.create()
    own = endpoint.credentials
    hasty = boto3.client(
        "lambda",
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id=own.access_key,
        aws_secret_access_key=own.secret_key,
        config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
    )
    account.invoke(name)
    with pytest.raises(ReadTimeoutError):
        hasty.invoke(FunctionName=name, Payload=json.dumps({"do": "sleep", "s": 1}))
    hasty.close()
    deadline = time.monotonic() + 20
    while endpoint.about()["idle"] < endpoint.about()["environments"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert account.invoke(name, "count", what="sleep").payload["count"] == 1
