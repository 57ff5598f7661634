"""The map of regimes: its settings, its noisy loss, and one cell from the command to the page."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict

import numpy as np
import pytest

from experiments import regimes
from experiments._pages import append_rows
from experiments.regimes import Cell, RegimesConfig, Setting

PNG = b"\x89PNG"


def test_every_effect_passes_through_the_middle_and_no_cell_is_played_twice():
    assert all(any(changes is regimes.MIDDLE for _, changes in e.levels) for e in regimes.EFFECTS)
    order = regimes.in_order(regimes.EFFECTS)
    assert order[0] is regimes.MIDDLE
    assert len({regimes.key_of(changes) for changes in order}) == len(order)
    levels = [regimes.key_of(changes) for e in regimes.EFFECTS for _, changes in e.levels]
    assert set(levels) == {regimes.key_of(changes) for changes in order}


def test_a_setting_reaches_the_job_and_the_world():
    setting = Setting(rate=0.12, import_s=9.0, function_noise=0.5, service_s=0.1, hang_probability=0.01)
    training, cost = (getattr(regimes.workload_of(setting).spec, name) for name in ("training", "cost"))
    world = regimes.world_of(setting)
    assert (training.learning_rate, cost.import_s) == (0.12, 9.0)
    assert (world.cpu.function_noise, world.cpu.push_noise, world.cpu.hang_probability) == (0.5, 0.5, 0.01)
    assert world.channels[training.channel].service_base == 0.1
    assert training.target_loss == pytest.approx(regimes.FLOOR_LOSS + 0.007 * 0.3762)


def test_a_glimpsed_loss_is_noisy_unbiased_and_repeats_itself():
    whole, glimpsed = (regimes.workload_of(Setting(seen=seen)) for seen in (8192, 256))
    draws = np.random.default_rng(0).normal(0, 0.02, (100, whole.size)).astype(np.float32)
    truth, seen = (np.array([w.evaluate(params)[0] for params in draws]) for w in (whole, glimpsed))
    error = seen - truth
    assert error.std() > 0
    assert abs(error.mean()) < 4 * error.std() / 10
    assert glimpsed.evaluate(draws[0]) == glimpsed.evaluate(draws[0])


def test_cells_are_read_as_they_were_written(tmp_path):
    cell = Cell("gap=1", "abc", 24, 15.0, fixed="8x1769", speedup=1.25, low=1.0, high=1.5, cpu_s=3.0)
    nothing = Cell("gap=2", "abc", 24, 15.0, note="no fixed action")
    for one in (cell, nothing):
        append_rows(tmp_path / "cells.csv", [asdict(one)])
    found = regimes.read_cells(tmp_path / "cells.csv")
    assert found == {"gap=1": cell, "gap=2": nothing}


def test_what_cannot_be_told_from_one_is_said_so():
    effect = dataclasses.replace(regimes.EFFECTS[0], levels=(("a", {"gap": 0.3}), ("b", {"gap": 0.03})))
    settings = [regimes.key_of(changes) for _, changes in effect.levels]
    cells = {
        settings[0]: Cell(settings[0], "c", 24, 15.0, speedup=1.0, low=1.0, high=1.0),
        settings[1]: Cell(settings[1], "c", 24, 15.0, speedup=1.5, low=1.2, high=1.9),
    }
    text = regimes.shows(cells, [effect])
    assert "the whole interval above 1: noise floor b (1.50 [1.20, 1.90])" in text
    assert "Not told from 1.0: noise floor a (1.00 [1.00, 1.00])" in text


def test_one_cell_becomes_a_page(tmp_path):
    config = RegimesConfig(fast=True, out=tmp_path)
    assert regimes.main(config) == 0
    before = (tmp_path / "cells.csv").read_text(encoding="utf-8")
    assert len(before.splitlines()) == 2
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)
    text = (tmp_path / "regimes.md").read_text(encoding="utf-8")
    (cell,) = regimes.read_cells(tmp_path / "cells.csv").values()
    assert f"| batch rule | constant | {cell.fixed}, " in text
    assert regimes.speedup(cell) in text
    assert "Overspent in all runs together: $0." in text
    assert regimes.main(config) == 0  # nothing is missing
    assert (tmp_path / "cells.csv").read_text(encoding="utf-8") == before
