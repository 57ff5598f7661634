"""The documentation site: it builds, says something of everything, and no link is dead."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import unquote, urlsplit

import pytest
import tyro

from siren import cli
from siren.simulator import ENVIRONMENTS
from siren.workloads.spec import WorkloadSpec
from siren.worlds import world_names

pytest.importorskip("sphinx", reason="sphinx is not installed (extra docs)")

DONE = "built"
LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^()\s]+)\)|!\[[^\]]*\]\(([^()\s]+)\)")


class Page(HTMLParser):
    """What a page defines and what it points at.

    Attributes:
        ids: Its anchors.
        links: What the reader may follow.
        loads: What the browser fetches with it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("img", "script", "source", "iframe") and "src" in values:
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon") and "href" in values:
            self.loads.append(values["href"])


def build(checkout: Path, folder: Path) -> None:
    """Builds the site as `make docs` does, once."""
    if (folder / DONE).exists():
        return
    recipe = next(line for line in (checkout / "Makefile").read_text().splitlines() if "-m sphinx" in line)
    words = shlex.split(recipe.replace("$(BIN)/python", sys.executable).replace("build/", f"{folder}/"))
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (folder / DONE).touch()


@pytest.fixture(scope="module")
def site(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site, one for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "documentation"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build(checkout, folder)
    return folder / "docs"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def page_of(pages: dict[Path, Page], name: str) -> Page:
    return next(page for path, page in pages.items() if path.as_posix().endswith(f"/{name}.html"))


def plain(html: str) -> str:
    """The words of a page, without its tags."""
    text = re.sub(r"<[^>]+>", "", html)
    return " ".join(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").split())


def options_of(command: str) -> set[str]:
    """What a command's own help lists."""
    config = get_type_hints(import_module(cli.module_of(command)).main)["config"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        tyro.cli(config, args=["--help"], config=(tyro.conf.EnumChoicesFromValues,))
    return set(re.findall(r"^[│ ]*(?:-h, )?(--[a-z][a-z-]*)", out.getvalue(), flags=re.MULTILINE))


def test_every_command_has_an_entry_with_all_its_options(pages: dict[Path, Page]) -> None:
    page = page_of(pages, "reference/commands")
    for name in cli.commands():
        assert f"siren-{name}" in page.ids
        section = page.text.partition(f'id="siren-{name}"')[2].partition("<section")[0]
        options, shown = options_of(name), plain(section)
        assert {"--help"} < options
        assert not {option for option in options if option not in shown}, name


def test_every_environment_has_its_card(pages: dict[Path, Page]) -> None:
    page = page_of(pages, "reference/environments")
    words = plain(page.text)
    for name, place in ENVIRONMENTS.items():
        module, _, attribute = place.partition(":")
        card = inspect.getdoc(getattr(import_module(module), attribute)) or ""
        assert f'gymnasium.make("siren.simulator:{name}")' in words.replace("&quot;", '"')
        for heading in re.findall(r"^## (.+)$", card, flags=re.MULTILINE):
            assert re.search(rf"<h3>{heading}<", page.text), (name, heading)
        for row in re.findall(r"^\| (\w+) \|", card, flags=re.MULTILINE):
            assert row in words


def test_every_world_and_scenario_has_a_table(pages: dict[Path, Page], checkout: Path) -> None:
    worlds, scenarios = page_of(pages, "reference/worlds"), page_of(pages, "reference/scenarios")
    machines = [path.stem for path in (checkout / "envs/machines").glob("*.toml")]
    assert {*world_names(), *machines} <= worlds.ids
    assert {path.stem for path in (checkout / "envs/scenarios").glob("*.toml")} <= scenarios.ids
    assert "limits.functions_max" in plain(worlds.text)


def test_every_field_of_a_workload_is_listed(pages: dict[Path, Page]) -> None:
    words = plain(page_of(pages, "reference/workload").text)
    for section, field in WorkloadSpec.model_fields.items():
        assert section in words
        names: Any = getattr(field.annotation, "model_fields", {})
        assert not {name for name in names if name not in words}, section


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            other = pages.get(target)
            if not target.is_file() or (anchor and other is not None and anchor not in other.ids):
                dead.append(f"{path.name}: {link}")
    assert not dead


def test_a_page_loads_nothing_from_the_network(pages: dict[Path, Page]) -> None:
    assert len(pages) > 30
    loaded = [
        (path.name, link) for path, page in pages.items() for link in page.loads if urlsplit(link).netloc
    ]
    assert not loaded
    assert "<math" in page_of(pages, "explanation/laws").text


def test_what_markdown_links_to_is_in_the_repository(checkout: Path) -> None:
    """On a host that shows the repository, relative links must work without the site."""
    found = [*checkout.glob("*.md"), *checkout.glob("docs/**/*.md"), *checkout.glob("experiments/**/*.md")]
    dead = []
    for path in [*found, *checkout.glob("agents/*/*.md"), *checkout.glob("deploy/*.md")]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for match in LINK.finditer(text):
            parts = urlsplit(match[1] or match[2])
            if not parts.scheme and parts.path and not (path.parent / unquote(parts.path)).exists():
                dead.append(f"{path.relative_to(checkout)}: {match[0]}")
    assert found
    assert not dead


def test_the_policy_of_the_how_to_can_be_played(checkout: Path) -> None:
    text = (checkout / "docs/howto/write_a_policy.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    halving, fixed = done.stdout.splitlines()
    assert halving.startswith("halving: target_reached after")
    assert fixed.startswith("fixed:11x1769: target_reached after")
