"""Pictures are drawn, the same each time, for any run."""

from __future__ import annotations

import dataclasses
import math
import sys
from decimal import Decimal

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from siren.analysis.figures import compare_figure, plain_log, plain_ticks, run_figure, use_style
from siren.errors import MissingExtraError, RunFolderError
from siren.types import StopReason
from tests.analysis import samples


def assert_is_a_picture(path):
    with Image.open(path) as image:
        assert image.size == (1600, 1000)
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colours == 255).all(axis=1).mean() > 0.6, "a light background"
    assert len(np.unique(colours, axis=0)) > 50


def test_the_same_run_is_the_same_picture_whatever_the_users_style(tmp_path):
    run = samples.epochs(20)
    summary = samples.summary(run, title="Costs $2 of $3, $x^2$")
    run_figure(run, summary, tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "black"}):
        run_figure(run, summary, tmp_path / "b.png")
    assert_is_a_picture(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def with_loss(record, loss):
    report = dataclasses.replace(record.status.report, loss=loss, accuracy=math.nan)
    return dataclasses.replace(record, status=dataclasses.replace(record.status, report=report))


@pytest.mark.parametrize(
    "run",
    [
        (),
        samples.epochs(1),
        samples.epochs(300, functions=(3000,), budget_usd=Decimal(1000)),
        tuple(with_loss(r, math.nan) for r in samples.epochs(2)),
        tuple(with_loss(r, 10.0**r.status.report.epoch) for r in samples.epochs(12)),
        tuple(with_loss(r, 1.0 - r.status.report.epoch) for r in samples.epochs(5)),
    ],
    ids=["no epoch", "one epoch", "long", "NaN", "diverged", "negative loss"],
)
def test_odd_runs_are_drawn_without_a_warning(tmp_path, run):
    summary = samples.summary(run, StopReason.DIVERGED, platform="aws")
    run_figure(run, summary, tmp_path / "run.png")
    assert_is_a_picture(tmp_path / "run.png")
    compare_figure([("this", run, summary)], tmp_path / "compare.png")
    assert_is_a_picture(tmp_path / "compare.png")


def test_several_budgets_are_compared(tmp_path):
    runs = []
    for label, count in (("tight", 30), ("middle", 20), ("loose", 15), ("none", 0)):
        run = samples.epochs(count)
        runs.append((f"{label}: $2.00", run, samples.summary(run)))
    compare_figure(runs, tmp_path / "compare.png")
    assert_is_a_picture(tmp_path / "compare.png")
    with pytest.raises(ValueError, match="at least one run"):
        compare_figure([], tmp_path / "compare.png")


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(RunFolderError, match=r"could not write .*No such file"):
        run_figure((), samples.summary(), tmp_path / "nowhere" / "run.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"siren-scheduler\[plot\]"):
        run_figure((), samples.summary(), tmp_path / "run.png")


def test_notebooks_draw_in_the_style_of_the_other_figures():
    with mpl.rc_context():
        use_style((5.0, 2.5))
        assert mpl.rcParams["figure.figsize"] == [5.0, 2.5]
        assert mpl.rcParams["text.parse_math"] is False  # "$2 of $3" are dollars
        assert mpl.rcParams["axes.titlelocation"] == "left"


@pytest.mark.parametrize(
    ("put", "told"),
    [
        (lambda axis: plain_ticks(axis, [0.05, 1, 1500]), ["0.05", "1", "1,500"]),
        (lambda axis: plain_log(axis, (1.0,)), ["0.1", "1", "10", "100", "1,000"]),
        (plain_log, ["0.05", "0.1", "0.2", "0.5"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_plain_numbers(put, told):
    figure = Figure()
    axes = figure.subplots()
    axes.set(yscale="log", ylim=(0.04, 2000 if "1" in told else 0.7))
    put(axes.yaxis)
    low, high = axes.get_ylim()
    ticks = zip(axes.yaxis.get_majorticklocs(), axes.yaxis.get_ticklabels(), strict=True)
    assert [label.get_text() for at, label in ticks if low <= at <= high] == told
    assert not len(axes.yaxis.get_minorticklocs())
