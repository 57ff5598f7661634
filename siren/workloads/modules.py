"""Loading a workload's `model.py` from its path, so that no two workloads can clash."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from siren.errors import MissingExtraError, WorkloadError
from siren.workloads.workload import user_error

_EXTRAS = {"torch": "torch", "mxnet": "mxnet"}


def load_module(file: Path) -> ModuleType:
    """The module of a `model.py`, executed anew, under a name made of its folder's name and content.

    The name does not depend on where the folder lies: numba keeps it in its cache on disk, and a
    folder may be moved or copied together with that cache.

    It may import its siblings (`import layers` for `layers.py` beside it) while it is executed, not
    later inside a function: its folder is on `sys.path` only meanwhile, and the siblings leave
    `sys.modules` again, so that another workload may have siblings of the same names.

    Raises:
        WorkloadError: It cannot be read, or raises.
        MissingExtraError: It imports a package that one of Siren's extras brings.
    """
    name = f"siren_workload_{_digest(file)[:12]}"
    loader = _FreshLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None:
        raise WorkloadError(f"{file}: Python cannot load it as a module; it must be a readable source file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look the module up
    try:
        with _siblings_importable(file.parent):
            loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        if not isinstance(error, Exception):
            raise
        _explain(file, error)
    return module


def _digest(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError:
        content = b""  # the loader says what is wrong
    return hashlib.sha256(file.resolve().parent.name.encode() + b"\0" + content).hexdigest()


class _FreshLoader(SourceFileLoader):
    """Always compiles the source and writes no bytecode: an edit within a second counts at once."""

    def path_stats(self, path: str) -> NoReturn:
        """Refuse, which is how a loader says that there is no bytecode cache."""
        raise OSError("bytecode of workloads is not cached")


@contextmanager
def _siblings_importable(folder: Path) -> Iterator[None]:
    names = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    entry = str(folder)
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in names and _is_file(module)
    }
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # siblings may be younger than the finder's listing
    try:
        yield
    finally:
        sys.path.remove(entry)
        sys.path_importer_cache.pop(entry, None)
        for name in [name for name in sys.modules if name.partition(".")[0] in names and name not in hidden]:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).is_relative_to(folder):
                del sys.modules[name]
        sys.modules.update(hidden)


def _is_file(module: ModuleType) -> bool:
    """Whether the module is from a file and not Python's own: those are never hidden."""
    origin = getattr(module, "__file__", None)
    return bool(origin) and module.__name__.partition(".")[0] not in sys.stdlib_module_names


def _explain(file: Path, error: Exception) -> NoReturn:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in _EXTRAS:
            raise MissingExtraError(package, _EXTRAS[package]) from error
    raise WorkloadError(user_error(file, "importing it", error)) from error
