"""Messages that are not what they must be are refused, whatever they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.types import ChannelKind
from siren.worker.messages import RULES, DataRef, MessageError, ModelRef, Status, Task
from siren.worlds.laws import RULES_OF_CHANNEL

TASK = Task(
    run="run-1",
    epoch=2,
    functions=3,
    epoch_pushes=8,
    worker=1,
    rule="additive",
    channel="redis",
    region="us-east-1",
    bucket="siren-tests",
    dataset=DataRef(f"data/{'0' * 64}/", 240, 16, "<f4", (3,), "<f4", 70),
    model=ModelRef("numpy", (3,), 2, {"hidden": 3, "deep": [1, {"a": None}]}),
    size=4,
    first_row=30,
    batches=(10, 10, 9),
    order_seed=7,
    rate=0.5,
    staleness_scale=20.0,
    deadline_s=3.0,
    s3_url="http://127.0.0.1:9000",
    redis_url="redis://127.0.0.1:6379",
)
STATUS = Status(
    run="run-1",
    epoch=2,
    launch=0,
    worker=1,
    attempt=0,
    state="done",
    position=3,
    samples=29,
    pushes=3,
    version=8,
    model_key="runs/run-1/epochs/2-0/final-8.npz",
    began=1.0,
    load_s=0.1,
    fetch_s=0.1,
    compute_s=0.1,
    update_s=0.1,
    staleness_sum=4,
    retries=0,
    s3_puts=1,
    s3_gets=2,
    loaded_rows=29,
    square_norm_sum=1.5,
    max_rss_mb=60.0,
    cold=True,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def test_rules_of_the_channels_are_those_of_the_laws():
    expected = {
        kind.value: {rule.value for rule in rules}
        for kind, rules in RULES_OF_CHANNEL.items()
        if kind is not ChannelKind.MEMORY
    }
    assert {channel: set(rules) for channel, rules in RULES.items()} == expected


def test_messages_survive_json():
    assert Task.from_json(json.loads(json.dumps(TASK.to_json()))) == TASK
    assert Status.from_json(json.loads(json.dumps(STATUS.to_json()))) == STATUS
    unknown = replace(STATUS, staleness_sum=None, model_key="")
    assert Status.from_json(json.loads(json.dumps(unknown.to_json()))) == unknown


def test_a_task_of_many_equal_pushes_is_small():
    many = replace(TASK, functions=1, worker=0, epoch_pushes=172_000, batches=(64,) * 172_000)
    assert len(json.dumps(many.to_json())) < 1200
    assert Task.from_json(many.to_json()) == many


def test_members_of_a_step_are_the_first_functions():
    assert [TASK.members(step) for step in range(4)] == [3, 3, 2, 0]
    assert TASK.bounds == (0, 10, 20, 29)


@pytest.mark.parametrize("message", [Task, Status])
@given(value=VALUES)
def test_anything_is_refused_with_a_message_error(message, value):
    with pytest.raises(MessageError, match=r": |must"):
        message.from_json(value)


@pytest.mark.parametrize("valid", [TASK, STATUS])
@given(data=st.data())
def test_one_changed_field_is_valid_or_refused(valid, data):
    fields = valid.to_json()
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(VALUES)
    try:
        found = type(valid).from_json(fields)
    except MessageError:
        return
    assert type(valid).from_json(json.loads(json.dumps(found.to_json()))) == found


@given(data=st.data())
def test_keys_never_leave_the_runs_prefix(data):
    fields = TASK.to_json() | {
        "run": data.draw(st.text(max_size=80) | st.sampled_from(["a/../b", "..", "a\n"]))
    }
    fields["launch"] = data.draw(st.integers(0, 5))
    try:
        task = Task.from_json(fields)
    except MessageError:
        return
    assert re.fullmatch(r"runs/[a-z0-9-]+/epochs/\d+-\d+/", task.folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"protocol": 2}, "protocol 2"),
        ({"protocol": True}, "protocol True"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"run": "../other"}, "run of the task"),
        ({"worker": 3}, "worker 3 of 3"),
        ({"epoch": True}, "epoch of the task is True"),
        ({"rate": float("nan")}, "rate of the task is nan"),
        ({"rate": 10**400}, "rate of the task"),
        ({"position": 4}, "past the quota"),
        ({"batches": [[10, 2]]}, "makes 3 of 8 pushes"),
        ({"batches": [[10, 10**9], [1, 10**9]]}, "at most 10000000 pushes"),
        ({"channel": "s3", "redis_url": None}, "s3 cannot carry the rule 'additive'"),
        ({"redis_url": None}, "send both or neither"),
        ({"redis_url": "redis://user:secret@elsewhere/0"}, "redis_url of the task"),
        ({"s3_url": "file:///etc/passwd"}, "s3_url of the task"),
        ({"first_row": 240}, "not one of the 240"),
        ({"bucket": "a/b"}, "bucket of the task"),
        ({"size": 2**40}, "size of the task"),
        ({"model": {**TASK.model.to_json(), "settings": {"a b": 1}}}, "keyword arguments"),
        ({"dataset": {**TASK.dataset.to_json(), "prefix": "runs/other/"}}, "prefix of the task's dataset"),
        ({"dataset": {**TASK.dataset.to_json(), "feature_dtype": "|O8"}}, "feature_dtype"),
        ({"kind": "collect", "channel": "s3", "rule": "cas", "redis_url": None}, "only a Redis channel"),
    ],
)
def test_a_malformed_task_is_refused_by_name(changes, says):
    with pytest.raises(MessageError, match=re.escape(says)):
        Task.from_json(TASK.to_json() | changes)


def test_a_missing_field_is_named():
    fields = TASK.to_json()
    del fields["rate"]
    with pytest.raises(MessageError, match="lacks 'rate'"):
        Task.from_json(fields)


@pytest.mark.parametrize(
    "changes", [{"run": "run-2"}, {"epoch": 3}, {"launch": 1}, {"attempt": 2}, {"position": 4}]
)
def test_a_status_of_another_task_is_refused(changes):
    STATUS.check_answers(TASK)
    with pytest.raises(MessageError, match="invoke the worker again"):
        replace(STATUS, **changes).check_answers(TASK)
