"""Code packages: what they hold, the same bytes for the same input, and what is refused."""

from __future__ import annotations

import ast
import base64
import dataclasses
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import siren
from siren._roots import root_folder
from siren.errors import PlatformError, PriceError, WorkloadError
from siren.platforms import package as package_module
from siren.platforms.package import (
    DIRECT_BYTES,
    PROVIDED,
    Package,
    aws_target,
    build_package,
    find_interpreter,
    local_target,
)

MLP = root_folder("workloads") / "mlp-mnist"
SMALL_BYTES = 20_000_000
"""What the package of a numpy workload may weigh."""


def names_of(package: Package) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(package.content)).namelist()


@pytest.fixture(scope="module")
def local() -> Package:
    return build_package(MLP, local_target())


@pytest.fixture(scope="module")
def aws() -> Package:
    """The package for AWS; needs wheels that only a package index or the cache has."""
    try:
        return build_package(MLP, aws_target())
    except PlatformError as error:
        pytest.skip(f"the wheels for python3.13 are not to be had: {error}")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """A folder with a numpy workload of one's own."""
    return Path(shutil.copytree(MLP, tmp_path / "mine"))


def test_the_package_holds_the_worker_and_the_model(local: Package) -> None:
    names = names_of(local)
    root = Path(siren.__file__).parent
    for part in ("worker", "channels"):
        assert {f"siren/{part}/{path.name}" for path in (root / part).glob("*.py")} <= set(names)
    sources = {name for name in names if name.endswith(".py")}
    assert {
        "siren/__init__.py",
        "siren/hsp/__init__.py",
        "siren/hsp/rules.py",
        "workload/model.py",
    } <= sources
    parts = {name.split("/")[1] for name in sources if name.startswith("siren/")}
    assert parts <= {"__init__.py", "worker", "channels", "hsp"}
    marker = zipfile.ZipFile(io.BytesIO(local.content)).read("siren/__init__.py")
    assert len(ast.parse(marker).body) == 1  # its docstring


def absent_modules(package: Package) -> set[str]:
    """What Siren's modules in a package import and a function would not find."""
    archive = zipfile.ZipFile(io.BytesIO(package.content))
    names = set(archive.namelist())
    found = set()
    for name in names:
        if name.startswith("siren/") and name.endswith(".py"):
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module)
                elif isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
    paths = {module: module.replace(".", "/") for module in found}
    ours = {module for module, path in paths.items() if {f"{path}.py", f"{path}/__init__.py"} & names}
    return {
        module for module in found - ours if module.split(".")[0] not in sys.stdlib_module_names | PROVIDED
    }


def test_what_is_packaged_imports_only_what_is_there(local: Package) -> None:
    # Imported with a torch model alone, whose package has it.
    assert absent_modules(local) <= {"siren.workloads.torch_model"}


def test_a_local_package_of_a_torch_workload_holds_its_adapter() -> None:
    package = build_package(root_folder("workloads") / "lenet-mnist", local_target())
    assert "siren/workloads/torch_model.py" in names_of(package)
    assert absent_modules(package) <= {"pydantic", "torch", "torch.nn"}


def test_the_same_input_gives_the_same_bytes(local: Package, workload: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(workload, tmp_path / "elsewhere"))
    (elsewhere / "model.py").touch()
    (elsewhere / "workload.toml").write_text((elsewhere / "workload.toml").read_text() + "# a remark\n")
    (elsewhere / "unused.py").write_text("import torch\n")
    assert build_package(elsewhere, local_target()).content == local.content
    (elsewhere / "model.py").write_text((elsewhere / "model.py").read_text() + "# changed\n")
    assert build_package(elsewhere, local_target()).sha256_base64 != local.sha256_base64


def test_entries_have_fixed_order_time_and_mode(local: Package) -> None:
    entries = zipfile.ZipFile(io.BytesIO(local.content)).infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert sum(entry.file_size for entry in entries) == local.unzipped_bytes


def test_the_hash_is_the_one_that_lambda_computes(local: Package) -> None:
    digest = hashlib.sha256(local.content).digest()
    assert local.sha256_base64 == base64.b64encode(digest).decode()
    assert local.key == f"code/{digest.hex()}.zip"
    assert local.zipped_bytes == len(local.content)


def test_siblings_of_the_model_come_along(workload: Path) -> None:
    (workload / "layers.py").write_text("WIDTH = 3\n")
    model = workload / "model.py"
    model.write_text("import layers\n" + model.read_text())
    names = names_of(build_package(workload, local_target()))
    assert "workload/layers.py" in names
    assert "workload/workload.toml" not in names


def test_the_local_package_carries_no_dependencies(local: Package) -> None:
    tops = {name.split("/")[0] for name in names_of(local)}
    assert tops == {"siren", "workload"}
    assert local.bytecode
    assert local.target.runtime == f"python{sys.version_info[0]}.{sys.version_info[1]}"


def test_the_aws_package_is_small_and_trimmed(aws: Package) -> None:
    names = names_of(aws)
    assert aws.zipped_bytes <= SMALL_BYTES
    assert not aws.needs_s3
    assert {"numpy/__init__.py", "redis/__init__.py", "hiredis/__init__.py", "workload/model.py"} <= set(
        names
    )
    for top in ("numpy/", "hiredis/"):
        assert any(name.startswith(top) and name.endswith("313-x86_64-linux-gnu.so") for name in names)
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyi", ".h", ".a"))]
    assert not [name for name in names if name.startswith(("numpy/f2py/", "boto3/", "torch/"))]
    assert any(name.endswith("licenses/LICENSE.txt") and name.startswith("numpy-") for name in names)


def test_the_aws_package_is_reproducible(aws: Package, workload: Path) -> None:
    assert build_package(workload, aws_target()).sha256_base64 == aws.sha256_base64


def test_the_aws_package_runs_under_its_runtime(aws: Package, tmp_path: Path) -> None:
    python = find_interpreter("python3.13")
    if python is None:
        pytest.skip("no python3.13 on the PATH: the package for AWS was inspected, not run")
    zipfile.ZipFile(io.BytesIO(aws.content)).extractall(tmp_path)
    program = """
import sys
import numpy, redis, siren.hsp.rules
from redis._parsers import _HiredisParser
from redis.connection import DefaultParser
assert DefaultParser is _HiredisParser
sys.path.insert(0, "workload")
import model
model = model.Model((28, 28), 10, hidden=4)
params = model.init(numpy.random.default_rng(0))
loss, gradient = model.loss_and_grad(params, numpy.zeros((5, 28, 28), numpy.uint8), numpy.zeros(5, int))
assert all(m.__cached__.endswith(".pyc") for m in (numpy, redis)), "bytecode"
print(numpy.__file__, numpy.__version__, redis.__version__, loss > 0, gradient.shape)
"""
    command = [python, "-S", "-B", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{tmp_path}/numpy/__init__.py", "2.4.6", "8.1.0", "True", "(3190,)"]
    assert aws.bytecode


def test_torch_workloads_are_sent_to_the_image() -> None:
    with pytest.raises(WorkloadError, match=r"needs torch.*deploy/Dockerfile"):
        build_package(root_folder("workloads") / "lenet-mnist", aws_target())


def test_an_import_that_the_package_lacks_is_refused(workload: Path) -> None:
    model = workload / "model.py"
    model.write_text("import scipy.special\n" + model.read_text())
    with pytest.raises(WorkloadError, match=r"imports scipy, which the code package does not hold"):
        build_package(workload, aws_target())


def test_a_package_above_lambdas_limit_is_refused(workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_module, "UNZIPPED_BYTES", 10_000)
    with pytest.raises(WorkloadError, match=r"Lambda takes 10,000 B.*deploy/Dockerfile"):
        build_package(workload, local_target())


def test_above_fifty_megabytes_it_goes_through_s3(local: Package) -> None:
    assert DIRECT_BYTES == 52_428_800
    assert package_module.UNZIPPED_BYTES == 262_144_000
    assert not dataclasses.replace(local, content=bytes(DIRECT_BYTES)).needs_s3
    assert dataclasses.replace(local, content=bytes(DIRECT_BYTES + 1)).needs_s3


def test_without_the_runtimes_interpreter_there_is_no_bytecode(
    workload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_module, "find_interpreter", lambda runtime: None)
    package = build_package(workload, local_target())
    assert not package.bytecode
    assert not [name for name in names_of(package) if name.endswith(".pyc")]


def test_a_shim_that_fails_is_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python9.9"
    shim.write_text("#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_interpreter("python9.9") is None
    assert find_interpreter("python9.8") is None
    assert find_interpreter(local_target().runtime) == sys.executable


def test_architectures_are_named_as_lambda_does() -> None:
    assert aws_target("x86").lambda_architecture == "x86_64"
    assert aws_target("arm64").lambda_architecture == "arm64"
    with pytest.raises(PriceError, match="choose one of x86, arm64"):
        aws_target("riscv")


def test_wheels_are_the_versions_that_siren_is_tested_with(checkout: Path) -> None:
    pinned = (checkout / "constraints.txt").read_text().split()
    for architecture in ("x86", "arm64"):
        assert {wheel.requirement for wheel in aws_target(architecture).wheels} <= set(pinned)
