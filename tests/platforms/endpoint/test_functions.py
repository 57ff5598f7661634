"""Functions and versions, on a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from siren.platforms.endpoint.code import Code
from siren.platforms.endpoint.errors import ApiError
from siren.platforms.endpoint.functions import Registry
from siren.platforms.endpoint.settings import RUNTIME, Settings

ROLE = "arn:aws:iam::000000000000:role/siren"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
REQUEST = {
    "FunctionName": "f",
    "Runtime": RUNTIME,
    "Handler": "app.handler",
    "Role": ROLE,
    "Code": {"ZipFile": "x"},
}
CODE = Code("c2hh", 10, Path("/nowhere"))


def registry(**settings) -> Registry:
    """With a function `f`, made at second 0."""
    registry = Registry(Settings(Path("/nowhere"), "key", "secret", **settings))
    registry.create(REQUEST, CODE, now=0.0)
    return registry


def refusal(call, *args, **kwargs) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call(*args, **kwargs)
    return caught.value


def test_what_was_made_or_changed_is_not_ready_for_a_while():
    functions = registry(pending_s=5.0)
    latest = functions.configuration("f", None)
    assert (latest.to_json(4.9)["State"], latest.to_json(5.0)["State"]) == ("Pending", "Active")
    refused = refusal(functions.check_settled, latest, 4.9)
    assert (refused.status, refused.kind) == (409, "ResourceConflictException")
    functions.check_settled(latest, 5.0)
    changed = functions.update("f", 10.0, None, timeout_s=7)
    assert changed.to_json(14.9)["LastUpdateStatus"] == "InProgress"
    assert changed.to_json(14.9)["State"] == "Active", "it can be invoked all the same"
    for call in (functions.update, functions.publish):
        arguments = (14.9, None) if call == functions.update else ({}, 14.9)
        assert "An update is in progress" in refusal(call, "f", *arguments).message
    published = functions.publish("f", {}, 15.0)
    assert (published.version, published.to_json(15.0)["State"]) == ("1", "Pending")


def test_numbers_of_versions_are_never_used_again():
    functions = registry()
    assert functions.publish("f", {}, 1.0).version == "1"
    assert functions.publish("f", {}, 2.0).version == "1", "nothing has changed"
    assert [each.version for each in functions.delete("f", "1")] == ["1"]
    assert functions.publish("f", {}, 3.0).version == "2"
    assert [each.version for each in functions.delete("f", None)] == ["$LATEST", "2"]
    assert refusal(functions.function, "f").status == 404


@pytest.mark.parametrize(
    ("text", "qualifier", "found"),
    [
        ("f", None, ("f", None)),
        ("f", "3", ("f", "3")),
        ("f:3", None, ("f", "3")),
        (ARN, None, ("f", None)),
        (f"{ARN}:3", None, ("f", "3")),
        (f"{ARN}:3", "3", ("f", "3")),
        (f"{ARN}:$LATEST", None, ("f", "$LATEST")),
        ("000000000000:function:f", None, ("f", None)),
    ],
)
def test_functions_are_named_in_all_of_the_ways_of_aws(text, qualifier, found):
    assert registry().reference(text, qualifier) == found


@pytest.mark.parametrize(
    ("text", "qualifier", "status"),
    [
        (f"{ARN}:3", "4", 400),
        ("../f", None, 400),
        ("", None, 400),
        (ARN.replace("us-east-1", "eu-west-1"), None, 404),
        (ARN.replace("000000000000", "123456789012"), None, 404),
        ("123456789012:function:f", None, 404),
    ],
)
def test_names_of_others_are_not_found(text, qualifier, status):
    assert refusal(registry().reference, text, qualifier).status == status


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"FunctionName": "a b"}, "no function name"),
        ({"FunctionName": "x" * 65}, "no function name"),
        ({"Handler": ""}, "Handler is missing"),
        ({"PackageType": "Image"}, "Zip only"),
        ({"VpcConfig": {}}, "does not have VpcConfig"),
    ],
)
def test_what_no_function_can_be_made_of_is_refused_at_once(wrong, said):
    assert said in refusal(registry().check_new, REQUEST | {"FunctionName": "g"} | wrong).message


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"MemorySize": 127}, "MemorySize is 127: give a whole number from 128 to 10240"),
        ({"Timeout": 0}, "Timeout is 0: give a whole number from 1 to 900"),
        ({"EphemeralStorage": {"Size": 100}}, "EphemeralStorage is 100"),
        ({"Role": "admin"}, "no ARN of an IAM role"),
        ({"Environment": {"Variables": {"A": "x" * 5000}}}, "more than 4096 bytes"),
        ({"LoggingConfig": {"LogFormat": "XML"}}, "choose Text or JSON"),
        ({"LoggingConfig": {"SystemLogLevel": "INFO"}}, "log levels need the log format JSON"),
        ({"LoggingConfig": {"LogFormat": "JSON", "SystemLogLevel": "WARN"}}, "SystemLogLevel INFO only"),
        ({"LoggingConfig": {"Colour": "red"}}, "does not have Colour"),
    ],
)
def test_a_configuration_outside_the_limits_is_refused(wrong, said):
    functions = registry()
    assert said in refusal(functions.create, REQUEST | {"FunctionName": "g"} | wrong, CODE, 0.0).message
    assert said in refusal(functions.reconfigured, "f", wrong).message
