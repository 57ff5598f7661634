"""The digits, and the generated sets of the HIGGS and the Criteo shape."""

from __future__ import annotations

import time

import numpy as np
import pytest

from siren.errors import DatasetError, UnknownNameError, WorkloadError
from siren.workloads.datasets import load_splits
from siren.workloads.datasets.criteo import generate_clicks, hash_fields, integer_bins, load_criteo
from siren.workloads.datasets.digits import load_digits
from siren.workloads.datasets.higgs import generate_higgs, load_higgs


def test_digits_are_split_and_scaled():
    splits = load_digits()
    assert splits.train_features.shape == (1500, 64)
    assert splits.heldout_features.shape == (297, 64)
    assert splits.train_features.dtype == np.float32
    assert (splits.train_features.min(), splits.train_features.max()) == (0, 1)
    assert set(splits.heldout_labels) == set(range(10))
    np.testing.assert_array_equal(load_digits().heldout_labels, splits.heldout_labels)


@pytest.mark.parametrize("heldout", [0, 1797])
def test_digits_need_both_splits(heldout):
    with pytest.raises(DatasetError, match="heldout_samples must be 1 to 1796"):
        load_digits(heldout_samples=heldout)


def test_generated_higgs_has_the_shape_of_the_public_set():
    splits = load_higgs(samples=20_000, heldout_samples=5_000)
    assert splits.train_features.shape == (20_000, 28)
    assert splits.train_features.dtype == splits.train_labels.dtype == np.float32
    np.testing.assert_allclose(splits.train_features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(splits.train_features.std(axis=0), 1, atol=1e-3)
    assert 0.48 < splits.train_labels.mean() < 0.52
    assert np.isfinite(splits.heldout_features).all()


def test_generated_higgs_follows_its_seed_and_is_fast():
    np.testing.assert_array_equal(generate_higgs(100, 3), generate_higgs(100, 3))
    assert not np.array_equal(generate_higgs(100, 3), generate_higgs(100, 4))
    start = time.process_time()
    generate_higgs(400_000, 0)
    assert time.process_time() - start < 4


def test_derived_features_of_higgs_follow_nonlinearly_from_the_others():
    table = generate_higgs(4000, 0).astype(np.float64)
    low, derived = table[:, 1:22], table[:, 22:]
    design = np.c_[low, np.ones(len(low))]
    for column in derived.T:
        rest = column - design @ np.linalg.lstsq(design, column, rcond=None)[0]
        assert rest.var() > 0.05 * column.var()


@pytest.mark.parametrize(
    "settings", [{"samples": 0}, {"heldout_samples": 0}, {"samples": -1}, {"test_rows": -1}]
)
def test_impossible_sizes_of_higgs_are_refused(settings):
    with pytest.raises(DatasetError, match="samples"):
        load_higgs(**settings)


def test_generated_clicks_have_the_shape_of_the_challenge():
    splits = load_criteo(samples=20_000, heldout_samples=2_000, buckets=1000)
    assert splits.train_features.shape == (20_000, 39)
    assert splits.train_features.dtype == np.int32
    assert splits.train_features.flags.c_contiguous
    assert splits.train_labels.dtype == np.float32
    assert 0.2 < splits.train_labels.mean() < 0.35
    assert splits.train_features.min() >= 0
    assert splits.train_features.max() < 1000
    np.testing.assert_array_equal(
        load_criteo(samples=20_000, heldout_samples=2_000, buckets=1000).heldout_features,
        splits.heldout_features,
    )


def test_categories_follow_zipfs_law():
    values, _ = generate_clicks(200_000, 0)
    counts = np.bincount(values[:, -1].astype(np.int64))
    # exponent 1: rank 20 is a tenth as frequent as rank 2, up to the discretisation of the first ranks
    assert counts[1] / counts[19] == pytest.approx(10, rel=0.35)


def test_hashing_is_stable_and_separates_fields():
    values = np.zeros((1, 39), dtype=np.uint64)
    buckets = hash_fields(values, 1 << 20)
    np.testing.assert_array_equal(buckets[0, :3], hash_fields(values, 1 << 20)[0, :3])
    assert len(set(buckets[0])) == 39
    spread = np.bincount(hash_fields(np.arange(40_000, dtype=np.uint64)[:, None], 16)[:, 0], minlength=16)
    assert spread.min() > 2300


def test_the_hash_is_the_one_that_models_were_trained_with():
    def bucket(field: int, value: int) -> int:
        mask = (1 << 64) - 1
        key = (value + ((field + 1) << 40)) * 0x9E3779B97F4A7C15 & mask
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & mask
        key = (key ^ key >> 27) * 0x94D049BB133111EB & mask
        return (key ^ key >> 31) % 8192

    values = np.array([[0, 1], [2, (1 << 40) - 1]], dtype=np.uint64)
    expected = [[bucket(field, int(value)) for field, value in enumerate(row)] for row in values]
    assert hash_fields(values, 8192).tolist() == expected == [[2935, 1602], [1992, 6236]]


def test_integer_bins_rise_with_the_number():
    bins = integer_bins(np.array([-100, -3, -1, 0, 1, 2, 3, 10, 100, 10**9]))
    assert (np.diff(bins.astype(np.int64)) >= 0).all()
    assert len(set(bins.tolist())) == 9


@pytest.mark.parametrize("settings", [{"samples": 0}, {"heldout_samples": 0}, {"buckets": 1}])
def test_impossible_sizes_of_criteo_are_refused(settings):
    with pytest.raises(DatasetError, match="at least"):
        load_criteo(**settings)


def test_unknown_datasets_and_settings_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        load_splits("digit", {})
    with pytest.raises(
        WorkloadError, match=r"workload\.toml: dataset\.settings\.sampels: unexpected keyword"
    ):
        load_splits("higgs", {"sampels": 10}, folder=tmp_path)
    with pytest.raises(WorkloadError, match=r"dataset\.settings\.samples: input should be a valid integer"):
        load_splits("higgs", {"samples": "many"})
