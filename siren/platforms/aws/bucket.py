"""The bucket: data, what runs exchange, and large code packages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from siren.errors import UsageError
from siren.platforms.aws.api import ABSENT, TAKEN, Api, RequestError
from siren.platforms.aws.names import CHANNEL_TAG, Names
from siren.platforms.aws.part import Settings, check_ours, is_ours, tag_list, tag_mapping
from siren.platforms.aws.policies import bucket_policy

UPLOAD_DAYS = 1
"""Days after which parts of an unfinished upload, which are billed and not listed, are dropped."""
_DELETE_AT_ONCE = 1000
"""Keys in one DeleteObjects request (S3 API reference)."""
_FIRST_REGION = "us-east-1"
"""The one region that CreateBucket must not name (S3 API reference)."""


class Bucket:
    """See `Part`. Private, encrypted, TLS only, without ACLs; objects of runs expire.

    Args:
        api: AWS.
        names: The deployment.
        settings: What it should be like.
    """

    kind = "bucket"

    def __init__(self, api: Api, names: Names, settings: Settings) -> None:
        self.name = names.bucket
        self._api = api
        self._names = names
        self._settings = settings

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        tags = self._tags()
        if tags is None:
            return None
        check_ours(self.kind, self.name, self._names, tags)
        found = [name for name, setting in self._wanted().items() if self._read(name) != setting]
        return found + self._channel_change(tags)

    def apply(self) -> None:
        """See `Part.apply`."""
        if self._tags() is None:
            self._create()
        found = self.differences() or []
        tags = {**self._names.tags, CHANNEL_TAG: self._channel}
        if "channel" in found:
            self._call("put_bucket_tagging", Tagging={"TagSet": tag_list(tags)})
        for name, setting in self._wanted().items():
            if name in found:
                self._write(name, setting)

    def exists(self) -> bool:
        """See `Part.exists`."""
        return is_ours(self._names, self._tags() or {})

    def channel(self) -> str | None:
        """The channel that the deployment was made for; None if there is no bucket of ours."""
        return (self._tags() or {}).get(CHANNEL_TAG)

    def contents(self) -> tuple[int, int]:
        """How many objects it holds, and their bytes."""
        sizes = [item["Size"] for item in self._objects()]
        return len(sizes), sum(sizes)

    def remove(self) -> None:
        """See `Part.remove`: with everything in it."""
        keys = ({"Key": item["Key"]} for item in self._objects())
        while some := list(islice(keys, _DELETE_AT_ONCE)):
            answer = self._call("delete_objects", Delete={"Objects": some, "Quiet": True})
            for failed in answer.get("Errors", []):
                raise RequestError(
                    f"S3 does not delete {failed['Key']} ({failed['Code']}): run the same command again",
                    failed["Code"],
                    "s3:DeleteObject",
                    failed.get("Message", ""),
                )
        for upload in self._api.items("s3", "list_multipart_uploads", "Uploads", Bucket=self.name):
            self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
        self._find("delete_bucket")

    def _create(self) -> None:
        arguments: dict[str, Any] = {"Bucket": self.name, "ObjectOwnership": "BucketOwnerEnforced"}
        if self._names.region != _FIRST_REGION:
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": self._names.region}
        try:
            self._api.call("s3", "create_bucket", **arguments)
        except RequestError as error:
            if error.code == "BucketAlreadyExists":
                raise UsageError(
                    f"the bucket {self.name} belongs to another account: choose another --name"
                ) from error
            if error.code in TAKEN:
                return  # its tags say whose it is
            raise
        self._call(
            "put_bucket_tagging",
            Tagging={"TagSet": tag_list({**self._names.tags, CHANNEL_TAG: self._channel})},
        )

    @property
    def _channel(self) -> str:
        return "redis" if self._settings.redis else "s3"

    def _channel_change(self, tags: Mapping[str, str]) -> list[str]:
        """A cache may be added, not forgotten: it would go on costing."""
        before = tags.get(CHANNEL_TAG)
        if before == "redis" and not self._settings.redis:
            raise UsageError(
                f"deployment {self._names.deployment} has a cache, which is billed by the hour: add "
                f"--channel redis, or first run `python -m siren.teardown --name {self._names.deployment}`"
            )
        return [] if before == self._channel else ["channel"]

    def _wanted(self) -> dict[str, Any]:
        """Each setting by its name in differences."""
        block = dict.fromkeys(
            ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
        )
        return {
            "public access block": block,
            "ownership": "BucketOwnerEnforced",
            "encryption": "AES256",
            "policy": bucket_policy(self._names),
            "lifecycle": self._lifecycle(),
        }

    def _lifecycle(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": "runs",
                "Status": "Enabled",
                "Filter": {"Prefix": "runs/"},
                "Expiration": {"Days": self._settings.run_days},
            },
            {
                "ID": "uploads",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
            },
        ]

    def _read(self, name: str) -> Any:
        """A setting as it is, in the form of `_wanted`; None if it is not set."""
        operation = {
            "public access block": "get_public_access_block",
            "ownership": "get_bucket_ownership_controls",
            "encryption": "get_bucket_encryption",
            "policy": "get_bucket_policy",
            "lifecycle": "get_bucket_lifecycle_configuration",
        }[name]
        answer = self._find(operation)
        if answer is None:
            return None
        match name:
            case "public access block":
                return answer["PublicAccessBlockConfiguration"]
            case "ownership":
                return answer["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
            case "encryption":
                rule = answer["ServerSideEncryptionConfiguration"]["Rules"][0]
                return rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
            case "policy":
                return json.loads(answer["Policy"])
            case _:
                return sorted(answer["Rules"], key=lambda rule: str(rule.get("ID")))

    def _write(self, name: str, setting: Any) -> None:
        match name:
            case "public access block":
                self._call("put_public_access_block", PublicAccessBlockConfiguration=setting)
            case "ownership":
                rules = [{"ObjectOwnership": setting}]
                self._call("put_bucket_ownership_controls", OwnershipControls={"Rules": rules})
            case "encryption":
                rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": setting}}
                self._call("put_bucket_encryption", ServerSideEncryptionConfiguration={"Rules": [rule]})
            case "policy":
                self._call("put_bucket_policy", Policy=json.dumps(setting))
            case _:
                self._call("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": setting})

    def _tags(self) -> dict[str, str] | None:
        """Its tags; None if there is no such bucket."""
        try:
            return tag_mapping(list(self._call("get_bucket_tagging")["TagSet"]))
        except RequestError as error:
            if error.code == "NoSuchTagSet":
                return {}
            if error.code in ABSENT:
                return None
            raise

    def _objects(self) -> Iterator[Any]:
        return self._api.items(
            "s3", "list_objects_v2", "Contents", Bucket=self.name, ExpectedBucketOwner=self._names.account
        )

    def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """A request that only the deployment's own account's bucket answers."""
        return self._api.call(
            "s3", operation, Bucket=self.name, ExpectedBucketOwner=self._names.account, **arguments
        )

    def _find(self, operation: str) -> Mapping[str, Any] | None:
        return self._api.find("s3", operation, Bucket=self.name, ExpectedBucketOwner=self._names.account)
