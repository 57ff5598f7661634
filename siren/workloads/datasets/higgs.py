"""HIGGS (Baldi, Sadowski, Whiteson 2014): the public file, or a generated set of the same shape.

Both have 28 features, 21 measured and 7 derived from them nonlinearly, and label 1 for the signal.
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

FEATURES = 28
TEST_ROWS = 500_000
"""The last 500,000 rows are the test set (UCI repository, HIGGS, attribute information)."""

Matrix = NDArray[np.float32]


def load_higgs(
    *,
    path: Path | None = None,
    samples: int = 384_000,
    heldout_samples: int = 50_000,
    seed: int = 0,
    test_rows: int = TEST_ROWS,
) -> Splits:
    """HIGGS with standardised features, float32 (samples, 28), labels float32 in {0, 1}.

    Args:
        path: The public HIGGS.csv or HIGGS.csv.gz; without it the set is generated.
        samples: Training rows; of a file its first ones, 0 for all but the test set.
        heldout_samples: Held-out rows; of a file the first of its test set, 0 for all of it.
        seed: Seed of the generated set.
        test_rows: How many rows at the end of the file are its test set.

    Raises:
        DatasetError: The file is missing, too short, or not in the format of HIGGS.
    """
    if min(samples, heldout_samples, test_rows) < 0:
        raise DatasetError("higgs: samples, heldout_samples and test_rows must not be negative")
    if path is None:
        if not samples or not heldout_samples:
            raise DatasetError("higgs: a generated set needs samples and heldout_samples above 0")
        table = generate_higgs(samples + heldout_samples, seed)
        description = (
            f"generated set of the HIGGS shape, {samples:,} + {heldout_samples:,} rows (seed {seed})"
        )
    else:
        table, samples = _cached_table(Path(path), samples, heldout_samples, test_rows)
        description = (
            f"HIGGS, {samples:,} + {len(table) - samples:,} rows of {Path(path).name} "
            "(Baldi, Sadowski, Whiteson; CC BY 4.0)"
        )
    labels, features = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1:])
    mean = features[:samples].mean(axis=0, dtype=np.float64)
    spread = features[:samples].std(axis=0, dtype=np.float64)
    features -= mean.astype(np.float32)
    features /= np.where(spread > 0, spread, 1).astype(np.float32)
    return Splits(
        features[:samples], labels[:samples], features[samples:], labels[samples:], 2, description
    )  # fmt: skip


def generate_higgs(rows: int, seed: int) -> Matrix:
    """Rows of label and 28 features in the column order of HIGGS, float32 (rows, 29).

    A lepton, missing energy and four jets get momenta and angles; masses of pairs and triples
    follow from them as for massless particles, m^2 = 2 p1 p2 (cosh d_eta - cos d_phi) summed over
    pairs. The signal is harder, more central and has closer, better tagged b-jets. It is made to
    train like HIGGS, not to be physics: constants were chosen so that logistic regression ends at
    about the public set's loss of 0.64 and 64% accuracy.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows).astype(np.float32)
    signal = labels[:, None]
    objects = 6  # lepton, missing energy, jets 1-4
    momentum = 0.25 + rng.standard_gamma(2.2, (rows, objects), dtype=np.float32) * np.float32(0.34)
    momentum *= 1 + signal * np.array([0.02, 0.09, 0.12, 0.08, 0.05, 0.02], dtype=np.float32)
    eta = rng.standard_normal((rows, objects), dtype=np.float32) * (1 - np.float32(0.12) * signal)
    phi = rng.random((rows, objects), dtype=np.float32) * np.float32(2 * np.pi) - np.float32(np.pi)
    near = 1 - np.float32(0.35) * signal[:, 0] * rng.random(rows, dtype=np.float32)
    phi[:, 3] = phi[:, 2] + (phi[:, 3] - phi[:, 2]) * near  # the b-jets of a signal are closer
    tagged = rng.random((rows, 4), dtype=np.float32) < np.float32(0.32) + np.float32(0.11) * signal
    tags = tagged * np.array([2.173, 2.215, 2.548, 3.102], dtype=np.float32)

    def square_mass(*parts: int) -> NDArray[np.float32]:
        total = np.zeros(rows, dtype=np.float32)
        for i, j in itertools.combinations(parts, 2):
            angle = np.cosh(eta[:, i] - eta[:, j]) - np.cos(phi[:, i] - phi[:, j])
            total += 2 * momentum[:, i] * momentum[:, j] * angle
        return total

    groups = ((4, 5), (3, 4, 5), (0, 1), (0, 1, 2), (2, 3), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5))
    masses = [np.log1p(np.sqrt(square_mass(*parts))) for parts in groups]
    jets = [
        column for j in range(4) for column in (momentum[:, j + 2], eta[:, j + 2], phi[:, j + 2], tags[:, j])
    ]
    columns = [labels, momentum[:, 0], eta[:, 0], phi[:, 0], momentum[:, 1], phi[:, 1], *jets, *masses]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def _cached_table(path: Path, samples: int, heldout: int, test_rows: int) -> tuple[Matrix, int]:
    """The wanted rows of the file, parsed once; and how many of them are for training."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror}; set dataset.settings.path to HIGGS.csv.gz"
        ) from error
    key = f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{samples}|{heldout}|{test_rows}"
    cached = cache_folder() / "higgs" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if cached.is_file():
        try:
            table: Matrix = np.load(cached, allow_pickle=False)
            return table, len(table) - (heldout or test_rows)
        except (OSError, ValueError):
            logger.warning("%s is damaged: parsing %s again", cached, path)
    table = _parse(path, samples, heldout, test_rows)
    with atomic_path(cached) as temporary, temporary.open("wb") as file:
        np.save(file, table)
    return table, len(table) - (heldout or test_rows)


def _parse(path: Path, samples: int, heldout: int, test_rows: int) -> Matrix:
    logger.info("parsing %s: this is done once", path)
    try:
        with open_binary(path) as file:
            rows = sum(1 for _ in file)
        train_rows = rows - test_rows
        if train_rows < max(samples, 1) or heldout > test_rows:
            raise DatasetError(
                f"{path} has {rows:,} rows, {test_rows:,} of them the test set: too few for {samples:,} "
                f"training and {heldout:,} held-out rows; lower samples in dataset.settings"
            )
        wanted, tested = samples or train_rows, heldout or test_rows
        table = np.empty((wanted + tested, FEATURES + 1), dtype=np.float32)
        with open_binary(path) as file:
            done = 0
            for lines in blocks(itertools.islice(file, wanted)):
                done += _parse_block(path, lines, done + 1, table[done : done + len(lines)])
            tail = itertools.islice(file, train_rows - wanted, train_rows - wanted + tested)
            for lines in blocks(tail):
                first = done + 1 + train_rows - wanted
                done += _parse_block(path, lines, first, table[done : done + len(lines)])
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot read {path}: {error}; use the original HIGGS.csv.gz") from error
    return table


def _parse_block(path: Path, lines: list[bytes], first: int, out: Matrix) -> int:
    try:
        values = np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
        if values.shape != out.shape:
            raise ValueError(f"{values.shape[1]} columns and {values.shape[0]:,} rows")
        if not np.isfinite(values).all() or not np.isin(values[:, 0], (0, 1)).all():
            raise ValueError("labels must be 0 or 1 and features finite")
    except ValueError as error:
        raise DatasetError(
            f"{path}, in the {len(lines):,} lines from line {first:,}: {error}; a line of HIGGS is a label "
            f"and {FEATURES} numbers, separated by commas"
        ) from error
    out[:] = values
    return len(lines)
