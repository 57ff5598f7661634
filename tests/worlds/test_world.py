"""World files: complete, sourced, and refused where they are not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import ActionError, UnknownNameError, WorldError
from siren.types import Action, ChannelKind
from siren.worlds import load_world, world_names

SHIPPED = ("aws-2026", "lambdaml-2021", "local", "siren-2019")
TEXT_KEYS = {"title", "about", "region", "architecture", "node"}
BOOLEANS = {"init_billed"}


@pytest.fixture
def write(tmp_path: Path, checkout: Path):
    """Writes a copy of aws-2026 with some text replaced; its path."""

    def copy(old: str = "", new: str = "") -> str:
        text = (checkout / "envs" / "aws-2026.toml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return str(path)

    return copy


def values(table, path=()):
    """(path, value) of every leaf of a world file; tables with a value are leaves."""
    for key, value in table.items():
        if isinstance(value, dict) and "value" not in value:
            yield from values(value, (*path, key))
        else:
            yield (*path, key), value


def test_the_shipped_worlds_are_there():
    assert set(SHIPPED) <= set(world_names())


@pytest.mark.parametrize("name", world_names())
def test_every_shipped_world_loads_and_knows_its_name(name):
    world = load_world(name)
    assert world.name == name
    assert set(world.channels) == set(ChannelKind)


@pytest.mark.parametrize("name", world_names())
def test_every_number_of_a_world_names_its_unit_source_and_date(name, checkout):
    table = tomllib.loads((checkout / "envs" / f"{name}.toml").read_text(encoding="utf-8"))
    numbers = 0
    for path, value in values(table):
        if path[-1] in TEXT_KEYS:
            assert isinstance(value, str), path
        elif path[-1] in BOOLEANS:
            assert isinstance(value, bool), path
        else:
            assert set(value) == {"value", "unit", "source", "date"}, path
            assert re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", value["date"]), path
            assert len(value["source"]) > 10, path
            numbers += 1
    assert numbers > 50


def test_the_default_world_offers_a_dozen_sizes_and_the_papers_world_its_grid():
    grid = load_world("aws-2026").limits.memory_grid
    assert 12 <= len(grid) <= 16
    assert (grid[0], grid[-1]) == (128, 10240)
    paper = load_world("siren-2019")
    assert paper.limits.memory_grid == tuple(range(128, 3009, 64))
    assert paper.limits.functions_max == 3000
    assert paper.billing.granularity == 100
    assert not paper.billing.init_billed


def test_a_wrong_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'aws-2026'"):
        load_world("aws-2025")


def test_a_users_world_is_loaded_by_its_path(write):
    world = load_world(write('title = "', 'title = "mine: '))
    assert world.name == "mine"
    assert world.title.startswith("mine: ")


def test_a_world_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(WorldError, match="cannot read world"):
        load_world(str(tmp_path / "none.toml"))


def test_a_folder_is_no_world(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(WorldError, match="cannot read world"):
        load_world(str(tmp_path / "folder.toml"))


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe = 1")
    with pytest.raises(WorldError, match="not valid TOML"):
        load_world(str(path))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[cpu]\n", "[cpu]\nturbo = 1\n", r"cpu\.turbo: Extra inputs"),
        ("[network]\n", "[networks]\n", r"network: Field required"),
        ('unit = "B/s"', 'unit = "MB/s"', "must be in 'B/s', not 'MB/s'"),
        (', date = "2026" }', " }", "must be a table { value, unit"),
        ("value = 0.03", 'source = "", value = 0.03', "not valid TOML"),
        ("fan_out = { value = 600.0", "fan_out = { value = -1.0", r"start\.fan_out"),
        ("fan_out = { value = 600.0", "fan_out = { value = nan", r"start\.fan_out"),
        ("vcpus_max = { value = 5.79", "vcpus_max = { value = 0.0", r"cpu\.vcpus_max"),
        ("[128, 256, 512", "[256, 128, 512", "memory_grid must be ascending"),
        ("[128, 256, 512", "[0, 256, 512", "memory_grid must be ascending and positive"),
        ("value = [3, 4, 5", "value = [3, 3, 5", "timeout_rungs must be ascending"),
        ("[channels.redis]", "[channels.carrier-pigeon]", "carrier-pigeon"),
        ('architecture = "x86"', 'architecture = "mips"', r"billing\.architecture"),
    ],
)
def test_a_broken_world_is_refused_with_the_place(write, old, new, says):
    with pytest.raises(WorldError, match=says):
        load_world(write(old, new))


def test_a_world_without_s3_is_refused(write, tmp_path):
    text = Path(write()).read_text(encoding="utf-8")
    path = tmp_path / "no-s3.toml"
    path.write_text(re.sub(r"\[channels\.s3\].*?(?=\[channels\.redis\])", "", text, flags=re.S))
    with pytest.raises(WorldError, match=r"channels\.s3 is missing"):
        load_world(str(path))


def test_a_tail_that_ends_before_it_begins_is_refused(write):
    with pytest.raises(WorldError, match="tail_max must not be below tail_min"):
        load_world(write("tail_max = { value = 10.0", "tail_max = { value = 0.01"))


def test_every_problem_of_a_world_is_told_at_once(write):
    path = Path(write("fan_out = { value = 600.0", "fan_out = { value = -1.0"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[cpu]\n", "[cpu]\nturbo = 1\n"), encoding="utf-8")
    with pytest.raises(WorldError) as caught:
        load_world(str(path))
    assert "cpu.turbo" in str(caught.value)
    assert "start.fan_out" in str(caught.value)


@given(st.integers(1, 12_000), st.sampled_from(SHIPPED))
def test_memory_is_accepted_on_the_grid_and_refused_beside_it_with_the_nearest(memory_mb, name):
    world = load_world(name)
    grid = world.limits.memory_grid
    if memory_mb in grid:
        world.check_action(Action(1, memory_mb))
        return
    below = [m for m in grid if m < memory_mb]
    above = [m for m in grid if m > memory_mb]
    with pytest.raises(ActionError) as caught:
        world.check_action(Action(1, memory_mb))
    nearest = min(grid, key=lambda m: abs(m - memory_mb))
    assert f"{nearest:,}" in str(caught.value)
    assert below[-1:] + above[:1] != []


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("functions", [-1, 0, 1, 999, 1000, 1001, 3000, 3001])
def test_functions_are_accepted_up_to_the_limit_of_the_world(name, functions):
    world = load_world(name)
    if 1 <= functions <= world.limits.functions_max:
        world.check_action(Action(functions, 512))
    else:
        with pytest.raises(ActionError, match=f"outside 1 to {world.limits.functions_max:,}"):
            world.check_action(Action(functions, 512))
