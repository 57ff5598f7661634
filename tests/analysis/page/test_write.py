"""The file: self-contained, safe with any text, left by every run and never in its way."""

from __future__ import annotations

import html.parser
import json
import logging
import re

import pytest

from siren.analysis.page import write
from siren.analysis.page.document import run_document
from siren.analysis.page.html import page
from siren.analysis.page.source import read_run
from siren.analysis.page.write import REPORT, leave_report, write_report
from siren.analysis.run_folder import EVENTS, RunFolder
from siren.errors import RunFolderError
from siren.types import StopReason
from tests.analysis import samples
from tests.analysis.page import folders

RECORDS = samples.epochs(5)


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        if self.lasttag == "script" and self.found[-1][0] == "script":
            self.scripts.append(data)


def page_of(path, **changes) -> str:
    folders.ended(path, RECORDS, **changes)
    return page(run_document(read_run(path)))


def test_the_page_asks_for_nothing_and_allows_itself_nothing_else(tmp_path):
    text = page_of(tmp_path / "run")
    elements = Elements(text).found
    policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    addresses = [a.get("src") or a.get("href") for _, a in elements if a.get("src") or a.get("href")]
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\(", text)


def test_only_a_served_page_may_ask_its_own_server(tmp_path):
    folders.ended(tmp_path / "run", RECORDS)
    text = page(run_document(read_run(tmp_path / "run")), live=True)
    assert "connect-src 'self'" in text
    assert 'data-events="events"' in text


def test_the_document_is_in_the_page_and_no_text_can_leave_it(tmp_path):
    hostile = "</script><script>alert(1)</script><!-- & \u2028"
    text = page_of(tmp_path / "run", title=hostile)
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert json.loads(elements.scripts[0])["heading"] == "</script><script>alert(1)</script><!-- &"


def test_without_scripts_the_page_says_how_the_run_went(tmp_path):
    text = page_of(tmp_path / "run")
    said = text.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "Reached its target, a held-out loss of 0.08, after 5 epochs" in said


def test_the_file_is_whole_or_not_there(tmp_path):
    folders.ended(tmp_path / "run", RECORDS)
    run = read_run(tmp_path / "run")
    write_report(run, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page(run_document(run))
    with pytest.raises(RunFolderError, match="choose another file with --out"):
        write_report(run, tmp_path / "missing" / "page.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "run"]


def test_a_run_leaves_the_page_that_its_folder_gives(tmp_path):
    summary = folders.ended(tmp_path / "run", RECORDS)
    folder = RunFolder.open(tmp_path / "run")
    leave_report(folder, RECORDS, summary)
    left = (folder.path / REPORT).read_text()
    assert left == page(run_document(read_run(folder.path)))


def test_a_run_that_breaks_off_leaves_the_page_of_what_is_on_disk(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folders.hold(folder)
    folders.run_epochs(folder, RECORDS[:2])
    leave_report(folder, RECORDS, None)
    text = (folder.path / REPORT).read_text()
    assert "stopped without an end" in text
    assert "after 2 epochs" in text


@pytest.mark.parametrize("break_it", ["folder", "code"])
def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog, break_it):
    summary = folders.ended(tmp_path / "run", RECORDS, StopReason.INTERRUPTED)
    folder = RunFolder.open(tmp_path / "run")
    if break_it == "folder":
        (folder.path / REPORT).mkdir()
    else:
        monkeypatch.setattr(write, "run_document", lambda run: 1 / 0)
    with caplog.at_level(logging.WARNING):
        leave_report(folder, RECORDS, summary)
    assert "python -m siren.report" in caplog.text


def test_damaged_events_are_a_warning_too(tmp_path, caplog):
    folder = folders.begun(tmp_path / "run")
    (folder.path / EVENTS).write_text("no json\n")
    leave_report(folder, (), None)
    assert "events.jsonl, line 1" in caplog.text
