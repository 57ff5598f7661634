from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import siren
from siren._roots import ROOT_FOLDERS, root_folder
from siren.errors import SirenError, UnknownNameError

OURS = '[project]\nname = "siren-scheduler"\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Siren believes its package lies in."""
    tree = tmp_path / "tree"
    (tree / "siren").mkdir(parents=True)
    monkeypatch.setattr(siren, "__file__", str(tree / "siren" / "__init__.py"))
    return tree


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "world.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ROOT_FOLDERS)
def test_the_checkout_comes_before_the_packaged_data(tree: Path, name: str) -> None:
    (tree / "pyproject.toml").write_text(OURS, encoding="utf-8")
    fill(tree / "siren" / "_data" / name, "packaged")
    here = fill(tree / name, "checkout")
    assert root_folder(name) == here


def test_an_edit_in_the_checkout_is_seen_at_once(tree: Path) -> None:
    (tree / "pyproject.toml").write_text(OURS, encoding="utf-8")
    fill(tree / "siren" / "_data" / "envs", "packaged")
    world = fill(tree / "envs", "before") / "world.toml"
    assert (root_folder("envs") / "world.toml").read_text() == "before"
    world.write_text("after", encoding="utf-8")
    assert (root_folder("envs") / "world.toml").read_text() == "after"


@pytest.mark.parametrize(
    "pyproject",
    [
        None,
        b'[project]\nname = "another"\n',
        b"project = 1\n",
        b"[build-system]\n",
        b"not toml [",
        b"\xff\xfe",
    ],
    ids=["absent", "another project", "no table", "no project", "not TOML", "not UTF-8"],
)
def test_a_folder_of_the_same_name_beside_the_package_is_not_taken(
    tree: Path, pyproject: bytes | None
) -> None:
    if pyproject is not None:
        (tree / "pyproject.toml").write_bytes(pyproject)
    fill(tree / "envs", "somebody else's")
    packaged = fill(tree / "siren" / "_data" / "envs", "packaged")
    assert root_folder("envs") == packaged


def test_the_packaged_data_serves_a_checkout_that_lacks_the_folder(tree: Path) -> None:
    (tree / "pyproject.toml").write_text(OURS, encoding="utf-8")
    packaged = fill(tree / "siren" / "_data" / "agents", "packaged")
    assert root_folder("agents") == packaged


def test_a_folder_found_nowhere_is_an_error_that_says_where_it_was_sought(tree: Path) -> None:
    with pytest.raises(SirenError, match=r"'agents' is neither in .*tree nor in .*_data.* install") as caught:
        root_folder("agents")
    assert not isinstance(caught.value, UnknownNameError)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'envs'"):
        root_folder("env")


def test_an_installed_package_finds_its_own_data(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "siren"
    package.mkdir(parents=True)
    for module in ("__init__.py", "_roots.py", "errors.py"):
        shutil.copy(Path(siren.__file__).parent / module, package)
    packaged = fill(package / "_data" / "workloads", "packaged")
    found = subprocess.run(
        [sys.executable, "-c", "from siren._roots import root_folder; print(root_folder('workloads'))"],
        env={"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == packaged.resolve()


@pytest.mark.parametrize("name", ["envs", "workloads"])
def test_this_checkout_is_found_from_any_folder(checkout: Path, name: str) -> None:
    assert root_folder(name) == checkout / name
