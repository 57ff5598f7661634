"""What a `model.py` imports is read from its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from siren.errors import WorkloadError
from siren.platforms.imports import folder_modules, needed_packages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "model.py": "import math\nimport numpy\nfrom layers import Dense\n\ndef f():\n    import blocks\n",
        "layers.py": "import initial, scipy.special\n",
        "initial.py": "",
        "blocks/__init__.py": "from .conv import Conv\n",
        "blocks/conv.py": "from blocks import deep\nclass Conv: pass\n",
        "blocks/deep/__init__.py": "",
        "unused.py": "import torch\n",
        "notes.txt": "not code",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_siblings_are_found_through_siblings_and_inside_functions(folder: Path) -> None:
    names = [path.relative_to(folder).as_posix() for path in folder_modules(folder / "model.py")]
    assert names == [
        "blocks/__init__.py",
        "blocks/conv.py",
        "blocks/deep/__init__.py",
        "initial.py",
        "layers.py",
        "model.py",
    ]


def test_packages_are_those_that_importing_the_model_needs(folder: Path) -> None:
    assert needed_packages(folder / "model.py") == {"numpy", "scipy"}


def test_imports_that_may_not_run_are_no_needs(tmp_path: Path) -> None:
    text = """
import json
try:
    import numba
except ImportError:
    numba = None

def load_dataset():
    import pandas
"""
    (tmp_path / "model.py").write_text(text)
    assert needed_packages(tmp_path / "model.py") == set()


def test_siblings_that_import_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import other\n")
    (tmp_path / "other.py").write_text("import model\n")
    assert len(folder_modules(tmp_path / "model.py")) == 2


@pytest.mark.parametrize("text", ["def broken(:\n", "x = '\0'\n"])
def test_source_that_is_not_python_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(WorkloadError, match=r"model\.py: is not Python: .*; correct it there"):
        folder_modules(tmp_path / "model.py")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"model\.py: cannot be read"):
        needed_packages(tmp_path / "model.py")
