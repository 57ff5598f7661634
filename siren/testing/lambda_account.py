"""How a Lambda endpoint makes, changes, limits and deletes functions, as tests: see `lambda_endpoint`."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from siren.testing.lambda_target import Account, Conformance, Target, sha256


class ControlConformance(Conformance):
    """How functions are made, changed, limited and deleted."""

    @pytest.fixture
    def function(self, account: Account) -> str:
        """A function of this test."""
        return account.create()

    def test_a_new_function_is_told_as_it_was_asked_for(self, account: Account) -> None:
        """CreateFunction, GetFunction, GetFunctionConfiguration."""
        package = account.package("def handler(event, context): return 1")
        name = account.create(
            Code={"ZipFile": package},
            Description="a test",
            MemorySize=512,
            Timeout=7,
            Environment={"Variables": {"COLOUR": "red"}},
            Tags={"project": "siren"},
        )
        told = account.client.get_function(FunctionName=name)
        configuration = told["Configuration"]
        assert (configuration["FunctionName"], configuration["Version"]) == (name, "$LATEST")
        assert (configuration["MemorySize"], configuration["Timeout"]) == (512, 7)
        assert (configuration["Handler"], configuration["Description"]) == ("app.handler", "a test")
        assert (configuration["CodeSha256"], configuration["CodeSize"]) == (sha256(package), len(package))
        assert configuration["Environment"]["Variables"] == {"COLOUR": "red"}
        assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Successful")
        assert told["Tags"] == {"project": "siren"}
        alone = account.client.get_function_configuration(FunctionName=configuration["FunctionArn"])
        assert alone["RevisionId"] == configuration["RevisionId"]

    def test_variables_reach_the_function(self, account: Account) -> None:
        """Environment."""
        name = account.create(Environment={"Variables": {"COLOUR": "red"}})
        assert account.invoke(name, "context", variables=["COLOUR"]).payload["variables"] == {"COLOUR": "red"}

    def test_reserved_variables_are_refused(self, account: Account) -> None:
        """What Lambda itself sets."""
        self._refused_creation(account, Environment={"Variables": {"AWS_REGION": "elsewhere"}})

    @pytest.mark.parametrize("setting", [{"MemorySize": 10_241}, {"Timeout": 901}], ids=["memory", "timeout"])
    def test_limits_of_a_configuration_hold(self, account: Account, setting: dict[str, int]) -> None:
        """botocore's model allows more: that is for other kinds of functions."""
        self._refused_creation(account, **setting)

    def test_a_package_that_is_no_zip_is_refused(self, account: Account) -> None:
        """InvalidParameterValueException."""
        self._refused_creation(account, Code={"ZipFile": b"no zip"})

    def test_a_name_is_taken_once(self, account: Account, function: str) -> None:
        """ResourceConflictException."""
        refused = account.refused(
            account.client.create_function,
            FunctionName=function,
            Runtime=account.target.runtime,
            Role=account.target.role,
            Handler="app.handler",
            Code={"ZipFile": account.package("")},
        )
        assert (refused["code"], refused["status"]) == ("ResourceConflictException", 409)

    def test_what_does_not_exist_is_not_found(self, account: Account, function: str) -> None:
        """ResourceNotFoundException."""
        client = account.client
        for call, arguments in (
            (client.get_function, {"FunctionName": "no-such-function"}),
            (client.invoke, {"FunctionName": "no-such-function"}),
            (client.delete_function, {"FunctionName": "no-such-function"}),
            (client.invoke, {"FunctionName": function, "Qualifier": "77"}),
        ):
            refused = account.refused(call, **arguments)
            assert (refused["code"], refused["status"]) == ("ResourceNotFoundException", 404)

    def test_new_code_runs_after_an_update(self, account: Account, function: str) -> None:
        """UpdateFunctionCode: no environment of the old code is used again."""
        assert account.invoke(function).error is None
        package = account.package("def handler(event, context): return 'new'")
        told = account.client.update_function_code(FunctionName=function, ZipFile=package)
        assert told["CodeSha256"] == sha256(package)
        account.settle(function)
        assert account.invoke(function).payload == "new"

    def test_code_can_come_from_s3(self, account: Account, target: Target, function: str) -> None:
        """S3Bucket and S3Key; what is not there is refused."""
        if target.upload is None:
            pytest.fail("no package can be uploaded")
        package = account.package("def handler(event, context): return 'from S3'")
        bucket, key = target.upload(package)
        account.client.update_function_code(FunctionName=function, S3Bucket=bucket, S3Key=key)
        account.settle(function)
        assert account.invoke(function).payload == "from S3"
        arguments = {"FunctionName": function, "S3Bucket": bucket, "S3Key": "no-such-key"}
        refused = account.refused(account.client.update_function_code, **arguments)
        assert refused["code"] == "InvalidParameterValueException"

    def test_a_version_keeps_its_configuration(self, account: Account, function: str) -> None:
        """PublishVersion; invoked by qualifier and by its ARN."""
        account.configure(function, MemorySize=300)
        first = account.publish(function)
        account.configure(function, MemorySize=400)
        second = account.publish(function)
        assert (first["Version"], second["Version"]) == ("1", "2")
        assert first["FunctionArn"].endswith(f":function:{function}:1")
        for version, memory_mb in ((first, 300), (second, 400)):
            number = version["Version"]
            by_arn = account.invoke(version["FunctionArn"], "context", variables=[])
            by_qualifier = account.invoke(function, "context", number, variables=[])
            for answer in (by_arn, by_qualifier):
                assert answer.version == answer.payload["version"] == number
                assert answer.payload["memory_mb"] == memory_mb
            assert by_arn.payload["arn"] == version["FunctionArn"]

    def test_nothing_new_is_published_twice(self, account: Account, function: str) -> None:
        """The version that there is comes back."""
        assert account.publish(function)["Version"] == account.publish(function)["Version"] == "1"

    def test_only_the_expected_code_is_published(self, account: Account, function: str) -> None:
        """CodeSha256."""
        client = account.client
        refused = account.refused(client.publish_version, FunctionName=function, CodeSha256=sha256(b"other"))
        assert refused["code"] == "InvalidParameterValueException"

    def test_only_the_expected_revision_is_changed(self, account: Account, function: str) -> None:
        """RevisionId."""
        client = account.client
        refused = account.refused(
            client.update_function_configuration,
            FunctionName=function,
            RevisionId=str(uuid.uuid4()),
            Timeout=5,
        )
        assert (refused["code"], refused["status"]) == ("PreconditionFailedException", 412)

    def test_versions_are_listed_and_deleted_one_by_one(self, account: Account, function: str) -> None:
        """ListVersionsByFunction, DeleteFunction with Qualifier."""
        account.publish(function)
        account.configure(function, Timeout=9)
        account.publish(function)
        assert self._versions(account, function) == ["$LATEST", "1", "2"]
        account.client.delete_function(FunctionName=function, Qualifier="1")
        assert self._versions(account, function) == ["$LATEST", "2"]
        account.client.delete_function(FunctionName=function)
        refused = account.refused(account.client.get_function, FunctionName=function)
        assert refused["code"] == "ResourceNotFoundException"

    def test_latest_goes_with_its_function_only(self, account: Account, function: str) -> None:
        """DeleteFunction with the qualifier $LATEST."""
        refused = account.refused(account.client.delete_function, FunctionName=function, Qualifier="$LATEST")
        assert refused["code"] == "InvalidParameterValueException"

    def test_reserved_concurrency_is_a_ceiling(self, account: Account, function: str) -> None:
        """One of two at once is throttled, with the reason."""
        client = account.client
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
        assert client.get_function_concurrency(FunctionName=function)["ReservedConcurrentExecutions"] == 1
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(account.invoke, function, "sleep", s=3)
            time.sleep(1.5)
            refused = account.refused(client.invoke, FunctionName=function)
            assert running.result().error is None
        self._check_throttle(refused)
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
        self._check_throttle(account.refused(client.invoke, FunctionName=function))
        client.delete_function_concurrency(FunctionName=function)
        assert account.invoke(function).error is None

    def test_a_hundred_stay_unreserved(self, account: Account, function: str) -> None:
        """Of the account's concurrency, which GetAccountSettings tells."""
        client = account.client
        limit = client.get_account_settings()["AccountLimit"]
        most = limit["ConcurrentExecutions"]
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=10)
        left = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
        assert left == limit["UnreservedConcurrentExecutions"] - 10
        refused = account.refused(
            client.put_function_concurrency, FunctionName=function, ReservedConcurrentExecutions=most - 99
        )
        assert (refused["code"], refused["status"]) == ("InvalidParameterValueException", 400)

    def test_tags_can_be_changed(self, account: Account, function: str) -> None:
        """TagResource, UntagResource, ListTags."""
        client = account.client
        arn = client.get_function_configuration(FunctionName=function)["FunctionArn"]
        client.tag_resource(Resource=arn, Tags={"project": "siren", "run": "one"})
        client.untag_resource(Resource=arn, TagKeys=["run"])
        assert client.list_tags(Resource=arn)["Tags"] == {"project": "siren"}

    def _refused_creation(self, account: Account, **settings: Any) -> None:
        with pytest.raises(ClientError) as caught:
            account.create(**settings)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"

    def _versions(self, account: Account, function: str) -> list[str]:
        pages = account.client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        return [version["Version"] for page in pages for version in page["Versions"]]

    def _check_throttle(self, refused: dict[str, Any]) -> None:
        assert (refused["code"], refused["status"]) == ("TooManyRequestsException", 429)
        assert refused["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
