"""What an endpoint is told at its start, and AWS's own limits."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from siren.units import BYTES_PER_MB

# Limits of standard functions: AWS's quota pages and botocore 1.44.5, as of 2026-11-22.
MEMORY_MB = (128, 10_240)
TIMEOUT_S = (1, 900)
VCPU_MB = 1769
SYNC_BYTES = 6 * BYTES_PER_MB
ASYNC_BYTES = BYTES_PER_MB
ZIP_BYTES = 50 * BYTES_PER_MB
UNZIPPED_BYTES = 250 * BYTES_PER_MB
# A zip of 50 MB in base64, as an AWS error message says it.
CODE_REQUEST_BYTES = 69_905_067
ENVIRONMENT_BYTES = 4096
UNRESERVED_AT_LEAST = 100
OPEN_FILES = 1024
LOG_TAIL_BYTES = 4096
CODE_STORAGE_BYTES = 75 * 1024 * BYTES_PER_MB

RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The only runtime: environments run the interpreter that runs the endpoint."""


@dataclass(frozen=True)
class Settings:
    """How one endpoint behaves.

    Attributes:
        root: Its folder; all of it goes at the end.
        region, account: What ARNs are made of, and signatures.
        access_key, secret_key, session_token: What requests must be signed with; also the role's
            credentials that environments get.
        s3_url: Where code packages are fetched from; None: AWS's own S3.
        concurrency: The account's limit.
        environments: Processes that may exist at once; idle ones give way, then invocations get a 429.
        keep_alive_s: How long an idle environment is kept.
        init_limit_s: After so long the init phase is cut, and repeated inside the invocation.
        pending_s: How long what was created or updated is not ready.
        retry_delays_s: Before each further attempt of an Event that failed.
        cgroups: Whether to use them where they can be written.
        faults: Whether tests may inject faults.
    """

    root: Path
    access_key: str
    secret_key: str
    session_token: str = ""
    region: str = "us-east-1"
    account: str = "000000000000"
    s3_url: str | None = None
    concurrency: int = 1000
    environments: int = 200
    keep_alive_s: float = 300.0
    init_limit_s: float = 10.0
    pending_s: float = 0.0
    retry_delays_s: tuple[float, ...] = (60.0, 120.0)
    cgroups: bool = True
    faults: bool = False

    def arn(self, name: str, version: str | None = None) -> str:
        """The ARN of a function, or of one of its versions."""
        arn = f"arn:aws:lambda:{self.region}:{self.account}:function:{name}"
        return f"{arn}:{version}" if version else arn
