"""deploy/terraform makes the same as siren.deploy: same policies, same constants, well formed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from siren.platforms.aws.cache import ENGINE, ENGINE_VERSION, FAMILY, PARAMETERS
from siren.platforms.aws.function import ENVIRONMENT
from siren.platforms.aws.names import BUCKET_TAG, CHANNEL_TAG, REDIS_TAG, TAG, Names
from siren.platforms.aws.network import REDIS_PORT, SUBNET_CIDR, VPC_CIDR
from siren.platforms.aws.policies import (
    WORKER_POLICY,
    Document,
    bucket_policy,
    endpoint_policy,
    trust_policy,
    worker_policy,
)
from siren.platforms.package import HANDLER, aws_target
from siren.worker.environment import REDIS_URL

TEMPLATE = Names("${name}", "${region}", "${account}", "${partition}")
POLICIES = {
    "bucket": bucket_policy(TEMPLATE),
    "endpoint": endpoint_policy(TEMPLATE),
    "trust": trust_policy(TEMPLATE),
    "worker": worker_policy(TEMPLATE, vpc=False),
    "worker-vpc": worker_policy(TEMPLATE, vpc=True),
}


@pytest.fixture(scope="module")
def folder(checkout: Path) -> Path:
    found = checkout / "deploy" / "terraform"
    if not found.is_dir():
        pytest.skip("deploy/ is only in a checkout")
    return found


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))


@pytest.mark.parametrize(("name", "document"), POLICIES.items())
def test_policies_are_those_of_siren_deploy(folder: Path, name: str, document: Document) -> None:
    path = folder / "policies" / f"{name}.json"
    assert json.loads(path.read_text()) == document
    assert set(re.findall(r"\$\{(\w+)\}", path.read_text())) <= {"name", "region", "account", "partition"}


def test_no_policy_is_written_twice(folder: Path, text: str) -> None:
    used = set(re.findall(r"policies/([\w-]+)\.json", text)) | {"worker", "worker-vpc"}
    assert used == set(POLICIES) == {path.stem for path in (folder / "policies").glob("*.json")}
    assert "jsonencode" not in text
    assert "aws_iam_policy_document" not in text


def test_names_tags_and_constants_are_those_of_siren_deploy(text: str) -> None:
    for tag in (TAG, BUCKET_TAG, CHANNEL_TAG, REDIS_TAG):
        assert f'"{tag}"' in text
    for value in (HANDLER, aws_target().runtime, VPC_CIDR, WORKER_POLICY):
        assert f'"{value}"' in text
    for name, value in ENVIRONMENT.items():
        assert re.search(rf'{name} *= "{value}"', text)
    for name, value in PARAMETERS.items():
        assert re.search(rf'name *= "{name}"\n *value *= "{value}"', text)
    for key, value in (("engine", ENGINE), ("engine_version", ENGINE_VERSION), ("family", FAMILY)):
        assert re.search(rf'\b{key} *= "{value}"', text)
    assert f"local.redis ? {{ {REDIS_URL} = local.redis_url }} : {{}}" in text
    assert text.count(f"= {REDIS_PORT}") == 3
    assert SUBNET_CIDR == "10.83.0.0/20"  # cidrsubnet(VPC, 4, 0)
    assert "cidrsubnet(aws_vpc.this[0].cidr_block, 4, 0)" in text
    names = Names("${var.name}", "${var.region}", "${data.aws_caller_identity.this.account_id}")
    for name in (names.bucket, names.function, names.role, names.log_group, names.cache):
        assert f'"{name}"' in text


def test_terraform_takes_the_files_as_formatted(folder: Path) -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    command = [terraform, f"-chdir={folder}", "fmt", "-check", "-diff", "-recursive", "-no-color"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_terraform_refuses_broken_files(folder: Path, tmp_path: Path) -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    (tmp_path / "main.tf").write_text((folder / "main.tf").read_text().rstrip().rstrip("}"))
    command = [terraform, f"-chdir={tmp_path}", "fmt", "-check", "-no-color"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
