"""Movie reviews (Pang, Lee 2005, "sentence polarity dataset v1.0"): one sentence a line, for or against.

Not fetched: Cornell offers it as rt-polaritydata.tar.gz and states no licence.
"""

from __future__ import annotations

from pathlib import Path

from siren.errors import DatasetError
from siren.workloads.datasets.splits import Splits
from siren.workloads.datasets.texts import make_splits, split_words, without_repeats

FILES = {"rt-polarity.pos": 1, "rt-polarity.neg": 0}
"""The files and the label of their lines; 5,331 lines each."""


def load_movie_reviews(
    *, path: Path, samples: int = 9500, words: int = 4000, length: int = 56, seed: int = 0
) -> Splits:
    """Sentences as word numbers, uint16 (samples, length), labels float32, 1 for a favourable one.

    Sentences that are equal count once.

    Args:
        path: The folder that holds rt-polarity.pos and rt-polarity.neg.
        samples: Training sentences, drawn at random; the rest is held out.
        words: Size of the vocabulary, see `make_splits`.
        length: Words a sentence; the longest of the set has 56 (Kim 2014).
        seed: Seed of the draw.

    Raises:
        DatasetError: A file is missing or empty, or settings are out of range.
    """
    texts = [(split_words(line), label) for name, label in FILES.items() for line in _lines(path / name)]
    documents, labels = without_repeats(texts, max(length, 1))
    return make_splits(
        documents,
        labels,
        samples=samples,
        words=words,
        length=length,
        seed=seed,
        description=(
            f"movie reviews, {samples:,} + {len(documents) - samples:,} sentences of {path.name} "
            "(Pang, Lee 2005; no licence stated)"
        ),
    )


def _lines(file: Path) -> list[str]:
    """The lines of a file, which is in ISO 8859-1, without those that are blank."""
    try:
        lines = file.read_bytes().decode("latin-1").split("\n")
    except OSError as error:
        raise DatasetError(
            f"cannot read {file}: {error.strerror}; unpack rt-polaritydata.tar.gz and set "
            "dataset.settings.path to the folder with rt-polarity.pos and rt-polarity.neg"
        ) from error
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise DatasetError(f"{file} has no lines: use the original file, one sentence a line")
    return kept
