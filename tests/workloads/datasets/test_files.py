"""The real loaders, on small files in the formats of the public sets."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from siren.errors import DatasetError
from siren.workloads.datasets import load_splits
from siren.workloads.datasets.criteo import _MISSING, hash_fields, integer_bins, load_criteo
from siren.workloads.datasets.higgs import load_higgs

ROWS = 30


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def higgs_table():
    rng = np.random.default_rng(0)
    return np.c_[rng.integers(0, 2, ROWS), rng.normal(3, 2, (ROWS, 28))].astype(np.float32)


def higgs_text(table: np.ndarray) -> str:
    return "".join(",".join(f"{value:.18e}" for value in row) + "\n" for row in table)


def standardised(table: np.ndarray, training: int) -> np.ndarray:
    features = table[:, 1:].astype(np.float64)
    return (features - features[:training].mean(axis=0)) / features[:training].std(axis=0)


@pytest.mark.parametrize("name", ["HIGGS.csv", "HIGGS.csv.gz"])
@pytest.mark.parametrize(
    ("samples", "heldout", "train", "test"),
    [(0, 0, range(20), range(20, 30)), (12, 4, range(12), range(20, 24)), (20, 0, range(20), range(20, 30))],
)
def test_higgs_takes_its_first_rows_and_tests_on_its_last(
    tmp_path, higgs_table, monkeypatch, name, samples, heldout, train, test
):
    monkeypatch.setattr("siren.workloads.datasets.lines.BLOCK_ROWS", 7)
    text = higgs_text(higgs_table).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    splits = load_higgs(path=tmp_path / name, samples=samples, heldout_samples=heldout, test_rows=10)
    chosen = higgs_table[[*train, *test]]
    expected = standardised(chosen, len(train))
    np.testing.assert_allclose(splits.train_features, expected[: len(train)], atol=1e-5)
    np.testing.assert_allclose(splits.heldout_features, expected[len(train) :], atol=1e-5)
    np.testing.assert_array_equal(splits.train_labels, higgs_table[list(train), 0])
    np.testing.assert_array_equal(splits.heldout_labels, higgs_table[list(test), 0])


def test_higgs_is_parsed_once_and_a_path_is_relative_to_the_workload(tmp_path, higgs_table, monkeypatch):
    (tmp_path / "HIGGS.csv").write_text(higgs_text(higgs_table))
    settings = {"path": "HIGGS.csv", "samples": 20, "heldout_samples": 10, "test_rows": 10}
    first = load_splits("higgs", settings, folder=tmp_path)
    assert "CC BY" in first.description
    with monkeypatch.context() as patch:
        patch.setattr("siren.workloads.datasets.higgs._parse", None)
        again = load_splits("higgs", settings, folder=tmp_path)
    np.testing.assert_array_equal(first.train_features, again.train_features)
    (cached,) = (tmp_path / "cache" / "higgs").iterdir()
    cached.write_bytes(cached.read_bytes()[:50])
    np.testing.assert_array_equal(
        load_splits("higgs", settings, folder=tmp_path).train_features, first.train_features
    )


def test_an_edited_higgs_file_is_parsed_again(tmp_path, higgs_table):
    path = tmp_path / "HIGGS.csv"
    path.write_text(higgs_text(higgs_table))
    load_higgs(path=path, samples=0, heldout_samples=0, test_rows=10)
    path.write_text(higgs_text(higgs_table[:25]))
    assert len(load_higgs(path=path, samples=0, heldout_samples=0, test_rows=10).train_labels) == 15


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace(b",", b";", 3), "from line 1"),
        (lambda text: text + b"1.0,2.0\n", "from line"),
        (lambda text: b"2" + text[1:], "labels must be 0 or 1"),
        (lambda text: b"nan" + text[text.index(b",") :], "labels must be 0 or 1 and features finite"),
        (lambda text: text[:-200], "from line"),
        (lambda text: text[:3000], "too few"),
        (lambda text: b"", "too few"),
    ],
)
def test_a_damaged_higgs_file_is_refused(tmp_path, higgs_table, change, says):
    path = tmp_path / "HIGGS.csv"
    path.write_bytes(change(higgs_text(higgs_table).encode()))
    with pytest.raises(DatasetError, match=says):
        load_higgs(path=path, samples=0, heldout_samples=0, test_rows=10)


@pytest.mark.parametrize("load", [load_higgs, load_criteo])
def test_a_missing_or_truncated_archive_is_refused(tmp_path, load):
    path = tmp_path / "data.gz"
    with pytest.raises(DatasetError, match=r"cannot read .*data\.gz"):
        load(path=path)
    path.write_bytes(gzip.compress(np.random.default_rng(0).bytes(100_000))[:-5000])
    with pytest.raises(DatasetError, match=r"data\.gz"):
        load(path=path)
    path.write_bytes(b"not an archive")
    with pytest.raises(DatasetError, match=r"data\.gz"):
        load(path=path)


def click(label: int, integers: list[int | None], categories: list[int | None]) -> bytes:
    fields = [str(label), *("" if n is None else str(n) for n in integers)]
    fields += ["" if n is None else f"{n:08x}" for n in categories]
    return "\t".join(fields).encode() + b"\n"


@pytest.fixture
def clicks():
    rng = np.random.default_rng(0)
    lines, values, labels = [], [], []
    for _ in range(ROWS):
        integers = [None if rng.random() < 0.2 else int(rng.integers(-3, 5000)) for _ in range(13)]
        categories = [None if rng.random() < 0.1 else int(rng.integers(1 << 32)) for _ in range(26)]
        labels.append(int(rng.integers(2)))
        lines.append(click(labels[-1], integers, categories))
        bins = [_MISSING if n is None else int(integer_bins(np.array([n]))[0]) for n in integers]
        values.append(bins + [_MISSING if n is None else n for n in categories])
    return b"".join(lines), np.array(values, dtype=np.uint64), np.array(labels)


@pytest.mark.parametrize("name", ["train.txt", "train.txt.gz"])
def test_criteo_takes_its_first_rows_and_tests_on_the_next(tmp_path, clicks, monkeypatch, name):
    monkeypatch.setattr("siren.workloads.datasets.lines.BLOCK_ROWS", 7)
    text, values, labels = clicks
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    splits = load_criteo(path=path, samples=20, heldout_samples=5, buckets=512)
    expected = hash_fields(values, 512)
    np.testing.assert_array_equal(splits.train_features, expected[:20])
    np.testing.assert_array_equal(splits.heldout_features, expected[20:25])
    np.testing.assert_array_equal(splits.train_labels, labels[:20])
    np.testing.assert_array_equal(splits.heldout_labels, labels[20:25])
    assert splits.train_features.dtype == np.int32


def test_criteo_is_parsed_once(tmp_path, clicks, monkeypatch):
    path = tmp_path / "train.txt"
    path.write_bytes(clicks[0])
    first = load_criteo(path=path, samples=20, heldout_samples=10)
    with monkeypatch.context() as patch:
        patch.setattr("siren.workloads.datasets.criteo._parse", None)
        again = load_criteo(path=path, samples=20, heldout_samples=10)
    np.testing.assert_array_equal(first.train_features, again.train_features)
    (cached,) = (tmp_path / "cache" / "criteo").iterdir()
    cached.write_bytes(b"damaged")
    again = load_criteo(path=path, samples=20, heldout_samples=10)
    np.testing.assert_array_equal(first.train_labels, again.train_labels)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-30], "line 30: .* fields"),
        (lambda text: b"2" + text[1:], "line 1: .*a line is a label 0 or 1"),
        (lambda text: text.replace(b"\n", b"\textra\n", 1), "line 1: 41 fields"),
        (lambda text: b"1\tmany" + text[text.index(b"\t", 3) :], "line 1: invalid literal"),
        (lambda text: b"1\t" + b"9" * 30 + text[text.index(b"\t", 3) :], "line 1: "),
        (lambda text: text[:200], "a line is a label"),
        (lambda text: b"".join(text.splitlines(keepends=True)[:29]), "has 29 rows, 30 are asked for"),
    ],
)
def test_a_damaged_criteo_file_is_refused(tmp_path, clicks, change, says):
    path = tmp_path / "train.txt"
    path.write_bytes(change(clicks[0]))
    with pytest.raises(DatasetError, match=says):
        load_criteo(path=path, samples=20, heldout_samples=10)
