"""Texts as rows of word numbers: splitting into words, vocabulary, padding, and a held-out split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from siren.errors import DatasetError
from siren.workloads.datasets.splits import Splits

PADDING, UNKNOWN = 0, 1
RESERVED = 2
"""Numbers that stand for no word of the vocabulary."""

MAX_WORDS = 1 << 16
"""Word numbers are stored as uint16."""

_SEPARATORS = re.compile(r"[^a-z0-9(),!?'`]")
_CONTRACTIONS = re.compile(r"('s|'ve|n't|'re|'d|'ll)")
_MARKS = re.compile(r"([(),!?])")

Document = tuple[str, ...]
"""The words of a text."""


def split_words(text: str) -> Document:
    """The words of a text in lower case, as Kim (2014) splits them.

    All but letters, digits, quotes and `( ) , ! ?` separates; those five marks are words, and before
    `'s`, `'ve`, `n't`, `'re`, `'d` and `'ll` a word begins (`clean_str` in github.com/yoonkim/CNN_sentence).
    """
    text = _SEPARATORS.sub(" ", text.lower())
    return tuple(_MARKS.sub(r" \1 ", _CONTRACTIONS.sub(r" \1", text)).split())


def without_repeats(
    texts: Iterable[tuple[Document, int]], length: int
) -> tuple[list[Document], NDArray[np.float32]]:
    """Texts cut to `length` words and their labels, float32, each different cut text once.

    Where equal ones have different labels, the first one's stays. Without this a held-out text could
    be one that was trained on.

    Args:
        texts: The words of each text and its label, 0 or 1.
        length: Words a text.
    """
    label_of: dict[Document, int] = {}
    for document, label in texts:
        label_of.setdefault(document[:length], label)
    return list(label_of), np.array(list(label_of.values()), dtype=np.float32)


def make_splits(
    documents: Sequence[Document],
    labels: NDArray[np.float32],
    *,
    samples: int,
    words: int,
    length: int,
    seed: int,
    description: str = "",
) -> Splits:
    """Binary texts as word numbers, uint16 (samples, length), with a random held-out split.

    The vocabulary is the most frequent words of the training texts, equally frequent ones in
    alphabetical order; 0 fills short texts up, 1 stands for all other words.

    Args:
        documents: The words of each text; those beyond `length` are left out.
        labels: float32 in {0, 1}, one a text.
        samples: Training texts; the rest is held out.
        words: Word numbers, with those of padding and unknown words.
        length: Word numbers a text.
        seed: Seed of the split.
        description: See `Dataset`.

    Raises:
        DatasetError: The numbers are out of range, or nothing would be held out.
    """
    if length < 1 or not RESERVED < words <= MAX_WORDS:
        raise DatasetError(
            f"length must be at least 1 and words {RESERVED + 1} to {MAX_WORDS:,}, "
            f"not {length} and {words:,}: correct them in dataset.settings"
        )
    if not 0 < samples < len(documents):
        raise DatasetError(
            f"samples must be 1 to {len(documents) - 1:,} of the {len(documents):,} texts, so that some are "
            f"held out, not {samples:,}: correct it in dataset.settings"
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    train, heldout = order[:samples], order[samples:]
    numbers = _vocabulary([documents[i] for i in train], words)
    features = np.full((len(documents), length), PADDING, dtype=np.uint16)
    for row, document in enumerate(documents):
        cut = document[:length]
        features[row, : len(cut)] = [numbers.get(word, UNKNOWN) for word in cut]
    return Splits(features[train], labels[train], features[heldout], labels[heldout], 2, description)


def _vocabulary(documents: Sequence[Document], words: int) -> dict[str, int]:
    counts = Counter(word for document in documents for word in document)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ranked[: words - RESERVED], start=RESERVED)}
