"""Servers that the tests of one session share."""

from __future__ import annotations

from tests.worker.conftest import redis_url, s3_url

__all__ = ["redis_url", "s3_url"]
