"""Least privilege: walks every statement of every document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from siren.platforms.aws.actions import NO_RESOURCE_LEVEL
from siren.platforms.aws.names import TAG, Names
from siren.platforms.aws.policies import (
    bucket_policy,
    deployer_policy,
    endpoint_policy,
    manager_policy,
    trust_policy,
    worker_policy,
)

NAMES = Names("siren", "us-east-1", "123456789012")
GRANTS = {
    "worker": worker_policy(NAMES, vpc=False),
    "worker in a VPC": worker_policy(NAMES, vpc=True),
    "manager": manager_policy(NAMES),
    "deployer": deployer_policy(NAMES, redis=False),
    "deployer with a cache": deployer_policy(NAMES, redis=True),
    "endpoint": endpoint_policy(NAMES),
}
MANAGED_POLICY_CHARACTERS = 6144
"""Largest managed policy, white space not counted (IAM user guide, quotas, 2026)."""


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in GRANTS.items():
        assert document["Version"] == "2012-10-17"
        for statement in document["Statement"]:
            yield f"{name}: {statement['Sid']}", statement


def granted(document: dict[str, Any]) -> set[str]:
    allowed = [s for s in document["Statement"] if s["Effect"] == "Allow"]
    return {action for statement in allowed for action in listed(statement["Action"])}


@pytest.mark.parametrize(("name", "statement"), list(statements()))
def test_no_action_has_a_wildcard(name: str, statement: dict[str, Any]) -> None:
    for action in listed(statement["Action"]):
        service, _, operation = action.partition(":")
        assert service.isalnum(), name
        assert operation.isalpha(), name
    assert "NotAction" not in statement
    assert "NotResource" not in statement


@pytest.mark.parametrize(("name", "statement"), list(statements()))
def test_everything_is_a_resource_only_where_aws_has_none(name: str, statement: dict[str, Any]) -> None:
    resources = listed(statement["Resource"])
    if "*" in resources and statement["Effect"] == "Allow":
        assert resources == ["*"], name
        assert set(listed(statement["Action"])) <= NO_RESOURCE_LEVEL, name
    for arn in set(resources) - {"*"}:
        partition, service, region, account = arn.split(":")[1:5]
        assert partition == "aws", name
        assert "*" not in service + region + account, name
        assert arn.split(":", 5)[5].strip("*/"), name  # more than a service's every resource


def test_no_other_principal_than_lambda_takes_the_role() -> None:
    (statement,) = trust_policy(NAMES)["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": NAMES.account}}


def test_a_worker_reads_data_and_writes_only_its_runs() -> None:
    document = worker_policy(NAMES, vpc=False)
    puts = [s for s in document["Statement"] if "s3:PutObject" in s["Action"]]
    assert [s["Resource"] for s in puts] == [["arn:aws:s3:::siren-123456789012-us-east-1/runs/*"]]
    assert granted(document) == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    }


def test_only_in_a_vpc_network_interfaces_are_managed_and_never_by_the_functions_code() -> None:
    document = worker_policy(NAMES, vpc=True)
    more = granted(document) - granted(worker_policy(NAMES, vpc=False))
    assert more
    assert all(action.startswith("ec2:") for action in more)
    (denial,) = [s for s in document["Statement"] if s["Effect"] == "Deny"]
    assert set(denial["Action"]) == more
    assert denial["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": NAMES.function_arn}}


def test_the_manager_can_neither_make_nor_remove_a_deployment() -> None:
    actions = granted(manager_policy(NAMES))
    assert not [a for a in actions if a.startswith(("iam:", "ec2:", "elasticache:", "logs:"))]
    assert "lambda:CreateFunction" not in actions
    assert "lambda:DeleteFunction" not in actions
    invoke = [s for s in manager_policy(NAMES)["Statement"] if "lambda:InvokeFunction" in s["Action"]]
    assert [s["Resource"] for s in invoke] == [[f"{NAMES.function_arn}:*"]]  # published versions alone


def test_the_manager_removes_what_runs_left_and_nothing_else() -> None:
    removing = [s for s in manager_policy(NAMES)["Statement"] if "s3:DeleteObject" in s["Action"]]
    assert [s["Resource"] for s in removing] == [[f"{NAMES.bucket_arn}/runs/*"]]
    assert "s3:DeleteObject" not in granted(worker_policy(NAMES, vpc=True))


def test_the_role_is_passed_to_lambda_alone() -> None:
    (statement,) = [s for s in deployer_policy(NAMES, redis=True)["Statement"] if s["Sid"] == "PassRole"]
    assert statement["Resource"] == [NAMES.role_arn]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}


def test_networks_are_made_with_the_tag_and_only_tagged_ones_are_removed() -> None:
    by_sid = {s["Sid"]: s for s in deployer_policy(NAMES, redis=True)["Statement"]}
    for sid in ("MakeVpc", "MakeNetwork"):
        assert by_sid[sid]["Condition"] == {"StringEquals": {f"aws:RequestTag/{TAG}": "siren"}}
    for sid in ("InVpc", "RemoveNetwork"):
        assert by_sid[sid]["Condition"] == {"StringEquals": {f"aws:ResourceTag/{TAG}": "siren"}}
    # A VPC that is not ours cannot be built in.
    assert not [arn for arn in by_sid["MakeNetwork"]["Resource"] if arn.endswith(":vpc/*")]
    assert by_sid["TagNetwork"]["Condition"]["StringEquals"].keys() == {"ec2:CreateAction"}


def test_without_a_cache_the_deployer_touches_no_network() -> None:
    actions = granted(deployer_policy(NAMES, redis=False))
    assert not [a for a in actions if a.startswith(("ec2:", "elasticache:"))]


def test_the_bucket_policy_denies_what_is_not_tls() -> None:
    first, second = bucket_policy(NAMES)["Statement"]
    for statement in (first, second):
        assert statement["Effect"] == "Deny"
        assert statement["Principal"] == "*"
        assert statement["Resource"] == [NAMES.bucket_arn, f"{NAMES.bucket_arn}/*"]
    assert first["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert second["Condition"] == {"NumericLessThan": {"s3:TlsVersion": "1.2"}}


def test_documents_fit_into_a_managed_policy() -> None:
    longest = Names("a" * 24, "ap-southeast-2", "123456789012")
    for document in (manager_policy(longest), deployer_policy(longest, redis=True)):
        text = json.dumps(document, separators=(",", ":"))
        assert len(text) <= MANAGED_POLICY_CHARACTERS
