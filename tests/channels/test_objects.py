"""Objects that are no model of this epoch are refused before they are used."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.channels.objects import NotFiniteError, Origin, StoredModel, pack, start_object, unpack
from siren.worker.messages import MessageError

ORIGIN = Origin("run-1", 2, 0, 100, 3)
MODEL = StoredModel(
    np.arange(100, dtype=np.float32), np.array([1, 2, 0], np.int32), version=3, contained=2, samples=30
)
BODY = pack(ORIGIN, MODEL)


def arrays(**changes):
    with np.load(io.BytesIO(BODY), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored} | changes


def saved(compressed=False, **found):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **found)
    return file.getvalue()


def test_a_model_comes_back_as_it_was():
    found = unpack(BODY, ORIGIN, "key")
    np.testing.assert_array_equal(found.params, MODEL.params)
    np.testing.assert_array_equal(found.applied, MODEL.applied)
    assert (found.version, found.contained, found.samples) == (3, 2, 30)
    assert pack(ORIGIN, MODEL) == BODY
    start = unpack(start_object(ORIGIN, MODEL.params), ORIGIN, "key")
    assert (start.version, start.applied.tolist()) == (0, [0, 0, 0])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no model"),
        (pickle.dumps(MODEL.params), "no model"),
        (BODY[:-30], "no model"),
        (BODY + b"0" * 20_000, "more than the"),
        (saved(**arrays(params=MODEL.params.astype(np.float64))), "more than the|float64"),
        (saved(**arrays(params=MODEL.params[:-1])), r"shape \(99,\)"),
        (saved(**arrays(params=MODEL.params.reshape(10, 10))), r"shape \(10, 10\)"),
        (saved(**arrays(applied=np.zeros(2, np.int32))), r"shape \(2,\)"),
        (saved(**arrays(applied=np.zeros(3, np.int64))), "int64"),
        (saved(**arrays(extra=np.zeros(1))), "its members"),
        (saved(params=MODEL.params), "its members"),
        (saved(compressed=True, **arrays()), "compressed"),
        (saved(**arrays(params=np.array([{}] * 100, object))), "object"),
        (saved(**arrays(meta=np.frombuffer(b"{}", np.uint8))), "lacks 'run'"),
        (saved(**arrays(meta=np.frombuffer(b"\xff[", np.uint8))), "no model"),
    ],
)
def test_what_is_no_model_is_refused(body, says):
    with pytest.raises(MessageError, match=says):
        unpack(body, ORIGIN, "key")


def test_a_header_that_claims_a_giant_array_allocates_nothing():
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    member = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("params.npy", member)
        for name in ("applied", "meta"):
            array = io.BytesIO()
            np.save(array, arrays()[name])
            archive.writestr(f"{name}.npy", array.getvalue())
    with pytest.raises(MessageError, match="1099511627776"):
        unpack(file.getvalue(), ORIGIN, "key")


@pytest.mark.parametrize(
    "other", [replace(ORIGIN, run="run-2"), replace(ORIGIN, epoch=3), replace(ORIGIN, launch=1)]
)
def test_the_model_of_another_run_is_refused(other):
    with pytest.raises(MessageError, match="give every run its own id"):
        unpack(BODY, other, "key")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_refused(value):
    params = MODEL.params.copy()
    params[7] = value
    with pytest.raises(NotFiniteError, match="training diverged"):
        unpack(pack(ORIGIN, replace(MODEL, params=params)), ORIGIN, "key")


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(body):
    with pytest.raises(MessageError):
        unpack(body, ORIGIN, "key")


@given(position=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_does_not_matter(position, flip):
    body = bytearray(BODY)
    body[position] ^= flip
    try:
        found = unpack(bytes(body), ORIGIN, "key")
    except MessageError:
        return
    np.testing.assert_array_equal(found.params, MODEL.params)
    np.testing.assert_array_equal(found.applied, MODEL.applied)
