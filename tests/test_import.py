from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import siren

HEAVY = {"boto3", "gymnasium", "matplotlib", "numba", "torch"}


def loaded_by(statement: str) -> set[str]:
    """Names in sys.modules of a fresh interpreter after the statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_all_is_sorted_and_names_exactly_what_is_exported() -> None:
    assert siren.__all__ == sorted(set(siren.__all__))
    assert set(siren.__all__) == {*siren._HOMES, "__version__"}


@pytest.mark.parametrize("name", siren.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(siren, name) is not None
    assert name in dir(siren)


@pytest.mark.parametrize(("name", "home"), sorted(siren._HOMES.items()))
def test_a_public_name_is_the_one_of_its_module(name: str, home: str) -> None:
    assert getattr(siren, name) is getattr(sys.modules[home], name)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'siren' has no attribute 'Acton'"):
        _ = siren.Acton


def test_importing_siren_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("import siren")


def test_using_the_public_names_loads_nothing_heavy() -> None:
    loaded = loaded_by("from siren import *")
    assert "siren.types" in loaded
    assert not HEAVY & loaded


def test_the_version_is_the_one_that_was_installed() -> None:
    try:
        installed = version("siren-scheduler")
    except PackageNotFoundError:
        pytest.skip("Siren runs from a checkout that is not installed")
    assert siren.__version__ == installed
