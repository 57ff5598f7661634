"""The page in a real browser: complete, quiet, readable on any screen, by keyboard and by ear."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from siren.analysis import _format
from siren.analysis.page.source import read_run
from siren.analysis.page.write import write_report
from siren.analysis.run_folder import SUMMARY
from siren.types import StopReason
from tests.analysis import samples
from tests.analysis.page import folders
from tests.analysis.page.views import CONTRASTS, PHONE, WIDTHS, view

CHARTS = ("loss-time", "loss-dollars", "functions", "memory", "time", "budget", "bill")
HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b> & " + "long" * 40


def hard(record):
    """An epoch whose texts are hostile, and whose loss is no number."""
    report = dataclasses.replace(record.status.report, loss=math.nan, throttles=3)
    decision = dataclasses.replace(record.decision, reason=HOSTILE)
    return dataclasses.replace(
        record, decision=decision, status=dataclasses.replace(record.status, report=report)
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name: `plain` of 24 epochs, `empty`, `long` of 120, and `hard`, which is hostile."""
    root = tmp_path_factory.mktemp("pages")
    few = samples.epochs(3)
    runs = {
        "plain": (samples.epochs(24), StopReason.TARGET_REACHED, {}),
        "empty": ((), StopReason.PLATFORM_FAILURE, {}),
        "long": (samples.epochs(120, decay=0.05), StopReason.LIMIT_REACHED, {}),
        "hard": ((*few[:2], hard(few[2])), StopReason.DIVERGED, {"title": HOSTILE, "notes": (HOSTILE,)}),
    }
    for name, (records, reason, changes) in runs.items():
        folders.ended(root / name, records, reason, **changes)
        write_report(read_run(root / name), root / f"{name}.html")
    return {name: (root / f"{name}.html").as_uri() for name in runs}, root


@pytest.mark.parametrize("name", ["plain", "empty", "long", "hard"])
def test_it_loads_offline_without_a_word_or_a_request(browser, pages, name):
    addresses, _ = pages
    with view(browser, addresses[name]) as shown:
        shown.open_all()
        assert shown.page.locator("h1").is_visible()
        assert shown.said == []
        assert shown.asked == [addresses[name]]


def test_it_shows_the_numbers_of_the_summary(browser, pages):
    addresses, root = pages
    summary = json.loads((root / "plain" / SUMMARY).read_text())
    with view(browser, addresses["plain"]) as shown:
        facts = dict(zip(shown.texts(".facts dt"), shown.texts(".facts .value"), strict=True))
        assert facts == {
            "Held-out loss": _format.loss(summary["final_loss"]),
            "Accuracy": _format.percent(summary["final_accuracy"]),
            "Time": _format.seconds(summary["duration_s"]),
            "Cost": _format.dollars(summary["cost_usd"]),
            "Epochs": str(summary["epochs"]),
        }
        rows = shown.page.locator("#chart-bill tbody tr")
        bill = {
            row.locator("th").text_content(): row.locator("td").first.text_content() for row in rows.all()
        }
        for item, usd in summary["bill"].items():
            assert (item.replace("_", " ") in bill) == (usd > 0)
        assert bill["all"] == f"${summary['cost_usd']:,.6f}"
        assert shown.texts("#chart-loss-time .last") == [_format.loss(summary["final_loss"])]


def test_every_chart_draws_every_epoch(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["plain"]) as shown:
        page = shown.page
        assert page.locator("#chart-loss-time circle.dot").count() == 25
        assert page.locator("#chart-functions path.line").get_attribute("d").count("L") == 2 * 24 - 1
        bars = page.locator("#chart-time path.bar")
        assert bars.count() == 7
        assert all(bar.get_attribute("d").count("M") == 24 for bar in bars.all())
        assert page.locator("#chart-bill rect.bar").count() == 3
        # The curve falls, and time goes to the right.
        dots = [
            (float(d.get_attribute("cx")), float(d.get_attribute("cy")))
            for d in page.locator("#chart-loss-time .dot").all()
        ]
        assert [x for x, _ in dots] == sorted(x for x, _ in dots)
        assert dots[-1][1] > dots[0][1] + 100


def test_every_chart_has_a_name_a_sentence_and_a_table(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["plain"]) as shown:
        page = shown.page
        assert page.locator("figure").count() == len(CHARTS)
        for chart in CHARTS:
            figure = page.locator(f"#chart-{chart}")
            title, sentence = figure.locator("h3").text_content(), figure.locator("figcaption").text_content()
            assert len(sentence) > 20
            # As the browser computes it for a screen reader.
            assert figure.get_by_role("img", name=f"{title} {sentence}", exact=True).count() == 1
            assert page.get_by_role("figure", name=title, exact=True).count() == 1
            figure.locator("summary").click()
            table = figure.get_by_role("table", name=title, exact=True)
            assert table.get_by_role("columnheader").count() >= 3
            assert table.get_by_role("rowheader").count() in (24, 25, 4)


def test_headings_and_landmarks_lead_through_the_page(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["plain"]) as shown:
        page = shown.page
        assert page.get_by_role("main").count() == 1
        assert page.get_by_role("heading", level=1).count() == 1
        sections = page.get_by_role("heading", level=2).all_text_contents()
        assert sections == ["Loss", "What each epoch ran on", "Time", "Money", "Decisions", "This run"]
        assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("name", ["plain", "empty", "long", "hard"])
def test_a_phone_never_scrolls_sideways(browser, pages, name):
    addresses, _ = pages
    with view(browser, addresses[name], viewport=PHONE) as shown:
        for opened in (False, True):
            if opened:
                shown.open_all()
            widths = shown.page.evaluate(WIDTHS)
            assert widths["out"] == []
            assert widths["page"] == widths["screen"] == 360


@pytest.mark.parametrize(
    ("name", "scheme"), [("plain", "light"), ("plain", "dark"), ("hard", "light"), ("hard", "dark")]
)
def test_contrast_is_that_of_wcag_aa(browser, pages, name, scheme):
    addresses, _ = pages
    with view(browser, addresses[name], color_scheme=scheme) as shown:
        shown.open_all()
        found = shown.page.evaluate(CONTRASTS)
        texts = [entry for entry in found if entry["kind"] == "text"]
        shapes = [entry for entry in found if entry["kind"] == "shape"]
        assert len(texts) > 40
        assert [entry for entry in texts if entry["ratio"] < 4.5] == []
        assert [entry for entry in shapes if entry["ratio"] < 3] == []
        assert len(shapes) > 10
        paper = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")


def test_the_keyboard_reaches_and_opens_every_details(browser, pages):
    addresses, _ = pages
    focused = "[...document.querySelectorAll('summary')].indexOf(document.activeElement)"
    with view(browser, addresses["hard"]) as shown:
        page = shown.page
        count = page.locator("summary").count()
        reached = set()
        for _ in range(4 * count):
            page.keyboard.press("Tab")
            at = page.evaluate(focused)
            if at >= 0 and at not in reached:
                reached.add(at)
                if not page.evaluate("document.activeElement.parentElement.open"):
                    page.keyboard.press("Enter")
                assert page.evaluate("document.activeElement.parentElement.open")
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", "focus is visible"
        assert reached == set(range(count))


def test_the_pointer_reads_the_row_of_the_nearest_point(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["plain"]) as shown:
        dot = shown.page.locator("#chart-loss-time circle.dot").nth(12)
        box = dot.bounding_box()
        shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 20)
        tip = shown.page.locator("#chart-loss-time .tip")
        rows = shown.page.locator("#chart-loss-time tbody tr")
        cells = rows.nth(12).locator("th, td").all_text_contents()
        assert tip.locator("b").all_text_contents() == cells
        shown.page.mouse.move(0, 0)
        assert tip.is_hidden()


def test_texts_of_a_run_are_texts(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["hard"]) as shown:
        assert shown.page.locator("h1").text_content() == HOSTILE.strip()
        assert shown.page.locator("img, b").count() == 0
        assert shown.page.locator(".incidents").text_content() == "3 functions throttled"


def test_a_loss_that_is_no_number_is_a_gap(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["hard"]) as shown:
        assert shown.page.locator("#chart-loss-time circle.dot").count() == 3
        assert "NaN" not in shown.page.locator("#page").inner_html()


def test_charts_follow_the_width_of_the_window(browser, pages):
    addresses, _ = pages
    with view(browser, addresses["plain"]) as shown:
        drawing = shown.page.locator("#chart-time svg")
        assert float(drawing.get_attribute("width")) > 1000
        shown.page.set_viewport_size(PHONE)
        shown.page.locator("#chart-time svg[width='328']").wait_for()
        assert shown.page.evaluate(WIDTHS)["out"] == []
