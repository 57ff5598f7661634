"""Tables of the files under `envs/`: worlds, families of jobs, and machines."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siren._roots import root_folder
from siren.worlds.world import World, world_names
from siren_docs.schema import cell, meanings

_LINE = re.compile(r"(\w+) = (.+?)(?:\s+# (.+))?")


def worlds() -> str:
    """All worlds side by side, then each with its sources."""
    tables = {name: _read(root_folder("envs") / f"{name}.toml") for name in world_names()}
    return "\n\n".join(
        [_overview(tables), _side_by_side(tables), *(_sources(name, table) for name, table in tables.items())]
    )


def _side_by_side(tables: dict[str, dict[str, Any]]) -> str:
    """A table for every section of a world, with a column for every world."""
    known = {name: dict(_quantities(table)) for name, table in tables.items()}
    keys = list(dict.fromkeys(key for found in known.values() for key in found))
    head = f"| quantity | unit | {' | '.join(tables)} | meaning |\n|---|---|{'---|' * len(tables)}---|"
    about, text, before = _meanings(), ["## Side by side"], ""
    for key in keys:
        section, _, name = key.rpartition(".")
        if section != before:
            text += ["", f"### {section}", "", head]
            before = section
        found = [values.get(key) for values in known.values()]
        unit = next(value["unit"] for value in found if value)
        shown = " | ".join(_brief(value["value"]) if value else "" for value in found)
        row = f"| {name} | {_unit(unit)} | {shown} | {cell(about.get(_short(key), ''))} |"
        text.append(row)
    return "\n".join(text)


def machines() -> str:
    """The files of machines, each with its sources."""
    found = sorted((root_folder("envs") / "machines").glob("*.toml"))
    return "\n\n".join(_sources(path.stem, _read(path)) for path in found)


def scenarios() -> str:
    """The families of jobs, each with its ranges."""
    return "\n\n".join(_scenario(path) for path in sorted((root_folder("envs") / "scenarios").glob("*.toml")))


def _scenario(path: Path) -> str:
    text, table = path.read_text(encoding="utf-8"), _read(path)
    rows, section = ["| key | value | note |", "|---|---|---|"], ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.partition("]")[0].strip("[") + "."
        match = _LINE.fullmatch(line)
        if match and match[1] not in ("title", "about"):
            rows.append(f"| {section}{match[1]} | `{match[2].strip()}` | {cell(match[3] or '')} |")
    return "\n".join([f"## {path.stem}", "", f"*{table['title']}.* {table['about']}", "", *rows])


def _read(path: Path) -> dict[str, Any]:
    """A file whose fractions stay as they are written."""
    return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)


def _overview(tables: dict[str, dict[str, Any]]) -> str:
    rows = [f"| [{name}](#{name}) | {table['title']} | {table['about']} |" for name, table in tables.items()]
    return "\n".join(["| world | is | about |", "|---|---|---|", *rows])


def _sources(name: str, table: dict[str, Any]) -> str:
    rows = []
    for key, value in _quantities(table):
        amount = f"{_value(value['value'])} {_unit(value['unit'])}"
        rows.append(f"| {key} | {amount} | {cell(value['source'])} | {value['date']} |")
    head = [f"## {name}", "", f"*{table['title']}.* {table['about']}", ""]
    plain = [f"* {key}: `{value}`" for key, value in _plain(table) if key not in ("title", "about")]
    return "\n".join([*head, *plain, "", "| quantity | value | source | date |", "|---|---|---|---|", *rows])


def _quantities(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The numbers of a file, with their places in it."""
    for key, value in table.items():
        if isinstance(value, dict) and "unit" in value:
            yield f"{before}{key}", value
        elif isinstance(value, dict):
            yield from _quantities(value, f"{before}{key}.")


def _plain(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    """What has no unit."""
    for key, value in table.items():
        if isinstance(value, dict) and "unit" not in value:
            yield from _plain(value, f"{before}{key}.")
        elif not isinstance(value, dict):
            yield f"{before}{key}", value


def _meanings() -> dict[str, str]:
    """What the schema says of every number, by section and name; channels count as one section."""
    found = {}
    for name, field in World.model_fields.items():
        model: Any = field.annotation
        if name == "channels":
            model = model.__args__[1]
        if hasattr(model, "model_fields"):
            found |= {f"{name}.{key}": text for key, text in meanings(model).items()}
    return found


def _short(key: str) -> str:
    section, *_, name = key.split(".")
    return f"{section}.{name}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _brief(value: object) -> str:
    """A value for a narrow column."""
    return f"{len(value)} values, {value[0]:,} to {value[-1]:,}" if isinstance(value, list) else _value(value)


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit
