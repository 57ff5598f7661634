from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from siren.errors import DatasetError
from siren.workloads.datasets import cache

GOOD, BAD = b"the data", b"not the data"
MD5 = hashlib.md5(GOOD).hexdigest()


class Source:
    """Gives what it is told to, in order, and counts."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def __call__(self) -> bytes:
        return self.answers.pop(0)


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "here"))
    assert cache.cache_folder() == tmp_path / "here"
    monkeypatch.delenv("SIREN_CACHE")
    assert cache.cache_folder().name == "siren"


def test_an_absent_file_is_fetched_once_and_kept(tmp_path):
    path = tmp_path / "deep" / "file"
    assert cache.verified(path, MD5, Source(GOOD)) == GOOD
    assert path.read_bytes() == GOOD
    assert cache.verified(path, MD5, Source()) == GOOD
    assert [child.name for child in path.parent.iterdir()] == ["file"]


def test_a_damaged_file_is_fetched_again_once(tmp_path, caplog):
    path = tmp_path / "file"
    path.write_bytes(BAD)
    assert cache.verified(path, MD5, Source(GOOD)) == GOOD
    assert path.read_bytes() == GOOD
    assert "does not match its MD5" in caplog.text


@pytest.mark.parametrize(("cached", "answers"), [(True, 1), (False, 2)])
def test_data_that_stays_damaged_is_refused_after_one_more_fetch(tmp_path, cached, answers):
    path = tmp_path / "file"
    if cached:
        path.write_bytes(BAD)
    source = Source(*[BAD] * answers)
    with pytest.raises(DatasetError, match="does not match its checksum"):
        cache.verified(path, MD5, source)
    assert source.answers == []
    assert not path.exists()


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "file"

    def killed() -> None:
        with cache.atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_dataset_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="SIREN_CACHE"):
        cache.write_atomically(tmp_path / "file" / "below", GOOD)


def test_progress_is_one_log_line_without_a_terminal(caplog, capsys):
    caplog.set_level(logging.INFO)
    with cache.progress_or_bar(None) as progress:
        for done in range(5):
            progress("fetching the file", done, 5)
    assert caplog.messages == ["fetching the file"]
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_stderr_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with cache.progress_or_bar(None) as progress:
        progress("fetching the file", 1, 2)
        progress("fetching the file", 2, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "fetching the file" in err


def test_progress_may_be_the_callers():
    seen: list[tuple[str, int, int]] = []
    with cache.progress_or_bar(lambda *step: seen.append(step)) as progress:
        progress("x", 1, 2)
    assert seen == [("x", 1, 2)]


def test_md5_is_pythons():
    assert cache.md5(Path(__file__).read_bytes()) == hashlib.md5(Path(__file__).read_bytes()).hexdigest()
