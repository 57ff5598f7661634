"""Code packages on disk: one folder for each content, kept until the endpoint ends."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from siren.platforms.endpoint.errors import ApiError, invalid
from siren.platforms.endpoint.settings import UNZIPPED_BYTES, ZIP_BYTES


@dataclass(frozen=True)
class Code:
    """One package.

    Attributes:
        sha256: Of the zip, base64: the API's `CodeSha256`.
        zipped_bytes: Of the zip.
        folder: Where it is unpacked.
    """

    sha256: str
    zipped_bytes: int
    folder: Path


def unpack(content: bytes, root: Path, in_s3: bool) -> Code:
    """Unpacks a zip into a folder of its own below `root`, once for each content.

    Raises:
        ApiError: It is no zip, or above Lambda's limits.
    """
    digest = hashlib.sha256(content).digest()
    code = Code(base64.b64encode(digest).decode(), len(content), root / digest.hex())
    if len(content) > ZIP_BYTES and not in_s3:
        raise invalid(
            f"Zip must be smaller than {ZIP_BYTES} bytes: upload it to S3 and give its bucket and key"
        )
    if code.folder.exists():
        return code
    part = code.folder.with_suffix(".part")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > UNZIPPED_BYTES:
                raise invalid(f"Unzipped size must be smaller than {UNZIPPED_BYTES} bytes")
            archive.extractall(part)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise invalid(
            f"Could not unzip uploaded file: {error}; check the file and upload it again"
        ) from error
    part.rename(code.folder)
    return code


def fetch(s3_url: str | None, region: str, bucket: str, key: str, version: str | None) -> bytes:
    """Reads a package from S3; blocks.

    Raises:
        ApiError: It is not to be had, as Lambda says it.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(s3={"addressing_style": "path"}, connect_timeout=5, retries={"total_max_attempts": 3})
    client = boto3.client("s3", endpoint_url=s3_url, region_name=region, config=config)
    try:
        if version:
            return client.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        details = error.response["Error"]
        raise invalid(
            f"Error occurred while GetObject. S3 Error Code: {details.get('Code')}. "
            f"S3 Error Message: {details.get('Message')}"
        ) from error
    except BotoCoreError as error:
        raise ApiError(500, "ServiceException", f"S3 is not to be reached at {s3_url}: {error}") from error
    finally:
        client.close()
