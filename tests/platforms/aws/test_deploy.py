"""`python -m siren.deploy` and `siren.teardown` from end to end, against moto."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siren._roots import root_folder
from siren.deploy import DeployConfig
from siren.deploy import main as deploy
from siren.platforms.aws.actions import FUNCTION
from siren.platforms.aws.api import permission
from siren.platforms.aws.deployment import find_deployment, read_deployment
from siren.platforms.aws.names import REDIS_TAG, TAG, Names
from siren.platforms.aws.policies import Document, deployer_policy, manager_policy
from siren.platforms.manager.versions import Versions
from siren.platforms.package import Package
from siren.teardown import TeardownConfig
from siren.teardown import main as tear_down
from siren.worker.environment import REDIS_URL
from tests.platforms.aws.conftest import REDIS, Cloud
from tests.platforms.aws.test_api import OPERATIONS

BUCKET = "siren-123456789012-us-east-1"
VERSIONS = ("1769x60", "1024x30")


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _small_package(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siren.deploy.build_package", lambda folder, target: package)


def run(
    main: Callable[..., int], config: Any, cloud: Cloud, answer: str | None = None
) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    stdin = io.StringIO() if answer is None else Terminal(answer)
    return main(config, out, err, stdin, cloud.api), out.getvalue(), err.getvalue()


def kept(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.startswith(("create ", "update ", "keep "))}


def granted(document: Document) -> set[str]:
    return {action for s in document["Statement"] if s["Effect"] == "Allow" for action in s["Action"]}


def asked(cloud: Cloud) -> set[str]:
    return {permission(service, name) for service, name in cloud.operations} - {"sts:GetCallerIdentity"}


def leftovers(cloud: Cloud) -> dict[str, list[Any]]:
    """What carries our tag, asked of each service by other means than the code's."""
    ec2, tagged = cloud.client("ec2"), [{"Name": f"tag:{TAG}", "Values": ["siren"]}]
    return {
        "tagged": cloud.client("resourcegroupstaggingapi").get_resources(
            TagFilters=[{"Key": TAG, "Values": ["siren"]}]
        )["ResourceTagMappingList"],
        "roles": [
            r for r in cloud.client("iam").list_roles()["Roles"] if r["RoleName"].startswith("siren-worker")
        ],
        "functions": cloud.client("lambda").list_functions()["Functions"],
        "groups": cloud.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/siren-")[
            "logGroups"
        ],
        "vpcs": ec2.describe_vpcs(Filters=tagged)["Vpcs"],
        "subnets": ec2.describe_subnets(Filters=tagged)["Subnets"],
        "security groups": ec2.describe_security_groups(Filters=tagged)["SecurityGroups"],
        "endpoints": [
            e for e in ec2.describe_vpc_endpoints(Filters=tagged)["VpcEndpoints"] if e["State"] != "deleted"
        ],
        "caches": cloud.client("elasticache").describe_cache_clusters()["CacheClusters"],
        "subnet groups": cloud.client("elasticache").describe_cache_subnet_groups()["CacheSubnetGroups"],
        "parameter groups": list(cloud.parameter_groups),
    }


@pytest.mark.parametrize("channel", ["s3", "redis"])
def test_what_was_deployed_is_kept_by_a_second_run_and_removed_by_teardown(
    cloud: Cloud, channel: str
) -> None:
    config = DeployConfig(channel=channel, yes=True, versions=VERSIONS)  # type: ignore[arg-type]
    code, out, err = run(deploy, config, cloud)
    assert code == 0, err
    assert kept(out) == {"create"}
    before = len(cloud.changes())
    code, out, err = run(deploy, config, cloud)
    assert code == 0, err
    assert kept(out) == {"keep"}
    assert "Nothing to do" in out
    assert len(cloud.changes()) == before  # asked, but changed nothing

    cloud.client("s3").delete_bucket_policy(Bucket=BUCKET)  # moto denies whatever its conditions are
    cloud.client("s3").put_object(Bucket=BUCKET, Key="data/0/00000.bin", Body=b"1234")
    cloud.client("s3").create_multipart_upload(Bucket=BUCKET, Key="runs/x/upload")
    if channel == "redis":
        _let_lambda_make_an_interface(cloud)
    code, out, err = run(tear_down, TeardownConfig(yes=True), cloud)
    assert code == 0, err
    assert f"remove  bucket: {BUCKET} with 1 objects of 4 B" in out
    assert ("remove  cache" in out) == (channel == "redis")
    assert {kind: found for kind, found in leftovers(cloud).items() if found} == {}
    code, out, err = run(tear_down, TeardownConfig(yes=True), cloud)
    assert code == 0, err
    assert "there is nothing to remove" in out


def _let_lambda_make_an_interface(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    (subnet,) = ec2.describe_subnets(Filters=[{"Name": f"tag:{TAG}", "Values": ["siren"]}])["Subnets"]
    made = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]
    cloud.interfaces.append(made["NetworkInterfaceId"])


@pytest.mark.parametrize("redis", [False, True])
def test_the_deployers_policy_is_enough_and_no_more(cloud: Cloud, redis: bool) -> None:
    names = Names("siren", "us-east-1", "123456789012")
    config = DeployConfig(channel="redis" if redis else "s3", yes=True, versions=VERSIONS)
    assert run(deploy, config, cloud)[0] == 0
    assert run(tear_down, TeardownConfig(yes=True), cloud)[0] == 0
    for service, operation in cloud.operations:
        assert operation in OPERATIONS[service].split()
    needed, allowed = asked(cloud), granted(deployer_policy(names, redis=redis))
    assert needed <= allowed
    unasked = {  # not operations of their own, or only of other ways through the code
        "ec2:CreateTags",
        "elasticache:AddTagsToResource",
        "elasticache:ModifyCacheCluster",
        "iam:CreateServiceLinkedRole",
        "iam:PassRole",
        "iam:TagRole",
        "iam:UpdateAssumeRolePolicy",
        "lambda:UpdateFunctionCode",
        "logs:TagResource",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:PutBucketOwnershipControls",
        "s3:PutObject",
    }
    assert allowed - needed <= unasked | set(FUNCTION)


def test_the_managers_policy_allows_finding_and_publishing(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(yes=True), cloud)[0] == 0
    cloud.operations.clear()
    found = read_deployment(cloud.api, "siren")
    versions = Versions(found.backend(), found.code_sha256, cloud.api.client("lambda"))
    assert versions.arn(1769, 60).endswith(":function:siren-worker:1")
    allowed = granted(manager_policy(Names("siren", "us-east-1", "123456789012")))
    objects = {"s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"}
    assert asked(cloud) | objects | {"lambda:InvokeFunction"} == allowed


def test_the_bucket_is_private_encrypted_and_forgets_runs(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(yes=True, run_days=7), cloud)[0] == 0
    s3 = cloud.client("s3")
    assert set(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values()) == {True}
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [(r["Filter"]["Prefix"], r.get("Expiration")) for r in rules] == [
        ("runs/", {"Days": 7}),
        ("", None),
    ]
    assert rules[1]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    ownership = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    (rule,) = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=BUCKET)["Policy"]
    (group,) = cloud.client("logs").describe_log_groups()["logGroups"]
    assert group["retentionInDays"] == 14


def test_everything_carries_the_tag(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(channel="redis", yes=True), cloud)[0] == 0
    found = {kind: len(items) for kind, items in leftovers(cloud).items()}
    untagged = {
        "functions": 1,
        "roles": 1,
        "groups": 1,
        "caches": 1,
        "subnet groups": 1,
        "parameter groups": 1,
    }
    assert found | untagged == {**untagged, "vpcs": 1, "subnets": 1, "security groups": 1, "endpoints": 1} | {
        "tagged": found["tagged"]
    }
    role = cloud.client("iam").get_role(RoleName="siren-worker-us-east-1")["Role"]
    assert {"Key": TAG, "Value": "siren"} in role["Tags"]
    arns = {item["ResourceARN"] for item in leftovers(cloud)["tagged"]}
    for part in (
        "s3:::siren-",
        ":function:siren-worker",
        ":cluster:siren-cache",
        ":log-group:/aws/lambda/siren-",
    ):
        assert any(part in arn for arn in arns), part


def test_what_differs_is_corrected_and_nothing_else(cloud: Cloud) -> None:
    config = DeployConfig(yes=True, versions=VERSIONS)
    assert run(deploy, config, cloud)[0] == 0
    cloud.client("s3").delete_public_access_block(Bucket=BUCKET)
    cloud.client("s3").delete_bucket_policy(Bucket=BUCKET)
    cloud.client("iam").put_role_policy(
        RoleName="siren-worker-us-east-1",
        PolicyName="siren-worker",
        PolicyDocument=json.dumps(deployer_policy(Names("siren", "us-east-1", "123456789012"), redis=False)),
    )
    cloud.client("logs").put_retention_policy(logGroupName="/aws/lambda/siren-worker", retentionInDays=1)
    cloud.client("lambda").put_function_concurrency(
        FunctionName="siren-worker", ReservedConcurrentExecutions=3
    )
    cloud.operations.clear()
    code, out, err = run(deploy, config, cloud)
    assert code == 0, err
    assert sorted(cloud.changes()) == [
        "PutBucketPolicy",
        "PutFunctionConcurrency",
        "PutPublicAccessBlock",
        "PutRetentionPolicy",
        "PutRolePolicy",
    ]
    assert "public access block, policy" in out
    assert kept(run(deploy, config, cloud)[1]) == {"keep"}


def test_new_code_is_uploaded_and_old_versions_are_removed(
    cloud: Cloud, other_package: Callable[[bytes], Package], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DeployConfig(yes=True, versions=VERSIONS)
    assert run(deploy, config, cloud)[0] == 0
    newer = other_package(b"new")
    monkeypatch.setattr("siren.deploy.build_package", lambda folder, target: newer)
    code, out, _ = run(deploy, config, cloud)
    assert code == 0
    assert "code" in out
    assert "1,769 MB with 60 s, 1,024 MB with 30 s" in out
    published = cloud.client("lambda").list_versions_by_function(FunctionName="siren-worker")["Versions"]
    numbered = [v for v in published if v["Version"] != "$LATEST"]
    assert {v["CodeSha256"] for v in numbered} == {newer.sha256_base64}
    assert sorted((v["MemorySize"], v["Timeout"]) for v in numbered) == [(1024, 30), (1769, 60)]


def test_a_cache_can_be_added_and_not_forgotten(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(yes=True, versions=VERSIONS), cloud)[0] == 0
    code, out, err = run(deploy, DeployConfig(yes=True, channel="redis", versions=VERSIONS), cloud)
    assert code == 0, err
    assert "Environment, VpcConfig, tags" in out
    assert "While nothing runs: $0.032 per started hour" in out
    facts = cloud.client("lambda").get_function(FunctionName="siren-worker")
    assert len(facts["Configuration"]["VpcConfig"]["SubnetIds"]) == 1
    # What the worker builds its client from, and what the manager puts into tasks, are one URL.
    assert facts["Configuration"]["Environment"]["Variables"][REDIS_URL] == facts["Tags"][REDIS_TAG]
    (group,) = facts["Configuration"]["VpcConfig"]["SecurityGroupIds"]
    (rule,) = cloud.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0][
        "IpPermissions"
    ]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (6379, 6379, [])
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group]
    code, _, err = run(deploy, DeployConfig(yes=True), cloud)
    assert code == 2
    assert "has a cache, which is billed by the hour: add --channel redis" in err


def test_the_network_has_no_way_to_the_internet(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(yes=True, channel="redis"), cloud)[0] == 0
    ec2 = cloud.client("ec2")
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": f"tag:{TAG}", "Values": ["siren"]}])["Vpcs"]
    here = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    assert (
        ec2.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc["VpcId"]]}])[
            "InternetGateways"
        ]
        == []
    )
    assert ec2.describe_nat_gateways(Filters=here)["NatGateways"] == []
    (endpoint,) = ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]
    assert endpoint["ServiceName"] == "com.amazonaws.us-east-1.s3"
    assert endpoint["VpcEndpointType"] == "Gateway"
    (subnet,) = ec2.describe_subnets(Filters=here)["Subnets"]  # what crosses zones would be billed
    (group,) = cloud.client("elasticache").describe_cache_subnet_groups()["CacheSubnetGroups"]
    assert [each["SubnetIdentifier"] for each in group["Subnets"]] == [subnet["SubnetId"]]
    facts = cloud.client("lambda").get_function_configuration(FunctionName="siren-worker")
    assert facts["VpcConfig"]["SubnetIds"] == [subnet["SubnetId"]]


def test_a_run_finds_the_deployment_by_its_name(cloud: Cloud, package: Package) -> None:
    config = DeployConfig(yes=True, channel="redis", print_json=True)
    code, out, err = run(deploy, config, cloud)
    assert code == 0
    found = read_deployment(cloud.api, "siren")
    assert json.loads(out) == found.to_json()
    assert "create  function" in err
    assert (found.code_sha256, found.concurrency) == (package.sha256_base64, 100)
    backend = find_deployment("siren", "us-east-1")
    assert backend == found.backend()
    assert backend.spends_money
    assert (backend.name, backend.bucket, backend.function_name) == ("aws", BUCKET, "siren-worker")
    assert backend.redis_url == f"redis://{REDIS}:6379"
    assert (backend.lambda_url, backend.s3_url, backend.credentials) == (None, None, None)
    assert (backend.runtime, backend.role_arn.split("/")[-1]) == ("python3.13", "siren-worker-us-east-1")


@pytest.mark.parametrize("foreign", ["bucket", "role", "log group", "function"])
def test_what_is_not_ours_is_neither_changed_nor_removed(cloud: Cloud, foreign: str) -> None:
    _make_foreign(cloud, foreign)
    code, _, err = run(deploy, DeployConfig(yes=True), cloud)
    assert code == 2
    assert f"the {foreign} " in err
    assert "does not carry the tag siren:deployment = siren: choose another --name" in err
    code, out, _ = run(tear_down, TeardownConfig(yes=True), cloud)
    assert code == 0
    assert f"remove  {foreign}:" not in out
    assert _still_there(cloud, foreign)


def _make_foreign(cloud: Cloud, kind: str) -> None:
    role = cloud.client("iam").create_role(
        RoleName="siren-worker-us-east-1" if kind == "role" else "other", AssumeRolePolicyDocument="{}"
    )["Role"]
    if kind == "bucket":
        cloud.client("s3").create_bucket(Bucket=BUCKET)
    elif kind == "log group":
        cloud.client("logs").create_log_group(logGroupName="/aws/lambda/siren-worker", tags={TAG: "another"})
    elif kind == "function":
        cloud.client("lambda").create_function(
            FunctionName="siren-worker",
            Role=role["Arn"],
            Code={"ZipFile": b""},
            Runtime="python3.13",
            Handler="x.y",
        )


def _still_there(cloud: Cloud, kind: str) -> bool:
    if kind == "bucket":
        return bool(cloud.client("s3").head_bucket(Bucket=BUCKET))
    if kind == "role":
        return bool(cloud.client("iam").get_role(RoleName="siren-worker-us-east-1"))
    if kind == "log group":
        return bool(cloud.client("logs").describe_log_groups()["logGroups"])
    return bool(cloud.client("lambda").list_functions()["Functions"])


def test_two_deployments_stand_side_by_side(cloud: Cloud) -> None:
    for name in ("one", "two"):
        code, _, err = run(deploy, DeployConfig(yes=True, name=name, channel="redis"), cloud)
        assert code == 0, err
    assert run(tear_down, TeardownConfig(yes=True, name="one"), cloud)[0] == 0
    code, out, _ = run(deploy, DeployConfig(yes=True, name="two", channel="redis"), cloud)
    assert code == 0
    assert kept(out) == {"keep"}


def test_an_interrupted_deployment_is_gone_on_with(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    call, left = cloud.api.call, [0]

    def fail_later(service: str, operation: str, **arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return call(service, operation, **arguments)

    config = DeployConfig(yes=True, channel="redis", versions=VERSIONS)
    for step in (30, 45, 60):
        left[0] = step
        monkeypatch.setattr(cloud.api, "call", fail_later)
        code, _, err = run(deploy, config, cloud)
        assert code in (0, 130)
        if code:
            assert "run it again to go on" in err
    left[0] = 0
    code, _, err = run(deploy, config, cloud)
    assert code == 0, err
    assert kept(run(deploy, config, cloud)[1]) == {"keep"}
    left[0] = 20
    assert run(tear_down, TeardownConfig(yes=True), cloud)[0] == 130
    left[0] = 0
    assert run(tear_down, TeardownConfig(yes=True), cloud)[0] == 0
    assert {kind: found for kind, found in leftovers(cloud).items() if found} == {}


@pytest.mark.parametrize(
    ("limit", "hint"),
    [
        ((1000, 150), "give --concurrency 50 or less"),
        (
            (10, 10),
            "the account runs 10 functions at once in us-east-1, 0 are reserved for others and 100 must",
        ),
    ],
)
def test_a_reservation_that_aws_would_refuse_is_refused(
    cloud: Cloud, limit: tuple[int, int], hint: str
) -> None:
    cloud.limit = dict(zip(("ConcurrentExecutions", "UnreservedConcurrentExecutions"), limit, strict=True))
    code, _, err = run(deploy, DeployConfig(yes=True), cloud)
    assert code == 2
    assert hint in err
    assert "raised in Service Quotas" in err
    assert cloud.changes() == []


def test_a_reservation_of_ones_own_counts_as_free(cloud: Cloud) -> None:
    assert run(deploy, DeployConfig(yes=True, concurrency=900), cloud)[0] == 0
    cloud.limit["UnreservedConcurrentExecutions"] = 100
    assert kept(run(deploy, DeployConfig(yes=True, concurrency=900), cloud)[1]) == {"keep"}
    code, _, err = run(deploy, DeployConfig(yes=True, concurrency=901), cloud)
    assert code == 2
    assert "give --concurrency 900 or less" in err


def test_nothing_happens_without_a_yes(cloud: Cloud) -> None:
    for answer in (None, "", "no\n", "nein\n"):
        code, out, err = run(deploy, DeployConfig(), cloud, answer)
        assert code == 2
        assert "create  function" in out
        assert ("Nobody can answer here: add --yes" if answer is None else "nothing was created") in err
    assert cloud.changes() == []
    assert run(deploy, DeployConfig(), cloud, "y\n")[0] == 0
    for answer in (None, "n\n"):
        assert run(tear_down, TeardownConfig(), cloud, answer)[0] == 2
    code, out, _ = run(tear_down, TeardownConfig(dry_run=True, print_json=True), cloud)
    assert code == 0
    removed = [item["kind"] for item in json.loads(out)["removed"]]
    assert removed == ["function", "log group", "bucket", "role"]
    assert kept(run(deploy, DeployConfig(), cloud, "y\n")[1]) == {"keep"}
    assert run(tear_down, TeardownConfig(), cloud, "yes\n")[0] == 0


def test_a_dry_run_asks_nothing_of_aws(cloud: Cloud) -> None:
    code, out, _ = run(deploy, DeployConfig(dry_run=True, channel="redis", versions=VERSIONS), cloud)
    assert code == 0
    assert cloud.operations == []
    assert kept(out) == {"create"}
    assert "account <account>" in out
    for price in ("$0.023 per GB and month", "$0.0000166667 per GB-second", "$23.808 per month of 31 days"):
        assert price in out
    assert "$10.37 per hour in which 100 functions of 1,769 MB run" in out


def test_the_plan_says_what_the_workload_needs(cloud: Cloud) -> None:
    assert (
        "mlp-mnist trains with additive, which needs a cache"
        in run(deploy, DeployConfig(dry_run=True), cloud)[1]
    )
    redis = run(deploy, DeployConfig(dry_run=True, channel="redis"), cloud)[1]
    assert "needs a cache" not in redis


@pytest.mark.parametrize(("run_days", "told"), [(30, False), (31, True)])
def test_what_lies_in_the_bucket_for_longer_than_a_run_pays_is_told(cloud: Cloud, run_days, told) -> None:
    out = run(deploy, DeployConfig(dry_run=True, run_days=run_days), cloud)[1]
    assert ("holds 31 days of what a failed epoch leaves" in out) == told


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"name": "Not A Name"}, "use at most 24 small letters"),
        ({"concurrency": 0}, "give 1 to 1,000"),
        ({"concurrency": 1001}, "the limit of world aws-2026"),
        ({"log_days": 2}, "CloudWatch takes one of 1, 3, 5, 7, 14"),
        ({"run_days": 0}, "give at least 1 day"),
        ({"versions": ("fast",)}, "write MEMORYxTIMEOUT"),
        ({"versions": ("1000x60",)}, "no memory of 1000 is used in world aws-2026"),
        ({"versions": ("1024x61",)}, "no timeout of 61 is used"),
        ({"workload": "mlp-mnst"}, "did you mean 'mlp-mnist'"),
        ({"account": "123456789012"}, "only with --dry-run or --print-policy"),
        ({"account": "12", "dry_run": True}, "takes 12 digits"),
    ],
)
def test_bad_options_are_refused_before_aws_is_asked(
    cloud: Cloud, options: dict[str, Any], hint: str
) -> None:
    code, out, err = run(deploy, DeployConfig(**options), cloud)
    assert code == 2
    assert hint in err
    assert out == ""
    assert cloud.changes() == []


def test_a_world_without_a_cache_node_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    text = (root_folder("envs") / "aws-2026.toml").read_text()
    world = tmp_path / "mine.toml"
    world.write_text(text.replace('node = "cache.t4g.small"', 'node = ""'))
    code, _, err = run(deploy, DeployConfig(dry_run=True, channel="redis", world=str(world)), cloud)
    assert code == 2
    assert "world mine names no cache node" in err
    world.write_text(text.replace('node = "cache.t4g.small"', 'node = "cache.x9.huge"'))
    code, _, err = run(deploy, DeployConfig(dry_run=True, channel="redis", world=str(world)), cloud)
    assert code == 2
    assert "no price is known for cache node 'cache.x9.huge'" in err


def test_a_region_without_known_prices_is_refused(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DeployConfig(dry_run=True, region="eu-central-1")
    out, err = io.StringIO(), io.StringIO()
    assert deploy(config, out, err) == 2
    assert "world aws-2026 has the prices of us-east-1, not of eu-central-1" in err.getvalue()


@pytest.mark.parametrize("kind", ["manager", "deployer", "worker"])
def test_policies_are_printed_for_an_account(cloud: Cloud, kind: str) -> None:
    config = DeployConfig(print_policy=True, policy_of=kind, account="210987654321")  # type: ignore[arg-type]
    code, out, _ = run(deploy, config, cloud)
    assert code == 0
    assert json.loads(out)["Version"] == "2012-10-17"
    assert "arn:aws:s3:::siren-210987654321-us-east-1" in out
    assert cloud.operations == []


def test_the_commands_run_without_credentials(checkout: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    environment["AWS_CONFIG_FILE"] = environment["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", *words]
        return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)

    done = command("siren.deploy", "--print-policy", "--region", "us-east-1", "--account", "123456789012")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Statement"]
    done = command("siren.deploy", "--print-policy")
    assert done.returncode == 2
    assert "no AWS region is given: add --region" in done.stderr
    done = command("siren.teardown", "--region", "us-east-1", "--dry-run")
    assert done.returncode == 2
    assert "run `aws configure` or set AWS_PROFILE" in done.stderr


def test_nothing_secret_is_logged(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siren")
    _, out, err = run(deploy, DeployConfig(yes=True, versions=VERSIONS), cloud)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in out + err + caplog.text


def test_the_package_can_be_saved(cloud: Cloud, package: Package, tmp_path: Path) -> None:
    config = DeployConfig(save_package=tmp_path / "worker.zip")
    code, out, _ = run(deploy, config, cloud)
    assert code == 0
    assert (tmp_path / "worker.zip").read_bytes() == package.content
    assert package.sha256_base64 in out
    assert run(deploy, config, cloud)[0] == 2
    assert run(deploy, DeployConfig(save_package=tmp_path / "no" / "worker.zip"), cloud)[0] == 4
    assert cloud.operations == []
