"""Whatever a model says, an invocation's log stays small, and what it says first can be read there."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siren.testing import tiny_model
from siren.worker import handler, output
from siren.worker.environment import WORKLOAD_DIR
from tests.worker.servers import client_of, make_cluster

LOUD = """
import logging, os, sys
import numpy as np
{tiny}
quiet = Model.loss_and_grad
own = logging.getLogger("own")
own.addHandler(logging.StreamHandler())

def loss_and_grad(self, params, features, labels):
    print("batch of", len(labels), "x" * 1_000_000)
    sys.stderr.write("e" * 1_000_000)
    os.write(1, b"w" * 1_000_000)
    logging.getLogger().error("z" * 1_000_000)
    own.error("o" * 1_000_000)
    if os.environ.get("SIREN_TEST_RAISES"):
        raise ArithmeticError("no gradient")
    return quiet(self, params, features, labels)

Model.loss_and_grad = loss_and_grad
"""


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """The handler with a model that prints megabytes."""
    tiny = Path(tiny_model.__file__).read_text().replace("from __future__ import annotations", "")
    (tmp_path / "model.py").write_text("from __future__ import annotations\n" + LOUD.format(tiny=tiny))
    monkeypatch.setenv(WORKLOAD_DIR, str(tmp_path))
    environment = handler.Environment()
    monkeypatch.setattr(handler, "_environment", environment)
    return environment


def event_of(s3_url, environment):
    cluster = make_cluster(s3_url, None, "average", 1)
    environment._s3["us-east-1", s3_url] = client_of(s3_url)
    return json.loads(json.dumps(cluster.tasks[0].to_json()))


def test_a_model_that_prints_megabytes_logs_one_short_line_for_each_invocation(s3_url, loud, capfd):
    for _ in range(2):
        event = event_of(s3_url, loud)
        capfd.readouterr()
        assert handler.handler(event, None)["state"] == "done"
        said = "".join(capfd.readouterr())
        assert len(said.encode()) <= output.MAX_BYTES
        assert said.startswith("batch of 10 xxx")
        assert said.endswith("x ... (cut)\n")
        assert said.count("\n") == 1


def test_what_a_loud_model_raises_is_raised(s3_url, loud, capfd, monkeypatch):
    monkeypatch.setenv("SIREN_TEST_RAISES", "1")
    event = event_of(s3_url, loud)
    capfd.readouterr()
    with pytest.raises(ArithmeticError, match="no gradient"):
        handler.handler(event, None)
    assert len("".join(capfd.readouterr()).encode()) <= output.MAX_BYTES
    print("heard again")
    assert capfd.readouterr().out == "heard again\n"


def test_little_is_passed_on_whole_as_one_line_and_silence_as_none(capfd):
    with output.limited():
        print("learning\nslowly")
        logging.getLogger("model").warning("rate %s", np.float32(0.5))
        sys.stdout.buffer.write("größer\n".encode())
    assert capfd.readouterr() == ("learning | slowly | rate 0.5 | größer\n", "")
    with output.limited():
        pass
    assert capfd.readouterr() == ("", "")


def test_characters_of_many_bytes_and_lines_of_few_count_as_bytes(capfd):
    for text in ("\U0001f9dc" * 1000, "\n" * 1000, "a\n" * 1000, "\r" * 1000):
        with output.limited():
            for character in text:
                print(character, end="")
        said = capfd.readouterr().out
        assert len(said.encode()) <= output.MAX_BYTES
        assert said.endswith(" ... (cut)\n")
        assert "\r" not in said


def test_what_bypasses_python_is_dropped_and_streams_may_be_closed(capfd):
    with output.limited():
        subprocess.run([sys.executable, "-c", "print('x' * 10_000)"], check=True)
        sys.stdout.close()
    with output.limited():
        sys.stderr.write("next")
        assert sys.stdout.fileno() > 2
    assert capfd.readouterr() == ("next\n", "")


def test_logging_is_afterwards_as_it_was():
    root = logging.getLogger()
    before = root.handlers, list(root.handlers), sys.stdout, sys.stderr
    with output.limited():
        root.addHandler(logging.NullHandler())
        assert len(root.handlers) == 2
    assert (root.handlers, list(root.handlers), sys.stdout, sys.stderr) == before


def test_a_warning_and_what_was_printed_before_arrive_in_order_in_a_process_of_its_own(checkout):
    code = (
        "import sys, warnings\nfrom siren.worker.output import limited\nprint('before')\nown = sys.stdout\n"
        "with limited():\n    own.flush()\n    warnings.warn('y' * 1_000_000)\nprint('after')"
    )
    command = [sys.executable, "-W", "default", "-c", code]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, env=buffered)
    before, warned, after = done.stdout.splitlines()
    assert (before, after, done.stderr) == ("before", "after", "")
    assert "UserWarning: yyy" in warned
    assert len(warned) < output.MAX_BYTES
