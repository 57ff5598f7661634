"""Finds the root folders `agents`, `envs` and `workloads`: in the checkout, else in the package.

The checkout comes first, so that an edited file counts at once. `importlib.resources` is never
asked: after an editable install it may answer with copies made at install time.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import siren
from siren.errors import SirenError, UnknownNameError

ROOT_FOLDERS = ("agents", "envs", "workloads")

_DISTRIBUTION = "siren-scheduler"


def root_folder(name: str) -> Path:
    """The folder that holds Siren's trained policies, worlds or workloads.

    Args:
        name: "agents", "envs" or "workloads".

    Returns:
        The absolute path of a folder that exists.

    Raises:
        UnknownNameError: There is no root folder of that name.
        SirenError: Neither the checkout nor the installed package has the folder.
    """
    if name not in ROOT_FOLDERS:
        raise UnknownNameError("root folder", name, ROOT_FOLDERS)
    package = Path(siren.__file__).resolve().parent
    checkout = package.parent
    if (checkout / name).is_dir() and _is_checkout(checkout):
        return checkout / name
    packaged = package / "_data" / name
    if packaged.is_dir():
        return packaged
    raise SirenError(
        f"Siren's folder {name!r} is neither in {checkout} nor in {package / '_data'}: "
        f"the installation is incomplete; install {_DISTRIBUTION} again, or restore {name}/ in the checkout"
    )


def _is_checkout(folder: Path) -> bool:
    """Whether the folder is Siren's source tree, and not one that merely has folders of the same names."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text).get("project", {})
    except (OSError, ValueError):  # absent, unreadable, not UTF-8 or not TOML
        return False
    return isinstance(project, dict) and project.get("name") == _DISTRIBUTION
