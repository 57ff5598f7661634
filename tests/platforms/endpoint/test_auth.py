"""Only who knows the secret is heard, and only for what was signed."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from siren.platforms.endpoint.auth import Verifier
from siren.platforms.endpoint.errors import ApiError

HOST = "127.0.0.1:8080"
VERIFIER = Verifier("key", "secret", "us-east-1")


def signed(
    method: str = "POST",
    path: str = "/2015-03-31/functions/f/invocations",
    body: bytes = b"{}",
    secret: str = "secret",
    service: str = "lambda",
    region: str = "us-east-1",
) -> CIMultiDict[str]:
    """Headers as botocore signs them."""
    request = AWSRequest(method, f"http://{HOST}{path}", {"X-Amz-Log-Type": "Tail  and   more"}, body)
    SigV4Auth(Credentials("key", secret), service, region).add_auth(request)
    return CIMultiDict({**dict(request.headers.items()), "Host": HOST})


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    name=st.text(string.ascii_letters + string.digits + "-_:$.%~ /", max_size=20),
    query=st.dictionaries(
        st.text(string.ascii_letters + "-_.", min_size=1, max_size=4), st.text(max_size=4), max_size=3
    ),
    body=st.binary(max_size=50),
)
def test_what_botocore_signs_is_accepted(method, name, query, body):
    path = f"/2015-03-31/functions/x{quote(name, safe='')}"
    path += f"?{urlencode(query)}" if query else ""
    VERIFIER.check(method, path, signed(method, path, body), body)


def refusal(headers: CIMultiDict[str], body: bytes = b"{}", path: str | None = None) -> str:
    with pytest.raises(ApiError) as caught:
        VERIFIER.check("POST", path or "/2015-03-31/functions/f/invocations", headers, body)
    assert caught.value.status == 403
    return caught.value.kind


def test_what_is_not_signed_is_refused():
    assert refusal(CIMultiDict({"Host": HOST})) == "MissingAuthenticationTokenException"


@pytest.mark.parametrize("wrong", [{"secret": "guess"}, {"service": "s3"}, {"region": "eu-west-1"}])
def test_another_secret_service_or_region_is_refused(wrong):
    assert refusal(signed(**wrong)) == "InvalidSignatureException"


def test_another_key_is_refused():
    headers = signed()
    headers["Authorization"] = headers["Authorization"].replace("=key/", "=other/")
    assert refusal(headers) == "UnrecognizedClientException"


def test_a_changed_body_path_or_header_is_refused():
    assert refusal(signed(), b'{"do": "harm"}') == "InvalidSignatureException"
    assert refusal(signed(), path="/2015-03-31/functions/g/invocations") == "InvalidSignatureException"
    headers = signed()
    headers["X-Amz-Log-Type"] = "None"
    assert refusal(headers) == "InvalidSignatureException"
    headers = signed()
    headers["Host"] = "evil.example:8080"  # a name that was rebound to 127.0.0.1
    assert refusal(headers) == "InvalidSignatureException"


def test_a_digest_that_is_not_the_bodys_is_refused():
    headers = signed()
    headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    assert refusal(headers) == "InvalidSignatureException"


@pytest.mark.parametrize("stamp", ["yesterday", "20200101T000000Z"])
def test_an_old_or_broken_date_is_refused(stamp):
    headers = signed()
    headers["X-Amz-Date"] = stamp
    assert refusal(headers) == "InvalidSignatureException"


def test_a_signature_expires(monkeypatch):
    past = datetime.now(UTC) - timedelta(minutes=6)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: past)
    assert refusal(signed()) == "InvalidSignatureException"
