"""Whatever is sent, the API refuses it by one of its own errors, or does it."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from siren.platforms.endpoint.settings import CODE_REQUEST_BYTES

FUNCTIONS = "/2015-03-31/functions"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "Code",
        "CodeSha256",
        "Description",
        "Environment",
        "EphemeralStorage",
        "FunctionName",
        "Handler",
        "LoggingConfig",
        "MemorySize",
        "Publish",
        "ReservedConcurrentExecutions",
        "RevisionId",
        "Role",
        "Runtime",
        "Tags",
        "Timeout",
        "ZipFile",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=30),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(FIELDS, JSON, max_size=5).map(lambda value: json.dumps(value).encode()),
)


def send(endpoint, method: str, path: str, body: bytes) -> tuple[int, str, dict[str, object]]:
    """A signed request; status, error type and body."""
    own = endpoint.credentials
    request = AWSRequest(method, endpoint.url + path, data=body)
    SigV4Auth(Credentials(own.access_key, own.secret_key), "lambda", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(request.headers.items()))
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    return response.status, response.headers.get("x-amzn-ErrorType", ""), json.loads(answer or b"{}")


@settings(max_examples=80)
@given(
    what=st.sampled_from(
        [
            ("POST", FUNCTIONS),
            ("PUT", FUNCTIONS + "/{}/configuration"),
            ("PUT", FUNCTIONS + "/{}/code"),
            ("POST", FUNCTIONS + "/{}/versions"),
            ("POST", FUNCTIONS + "/{}/invocations"),
            ("PUT", "/2017-10-31/functions/{}/concurrency"),
            ("POST", "/2017-03-31/tags/{}"),
        ]
    ),
    strange=st.text(max_size=12),
    known=st.booleans(),
    body=BODIES,
)
def test_nothing_that_is_sent_breaks_it(both, what, strange, known, body):
    endpoint, account = both
    if not hasattr(account, "fuzzed"):
        account.fuzzed = account.create()
    method, path = what
    name = account.fuzzed if known else quote(f"x{strange}", safe="")
    status, kind, answer = send(endpoint, method, path.format(name), body)
    assert status < 500, (kind, answer)
    assert (status < 300) == (kind == "")


@pytest.mark.parametrize("path", ["/", "/2015-03-31/layers", "/2021-10-31/functions/f/url", "/%00"])
def test_what_it_does_not_know_is_not_found(endpoint, path):
    assert send(endpoint, "GET", path, b"")[:2] == (404, "UnknownOperationException")


def test_a_package_in_a_request_may_not_be_too_large(endpoint):
    status, kind, _ = send(endpoint, "POST", FUNCTIONS, b"x" * (CODE_REQUEST_BYTES + 1))
    assert (status, kind) == (413, "RequestEntityTooLargeException")
