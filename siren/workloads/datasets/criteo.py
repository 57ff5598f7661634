"""Click logs in the format of the Criteo challenge, or a generated set of the same shape.

13 integer and 26 categorical fields, each hashed with its field number into one of `buckets`
buckets: a row of features is the 39 buckets that are on.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siren.errors import DatasetError
from siren.workloads.datasets.cache import atomic_path, cache_folder
from siren.workloads.datasets.lines import blocks, open_binary
from siren.workloads.datasets.splits import Splits

logger = logging.getLogger(__name__)

INTEGERS, CATEGORIES = 13, 26
FIELDS = INTEGERS + CATEGORIES
_MISSING = (1 << 40) - 1


def load_criteo(
    *,
    path: Path | None = None,
    samples: int = 200_000,
    heldout_samples: int = 40_000,
    buckets: int = 8192,
    seed: int = 0,
) -> Splits:
    """A click log: features int32 (samples, 39) of bucket numbers, labels float32 in {0, 1}.

    Args:
        path: train.txt (or train.txt.gz) of the Criteo challenge; without it the set is generated.
        samples: Training rows: the first of a file.
        heldout_samples: Held-out rows: the next ones, later in time than the training rows.
        buckets: Number of hash buckets.
        seed: Seed of the generated set.

    Raises:
        DatasetError: The file is missing, too short, or not in the format.
    """
    if min(samples, heldout_samples) < 1 or buckets < 2:
        raise DatasetError("criteo: samples and heldout_samples must be at least 1, buckets at least 2")
    rows = samples + heldout_samples
    if path is None:
        values, labels = generate_clicks(rows, seed)
        description = f"generated Zipf click log, {samples:,} + {heldout_samples:,} rows (seed {seed})"
    else:
        values, labels = _cached_log(Path(path), rows)
        description = (
            f"Criteo click log, {samples:,} + {heldout_samples:,} rows of {Path(path).name} (Criteo's terms)"
        )
    features = hash_fields(values, buckets)
    return Splits(
        features[:samples], labels[:samples], features[samples:], labels[samples:], 2, description
    )  # fmt: skip


def hash_fields(values: NDArray[np.uint64], buckets: int) -> NDArray[np.int32]:
    """The bucket of every (field number, value) pair, int32, the shape of `values`.

    The mixer is the finaliser of splitmix64 (Steele, Lea, Flood 2014) after a multiplication by its
    increment: stable over machines and versions.

    Args:
        values: uint64, (rows, fields), each below 2^40.
        buckets: Number of buckets.
    """
    keys = values + (np.arange(1, values.shape[1] + 1, dtype=np.uint64) << np.uint64(40))
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return (keys % np.uint64(buckets)).astype(np.int32)


def integer_bins(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Integers as categories: squared logarithm above 2, themselves below (3 Idiots, Kaggle 2014)."""
    large = np.log(np.maximum(numbers, 3).astype(np.float64)) ** 2
    return np.where(numbers > 2, 16 + large.astype(np.int64), np.maximum(numbers, -3) + 3).astype(np.uint64)


def generate_clicks(rows: int, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Field values, uint64 (rows, 39), and labels, float32 (rows,), of a generated click log.

    Values of a categorical field follow Zipf's law with exponent 1 over 10 to 10,000 values,
    integers are log-uniform; every value has its own weight in a logistic model of the click,
    whose rate is about 25% as in the Criteo challenge's set.
    """
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(10, 10_000, CATEGORIES).astype(np.int64)
    values = np.empty((rows, FIELDS), dtype=np.uint64)
    score = np.full(rows, -1.45, dtype=np.float32)
    for field in range(INTEGERS):
        numbers = np.expm1(rng.random(rows, dtype=np.float32) * (3 + field * 0.4)).astype(np.int64)
        bins = integer_bins(numbers)
        values[:, field] = bins
        slope = rng.normal(0, 0.3)
        weights = slope * np.sin(np.arange(int(bins.max()) + 1) / 6 + field)
        score += weights.astype(np.float32)[bins]
    for field, size in enumerate(sizes, start=INTEGERS):
        ranks = (np.exp(rng.random(rows, dtype=np.float32) * np.log(size)) - 1).astype(np.int64)
        values[:, field] = ranks
        score += rng.normal(0, 0.35, size + 1).astype(np.float32)[ranks]
    labels = (rng.random(rows, dtype=np.float32) < 0.5 + 0.5 * np.tanh(score / 2)).astype(np.float32)
    return values, labels


def _cached_log(path: Path, rows: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """The first rows of the file, parsed once."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror}; set dataset.settings.path to the challenge's train.txt"
        ) from error
    key = f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{rows}"
    cached = cache_folder() / "criteo" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if cached.is_file():
        try:
            table: NDArray[np.uint64] = np.load(cached, allow_pickle=False)
            return np.ascontiguousarray(table[:, 1:]), table[:, 0].astype(np.float32)
        except (OSError, ValueError):
            logger.warning("%s is damaged: parsing %s again", cached, path)
    table = _parse(path, rows)
    with atomic_path(cached) as temporary, temporary.open("wb") as file:
        np.save(file, table)
    return np.ascontiguousarray(table[:, 1:]), table[:, 0].astype(np.float32)


def _parse(path: Path, rows: int) -> NDArray[np.uint64]:
    logger.info("parsing %s: this is done once", path)
    table = np.empty((rows, FIELDS + 1), dtype=np.uint64)
    done = 0
    try:
        with open_binary(path) as file:
            for lines in blocks(itertools.islice(file, rows)):
                table[done : done + len(lines)] = _parse_block(path, lines, done + 1)
                done += len(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot read {path}: {error}; use the challenge's original train.txt") from error
    if done < rows:
        raise DatasetError(
            f"{path} has {done:,} rows, {rows:,} are asked for: "
            "lower samples or heldout_samples in dataset.settings"
        )
    return table


def _parse_block(path: Path, lines: list[bytes], first: int) -> NDArray[np.uint64]:
    labels = np.empty(len(lines), dtype=np.uint64)
    numbers = np.empty((len(lines), INTEGERS), dtype=np.int64)
    absent = np.zeros((len(lines), INTEGERS), dtype=bool)
    categories = np.empty((len(lines), CATEGORIES), dtype=np.uint64)
    for row, line in enumerate(lines):
        fields = line.rstrip(b"\r\n").split(b"\t")
        try:
            if len(fields) != FIELDS + 1:
                raise ValueError(f"{len(fields)} fields")
            labels[row] = (b"0", b"1").index(fields[0])
            absent[row] = [not text for text in fields[1 : INTEGERS + 1]]
            numbers[row] = [int(text or b"0") for text in fields[1 : INTEGERS + 1]]
            categories[row] = [int(text, 16) if text else _MISSING for text in fields[INTEGERS + 1 :]]
        except (ValueError, OverflowError) as error:
            raise DatasetError(
                f"{path}, line {first + row:,}: {error}; a line is a label 0 or 1, {INTEGERS} integers and "
                f"{CATEGORIES} hexadecimal categories, separated by tabs; fields may be empty"
            ) from error
    integers = np.where(absent, np.uint64(_MISSING), integer_bins(numbers))
    return np.hstack([labels[:, None], integers, categories])
