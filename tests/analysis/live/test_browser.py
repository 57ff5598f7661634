"""Served pages in a real browser: they follow a run while it goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from siren.analysis import _format
from siren.analysis.run_folder import LOCK, RunFolder
from tests.analysis import samples
from tests.analysis.page import folders
from tests.analysis.page.views import CONTRASTS, PHONE, WIDTHS, view

RECORDS = samples.epochs(6)


@pytest.fixture
def dash(tmp_path):
    """`python -m siren.dash` on the empty folder `runs`: its address."""
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "siren.dash", str(tmp_path / "runs"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().partition(" ")[0]
        finally:
            process.terminate()


def begun(path) -> RunFolder:
    folder = folders.begun(path)
    folders.hold(folder)
    return folder


def test_the_page_follows_its_run(browser, tmp_path, dash):
    folder = begun(tmp_path / "runs" / "one")
    folders.run_epochs(folder, RECORDS[:2])
    with view(browser, f"{dash}runs/one/") as shown:
        page = shown.page
        assert page.locator(".pill").text_content() == "running"
        dots = page.locator("#chart-loss-time circle.dot")
        assert dots.count() == 3  # the initial model is one
        # What the reader has opened stays open, and focus stays where it is.
        page.locator("#chart-budget summary").click()
        page.locator(".stretch > summary").first.focus()
        page.keyboard.press("Enter")
        for epoch in (3, 4, 5, 6):
            folders.run_epochs(folder, RECORDS[epoch - 1 : epoch])
            dots.nth(epoch).wait_for(state="attached")
        assert page.locator("#chart-budget details").get_attribute("open") is not None
        assert page.locator("#chart-budget tbody tr").count() == 7
        assert page.evaluate("document.activeElement.parentElement.className") == "stretch"
        assert page.locator(".stretch").first.get_attribute("open") is not None
        folder.write_summary(samples.summary(RECORDS, folder=str(folder.path)))
        page.locator(".pill.good", has_text="target reached").wait_for()
        assert shown.said == []
        assert all(address.startswith(dash) for address in shown.asked)


def test_a_real_run_is_followed_from_the_list_to_its_end(browser, tmp_path, dash):
    with view(browser, dash) as shown:
        page = shown.page
        assert page.locator(".lede").text_content() == "0 runs in runs, 0 running."
        options = ["--workload", "softmax-digits", "--budget", "0.50", "--policy", "fixed:4x1769"]
        command = [sys.executable, "-m", "siren.run", *options, "--out", "runs/real", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        summary = json.loads(done.stdout)
        entry = page.locator(".runs li", has_text="real")
        entry.locator(".pill.good").wait_for()
        values = dict(
            zip(
                entry.locator("dt").all_text_contents(),
                entry.locator(".value").all_text_contents(),
                strict=True,
            )
        )
        assert values == {
            "loss": _format.loss(summary["final_loss"]),
            "spent": _format.dollars(summary["cost_usd"]),
            "epochs": str(summary["epochs"]),
        }
        entry.locator("a").click()
        page.locator(".facts").wait_for()
        facts = dict(zip(shown.texts(".facts dt"), shown.texts(".facts .value"), strict=True))
        assert facts["Time"] == _format.seconds(summary["duration_s"])
        assert facts["Cost"] == _format.dollars(summary["cost_usd"])
        assert page.locator("#chart-functions tbody tr").count() == summary["epochs"]
        page.get_by_role("link", name="All runs").click()
        page.locator(".runs").wait_for()
        assert shown.said == []
    left = (tmp_path / "runs" / "real" / "report.html").as_uri()
    with view(browser, left) as shown:
        assert dict(zip(shown.texts(".facts dt"), shown.texts(".facts .value"), strict=True)) == facts
        assert shown.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_is_readable_on_a_phone(browser, tmp_path, dash, scheme):
    begun(tmp_path / "runs" / f"2026-11-22T06-30-12-{'a-very-long-name-' * 5}")
    folders.ended(tmp_path / "runs" / "two", RECORDS)
    (tmp_path / "runs" / "two" / LOCK).write_text("no number")
    with view(browser, dash, viewport=PHONE, color_scheme=scheme) as shown:
        widths = shown.page.evaluate(WIDTHS)
        assert widths["out"] == []
        assert widths["page"] == 360
        assert [entry for entry in shown.page.evaluate(CONTRASTS) if entry["ratio"] < 4.5] == []
        shown.page.keyboard.press("Tab")
        assert shown.page.evaluate("document.activeElement.tagName") == "A"


def test_a_server_that_ended_is_told(browser, tmp_path):
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "siren.dash", str(tmp_path / "runs"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().partition(" ")[0]
        with view(browser, address) as shown:
            process.terminate()
            process.wait()
            shown.page.locator(".link", has_text="does not answer").wait_for()
