"""What a workload's `model.py` imports, read from its source: nothing is executed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from siren.errors import WorkloadError


def folder_modules(model: Path) -> list[Path]:
    """`model.py` and the files of its folder that it needs, sorted.

    A sibling counts if it is imported anywhere, inside a function too; of a package all modules do.

    Raises:
        WorkloadError: A file cannot be read or parsed.
    """
    folder = model.parent
    found = {model}
    waiting = [model]
    while waiting:
        for name in _imported(_parse(waiting.pop()).body, everywhere=True):
            for path in _sibling(folder, name):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
    return sorted(found)


def needed_packages(model: Path) -> set[str]:
    """Top-level packages that importing `model.py` needs, beside the standard library and its siblings.

    Only imports that surely run count: those inside a function, a condition or a `try` may not.

    Raises:
        WorkloadError: A file cannot be read or parsed.
    """
    names = {
        name for path in folder_modules(model) for name in _imported(_parse(path).body, everywhere=False)
    }
    return {name for name in names - sys.stdlib_module_names if not _sibling(model.parent, name)}


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read: {error.strerror}; make it readable") from error
    except (SyntaxError, ValueError) as error:
        raise WorkloadError(f"{path}: is not Python: {error}; correct it there") from error


def _imported(body: list[ast.stmt], *, everywhere: bool) -> set[str]:
    """First parts of the absolute names that statements import."""
    return {name.partition(".")[0] for node in _imports(body, everywhere) for name in _names(node)}


def _imports(body: list[ast.stmt], everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    nodes = (node for statement in body for node in (ast.walk(statement) if everywhere else [statement]))
    return (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.module and not node.level else []  # relative: inside a package


def _sibling(folder: Path, name: str) -> list[Path]:
    """The files of a module or package of the folder; Python prefers the package."""
    if (folder / name / "__init__.py").is_file():
        return sorted((folder / name).rglob("*.py"))
    module = folder / f"{name}.py"
    return [module] if module.is_file() else []
