"""What the API answers when it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping


class ApiError(Exception):
    """An error of the Lambda API, as botocore's model of it (2015-03-31) names it.

    Args:
        status: HTTP status.
        kind: The exception's name, e.g. `ResourceNotFoundException`.
        message: For people.
        reason: Of a throttle.
        headers: Further ones.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.reason = status, kind, message, reason
        self.headers = {"x-amzn-ErrorType": kind, **(headers or {})}

    def body(self) -> bytes:
        """The JSON that clients parse; the model spells the message's key in two ways."""
        key = "Message" if self.kind in ("ResourceNotFoundException", "ServiceException") else "message"
        fields = {"Type": "User" if self.status < 500 else "Service", key: self.message}
        if self.reason:
            fields["Reason"] = self.reason
        return json.dumps(fields).encode()


def invalid(message: str) -> ApiError:
    """A parameter that is not accepted."""
    return ApiError(400, "InvalidParameterValueException", message)


def missing(what: str) -> ApiError:
    """Something that does not exist, by its ARN."""
    return ApiError(404, "ResourceNotFoundException", f"Function not found: {what}")


def conflict(message: str) -> ApiError:
    """What cannot be done in the present state."""
    return ApiError(409, "ResourceConflictException", message)


def throttled(reason: str, message: str = "Rate Exceeded.") -> ApiError:
    """An invocation above a limit; `reason` is one of the model's `ThrottleReason`."""
    return ApiError(429, "TooManyRequestsException", message, reason, {"Retry-After": "1"})


def too_large(limit: int, operation: str) -> ApiError:
    """A request above its limit, bytes. Invoke has an error of its own in the model."""
    kind = "RequestTooLargeException" if operation == "InvokeFunction" else "RequestEntityTooLargeException"
    return ApiError(413, kind, f"Request must be smaller than {limit} bytes for the {operation} operation")
