"""Records come back as the rows that were stored, whatever the shard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.worker import records
from siren.worker.messages import DataRef, MessageError
from siren.workloads.registry import load_workload
from siren.worlds import laws

RNG = np.random.default_rng(0)
SETS = {
    "bytes": (RNG.integers(0, 255, (50, 4, 2)).astype(np.uint8), RNG.integers(0, 10, 50)),
    "floats": (RNG.normal(size=(50, 3)).astype(np.float32), RNG.random(50).astype(np.float32)),
    "many classes": (RNG.normal(size=(50, 3)), np.arange(50, dtype=np.int64) * 1000),
    "indices": (RNG.integers(0, 1 << 20, (50, 5), dtype=np.int32), RNG.random(50).astype(np.float32)),
}


def reader(ref: DataRef, features, labels, asked=None):
    stored = dict(records.objects(ref, features, labels))

    def get_range(key, first, count):
        if asked is not None:
            asked.append((key, first, count))
        return stored[key][first : first + count]

    return get_range


@pytest.mark.parametrize("name", sorted(SETS))
@given(first=st.integers(0, 49), rows=st.integers(1, 50), per_object=st.integers(1, 60))
def test_a_shard_holds_its_rows(name, first, rows, per_object):
    features, labels = SETS[name]
    ref = replace(records.describe(features, labels), rows_per_object=per_object)
    found, found_labels = records.load(ref, first, rows, reader(ref, features, labels))
    index = (first + np.arange(rows)) % 50
    np.testing.assert_array_equal(found, features[index])
    np.testing.assert_array_equal(found_labels, labels[index])
    assert (found.dtype, found_labels.dtype) == (features.dtype, labels.dtype)
    assert found.flags.c_contiguous


def test_ranges_are_not_longer_than_allowed(monkeypatch):
    features, labels = SETS["bytes"]
    monkeypatch.setattr(records, "RANGE_BYTES", 30)
    ref, asked = replace(records.describe(features, labels), rows_per_object=20), []
    records.load(ref, 15, 40, reader(ref, features, labels, asked))
    assert max(count for _, _, count in asked) == 27  # three records of nine bytes
    assert sum(count for _, _, count in asked) == 40 * 9


def test_sizes_are_those_of_the_laws():
    assert (records.RANGE_BYTES, records.OBJECT_BYTES) == (laws.RANGE_BYTES, laws.OBJECT_BYTES)


def test_the_prefix_follows_the_content():
    features, labels = SETS["floats"]
    ref = records.describe(features, labels)
    assert ref == records.describe(features.copy(), labels.copy())
    changed = features.copy()
    changed[49, 2] += 1
    assert records.describe(changed, labels).prefix != ref.prefix
    assert DataRef.from_json(ref.to_json()) == ref


@pytest.mark.parametrize("name", ["softmax-digits", "logreg-higgs"])
def test_records_of_a_shipped_workload_have_the_size_it_states(name):
    workload = load_workload(name)
    data = workload.dataset
    ref = records.describe(data.train_features[:100], data.train_labels[:100])
    assert ref.record_bytes == workload.spec.cost.sample_bytes


def test_a_task_whose_records_do_not_add_up_is_refused():
    ref = replace(records.describe(*SETS["floats"]), record_bytes=17)
    with pytest.raises(MessageError, match="has 16 bytes, not 17"):
        records.record_dtype(ref)
