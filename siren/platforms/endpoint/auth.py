"""Signature Version 4 of requests, as AWS documents it: only who knows the secret may run code here.

Without it any local user, or any web page open in a browser, could upload a function and run it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

from siren.platforms.endpoint.errors import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
# AWS accepts clocks that differ by up to five minutes.
SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    ALGORITHM + r" Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, *"
    r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})"
)
_REQUIRED = {"host", "x-amz-date"}


class Verifier:
    """Checks who signed a request.

    Args:
        access_key, secret_key: The only credentials that are accepted.
        region: Of the endpoint.
    """

    def __init__(self, access_key: str, secret_key: str, region: str) -> None:
        self._access_key, self._secret_key, self._region = access_key, secret_key, region

    def check(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Refuses what is not signed with this endpoint's credentials, for now and for here.

        Args:
            method: GET, POST, ...
            raw_path: Path and query as they were sent.
            headers: Case-insensitive.
            body: All of it.

        Raises:
            ApiError: 403; says what is wrong.
        """
        found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if found is None:
            raise ApiError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        access_key, date, region, service, signed, signature = found.groups()
        if not hmac.compare_digest(access_key, self._access_key):
            raise ApiError(
                403,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        if (region, service) != (self._region, "lambda"):
            raise _refused(f"Credential should be scoped to {self._region}/lambda, not {region}/{service}.")
        stamp = headers.get("X-Amz-Date", "")
        _check_time(stamp, date)
        names = signed.split(";")
        if not _REQUIRED.issubset(names):
            raise _refused("Host and X-Amz-Date must be signed.")
        digest = hashlib.sha256(body).hexdigest()
        if headers.get("X-Amz-Content-SHA256", digest) != digest:
            raise _refused("X-Amz-Content-SHA256 is not the body's digest.")
        path, _, query = raw_path.partition("?")
        canonical = "\n".join(
            [
                method,
                quote(path, safe="/~"),
                "&".join(
                    "=".join(pair) for pair in sorted(p.partition("=")[::2] for p in query.split("&") if p)
                ),
                *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
                "",
                signed,
                digest,
            ]
        )
        scope = f"{date}/{region}/{service}/aws4_request"
        text = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = _signing_key(self._secret_key, date, region, service)
        expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature):
            raise _refused("The request signature we calculated does not match the one you provided.")


def _check_time(stamp: str, date: str) -> None:
    try:
        when = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _refused("X-Amz-Date must look like 20261122T120000Z.") from None
    if not stamp.startswith(date) or abs(datetime.now(UTC) - when) > SKEW:
        raise _refused(f"Signature expired or not yet valid: it is of {stamp}.")


def _refused(message: str) -> ApiError:
    return ApiError(403, "InvalidSignatureException", message)


@lru_cache(maxsize=4)
def _signing_key(secret_key: str, *scope: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for part in (*scope, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
