"""IAM policy documents of a deployment: least privilege, one function a document.

No action has a wildcard. `"*"` as a resource appears only for `actions.NO_RESOURCE_LEVEL`, and in
denials, which widen nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siren.platforms.aws import actions
from siren.platforms.aws.names import TAG, Names

Document = dict[str, Any]

WORKER_POLICY = "siren-worker"
"""Name of the role's only, inline policy."""


def worker_policy(names: Names, *, vpc: bool) -> Document:
    """What a worker may do: read the data, exchange parameters, write its log.

    ListBucket is there because S3 answers 403 instead of 404 for a key that does not exist to those who
    must not list (S3 API reference, GetObject); workers wait for each other's objects.

    Args:
        names: The deployment.
        vpc: Whether the function is in a VPC: Lambda manages its network interfaces with this role
            (AWS Lambda developer guide, configuration-vpc). The function's own code is denied that.
    """
    interfaces = [
        names.regional("ec2", f"{kind}/*") for kind in ("network-interface", "security-group", "subnet")
    ]
    statements = [
        _allow("ReadData", ["s3:GetObject"], [f"{names.bucket_arn}/data/*"]),
        _allow("Exchange", ["s3:GetObject", "s3:PutObject"], [f"{names.bucket_arn}/runs/*"]),
        _allow("SeeWhatIsMissing", ["s3:ListBucket"], [names.bucket_arn]),
        _allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], [f"{names.log_group_arn}:*"]),
    ]
    if vpc:
        own_code = {"ArnEquals": {"lambda:SourceFunctionArn": names.function_arn}}
        denied = sorted([*actions.INTERFACES, *actions.SEE_INTERFACES])
        statements += [
            _allow("NetworkInterfaces", actions.INTERFACES, interfaces),
            _allow("SeeNetworkInterfaces", actions.SEE_INTERFACES, ["*"]),
            {
                "Sid": "NotTheFunction",
                "Effect": "Deny",
                "Action": denied,
                "Resource": ["*"],
                "Condition": own_code,
            },
        ]
    return _document(statements)


def trust_policy(names: Names) -> Document:
    """Lambda may take the role, for functions of this account alone."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": names.account}},
    }
    return _document([statement])


def bucket_policy(names: Names) -> Document:
    """Nobody reaches the bucket without TLS 1.2 or newer."""
    resources = [names.bucket_arn, f"{names.bucket_arn}/*"]
    conditions = {
        "OnlyTls": {"Bool": {"aws:SecureTransport": "false"}},
        "OnlyModernTls": {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    }
    return _document(
        [
            {
                "Sid": sid,
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": resources,
                "Condition": when,
            }
            for sid, when in conditions.items()
        ]
    )


def endpoint_policy(names: Names) -> Document:
    """Through the VPC's way to S3, only the deployment's bucket can be reached."""
    statements = [
        _allow("Objects", ["s3:GetObject", "s3:PutObject"], [f"{names.bucket_arn}/*"]),
        _allow("List", ["s3:ListBucket"], [names.bucket_arn]),
    ]
    return _document([{**statement, "Principal": "*"} for statement in statements])


def manager_policy(names: Names) -> Document:
    """What `siren.run --platform aws` does: publish versions, invoke them, store data and parameters.

    Of what it stored it removes the parameters: the training set stays for the next run.
    """
    bucket, function = names.bucket_arn, names.function_arn
    publish = ["lambda:PublishVersion", "lambda:UpdateFunctionConfiguration"]
    read = ["lambda:GetFunction", "lambda:GetFunctionConfiguration", "lambda:ListVersionsByFunction"]
    return _document(
        [
            _allow("Versions", [*read, *publish], [function, f"{function}:*"]),
            _allow("Invoke", ["lambda:InvokeFunction"], [f"{function}:*"]),
            _allow("Objects", ["s3:GetObject", "s3:PutObject"], [f"{bucket}/data/*", f"{bucket}/runs/*"]),
            _allow("RemovePastEpochs", ["s3:DeleteObject"], [f"{bucket}/runs/*"]),
            # Without it a missing object is denied (403) rather than missing (404).
            _allow("List", ["s3:ListBucket"], [bucket]),
        ]
    )


def deployer_policy(names: Names, *, redis: bool) -> Document:
    """What `siren.deploy` and `siren.teardown` do.

    Args:
        names: The deployment.
        redis: With the VPC and the cache.
    """
    bucket, function, logs = names.bucket_arn, names.function_arn, names.log_group_arn
    statements = [
        _allow("Function", actions.FUNCTION, [function, f"{function}:*"]),
        _allow("Limits", ["lambda:GetAccountSettings"], ["*"]),
        _allow("Role", actions.ROLE, [names.role_arn]),
        {
            **_allow("PassRole", ["iam:PassRole"], [names.role_arn]),
            "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
        },
        _allow("Bucket", actions.BUCKET, [bucket]),
        _allow("Objects", ["s3:AbortMultipartUpload", "s3:DeleteObject"], [f"{bucket}/*"]),
        _allow("Code", ["s3:GetObject", "s3:PutObject"], [f"{bucket}/code/*"]),
        _allow("LogGroup", actions.LOG_GROUP, [logs, f"{logs}:*"]),
        # A listing is asked of all log groups, whatever prefix it names.
        _allow("LogGroups", ["logs:DescribeLogGroups"], [names.regional("logs", "log-group:*")]),
    ]
    return _document([*statements, *(_redis_statements(names) if redis else [])])


def _redis_statements(names: Names) -> list[Document]:
    """The network and the cache. What is made must carry the deployment's tag; only that is removed."""
    vpcs = [names.regional("ec2", "vpc/*")]
    inside = [names.regional("ec2", f"{kind}/*") for kind in ("security-group", "subnet", "vpc-endpoint")]
    made = sorted([*vpcs, *inside])
    create_inside = [action for action in actions.MAKE_NETWORK if action != "ec2:CreateVpc"]
    create = [action.partition(":")[2] for action in actions.MAKE_NETWORK]
    caches = [f"{kind}:{names.cache}" for kind in ("cluster", "parametergroup", "subnetgroup")]
    linked = "aws-service-role/elasticache.amazonaws.com/AWSServiceRoleForElastiCache"
    new = {"StringEquals": {f"aws:RequestTag/{TAG}": names.deployment}}
    ours = {"StringEquals": {f"aws:ResourceTag/{TAG}": names.deployment}}
    return [
        _allow("SeeNetwork", actions.SEE_NETWORK, ["*"]),
        {**_allow("MakeVpc", ["ec2:CreateVpc"], vpcs), "Condition": new},
        {**_allow("MakeNetwork", create_inside, inside), "Condition": new},
        # Making one thing inside another is asked of both.
        {**_allow("InVpc", create_inside, vpcs), "Condition": ours},
        # The VPC's main route table is AWS's own and has no tag.
        _allow("RouteToS3", ["ec2:CreateVpcEndpoint"], [names.regional("ec2", "route-table/*")]),
        {
            **_allow("TagNetwork", ["ec2:CreateTags"], made),
            "Condition": {"StringEquals": {"ec2:CreateAction": create}},
        },
        {**_allow("RemoveNetwork", actions.CHANGE_NETWORK, made), "Condition": ours},
        _allow("Cache", actions.CACHE, [names.regional("elasticache", part) for part in caches]),
        {
            **_allow(
                "CacheServiceRole",
                ["iam:CreateServiceLinkedRole"],
                [f"arn:{names.partition}:iam::{names.account}:role/{linked}"],
            ),
            "Condition": {"StringEquals": {"iam:AWSServiceName": "elasticache.amazonaws.com"}},
        },
    ]


def _allow(sid: str, names: Sequence[str], resources: list[str]) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": sorted(names), "Resource": resources}


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}
