"""Records and summaries survive JSON exactly; malformed input is refused by name."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.analysis import records
from siren.errors import RunFolderError
from siren.types import EpochRecord, RunSummary
from tests.analysis import samples

MONEY = st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: -3000 < d.adjusted() < 3000)


def values_of(hint):
    """Any value of a type in siren/types.py."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{f.name: values_of(hints[f.name]) for f in dataclasses.fields(hint)})
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(), values_of(args[1]), max_size=4)
    if origin is types.UnionType:
        return st.one_of(st.none(), *(values_of(a) for a in args if a is not types.NoneType))
    if hint is Decimal:
        return MONEY
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return {
        float: st.floats(allow_infinity=False),
        int: st.integers(),
        bool: st.booleans(),
        str: st.text(),
    }[hint]


def same(left, right) -> bool:
    """Equal to the last digit and in type, NaN equal to NaN."""
    if isinstance(left, float):
        return type(right) is float and (left == right or (math.isnan(left) and math.isnan(right)))
    if dataclasses.is_dataclass(left):
        fields = dataclasses.fields(left)
        return type(left) is type(right) and all(
            same(getattr(left, f.name), getattr(right, f.name)) for f in fields
        )
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def refuse_constant(name: str):
    raise AssertionError(f"bare {name} in JSON")


@given(values_of(EpochRecord))
def test_a_record_survives_json_to_the_last_digit(record):
    text = records.to_text(records.record_to_json(record))
    assert "\n" not in text
    json.loads(text, parse_constant=refuse_constant)
    assert same(records.record_from_json(records.parse(text)), record)


@given(values_of(RunSummary))
def test_a_summary_survives_json_to_the_last_digit(summary):
    text = records.to_text(records.summary_to_json(summary), indent=2)
    json.loads(text, parse_constant=refuse_constant)
    assert same(records.summary_from_json(records.parse(text.encode())), summary)


def test_the_summary_is_flat_and_has_every_promised_key():
    flat = records.summary_to_json(samples.summary(samples.epochs(3)))
    promised = """
        workload world platform policy batch_rule update_rule channel seed budget_usd cost_usd bill
        target_loss initial_loss final_loss final_accuracy best_loss best_epoch target_reached
        epochs duration_s wall_s
        stop_reason stop_detail exit_code run_folder dataset title max_epochs spends_money notes
    """
    assert set(flat) == set(promised.split())
    assert flat["stop_reason"] == "target_reached"
    assert flat["exit_code"] == 0
    assert flat["target_reached"] is True


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_becomes_null_and_then_nan(value):
    record = samples.epochs(1)[0]
    status = dataclasses.replace(record.status, report=dataclasses.replace(record.status.report, loss=value))
    obj = records.record_to_json(dataclasses.replace(record, status=status))
    assert obj["status"]["report"]["loss"] is None
    assert math.isnan(records.record_from_json(obj).status.report.loss)


def test_numbers_of_numpy_are_written_as_plain_numbers():
    record = samples.epochs(1)[0]
    report = dataclasses.replace(record.status.report, loss=np.float32(0.5), pushes=np.int64(7))
    record = dataclasses.replace(record, status=dataclasses.replace(record.status, report=report))
    back = records.record_from_json(records.parse(records.to_text(records.record_to_json(record))))
    assert (back.status.report.loss, back.status.report.pushes) == (0.5, 7)


def test_a_summary_whose_derived_keys_disagree_is_refused():
    flat = records.summary_to_json(samples.summary()) | {"exit_code": 3}
    with pytest.raises(
        RunFolderError, match="exit_code: 3 does not follow from stop_reason 'target_reached'"
    ):
        records.summary_from_json(flat)


def put(obj, path, value):
    *parents, last = path.split(".")
    for key in parents:
        obj = obj[int(key) if key.isdigit() else key]
    if value is put:
        del obj[last]
    else:
        obj[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("timeout_s", put, "wrong keys: missing timeout_s"),
        ("status.report.usage.requests", put, "missing status.report.usage.requests"),
        ("status.report.colour", 1, "unknown status.report.colour"),
        ("status", [], "status: expected an object, got "),
        ("timeout_s", True, "timeout_s: expected a whole number, got True"),
        ("timeout_s", Decimal("1.5"), "timeout_s: expected a whole number"),
        ("reserved_usd", "1", "reserved_usd: expected an exact number of dollars"),
        ("reserved_usd", 0.1, "reserved_usd: expected an exact number of dollars"),
        ("status.report.loss", "low", "status.report.loss: expected a number, got 'low'"),
        ("status.report.loss", False, "status.report.loss: expected a number"),
        ("status.report.loss", 10**400, "status.report.loss: expected a finite number"),
        ("status.report.loss", Decimal("1e999"), "status.report.loss: expected a finite number"),
        ("status.bill", 3, "status.bill: expected an object, got 3"),
        ("status.bill.compute", None, "status.bill.compute: expected an exact number"),
        ("decision.reason", 3, "decision.reason: expected a string, got 3"),
        ("decision.neighbours", {}, "decision.neighbours: expected a list"),
        ("decision.neighbours.0.fits", 1, "decision.neighbours[0].fits: expected true or false, got 1"),
    ],
)
def test_a_malformed_record_is_refused_with_the_name_of_the_key(path, value, message):
    obj = records.record_to_json(samples.epochs(1)[0])
    put(obj, path, value)
    with pytest.raises(RunFolderError) as caught:
        records.record_from_json(obj)
    assert message in str(caught.value)


def test_an_unknown_word_of_an_enumeration_is_refused_with_the_known_ones():
    flat = records.summary_to_json(samples.summary()) | {"stop_reason": "bored"}
    with pytest.raises(RunFolderError, match=r"stop_reason: expected one of target_reached, .*got 'bored'"):
        records.summary_from_json(flat)


@pytest.mark.parametrize("obj", [None, [], "x", 3, {}])
def test_what_is_no_record_or_summary_is_refused(obj):
    with pytest.raises(RunFolderError):
        records.record_from_json(obj)
    with pytest.raises(RunFolderError):
        records.summary_from_json(obj)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"NaN", b"[Infinity]", b"1e99999999999999999999", b"[" * 100_000, b"9" * 5000],
)
def test_text_that_is_not_strict_json_is_refused(text):
    with pytest.raises(RunFolderError, match="not valid JSON"):
        records.parse(text)


def test_money_that_is_not_a_finite_decimal_is_never_written():
    record = samples.epochs(1)[0]
    for wrong in (Decimal("NaN"), 0.5):
        with pytest.raises(ValueError, match=r"record.reserved_usd must be a finite Decimal"):
            records.record_to_json(dataclasses.replace(record, reserved_usd=wrong))


def test_numbers_below_names_of_money_stay_exact_and_others_become_floats():
    text = (
        '{"budget_usd": 2.00, "rate": 0.10, "n": 3, "bill": {"compute": 1}, "prices_usd": [0.1], "on": true}'
    )
    value = records.by_name(records.parse(text))
    assert value == {
        "budget_usd": Decimal("2.00"),
        "rate": 0.1,
        "n": 3,
        "bill": {"compute": Decimal(1)},
        "prices_usd": [Decimal("0.1")],
        "on": True,
    }
    assert isinstance(value["bill"]["compute"], Decimal)
    assert isinstance(value["rate"], float)
