"""A deployment in an AWS account as a site; nothing is created here, see `siren.deploy`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siren.errors import MissingExtraError, PlatformError
from siren.platforms.aws.api import Api, make_session
from siren.platforms.aws.deployment import Deployment, read_deployment
from siren.platforms.manager.site import Grounds
from siren.platforms.package import aws_target, build_package


class AwsSite:
    """See `Site`.

    Args:
        workload_folder: What the function must have been deployed for.
        deployment: Name of the deployment.
        region: Where it is.
        architecture: Of the function, as world files say.
    """

    name = "aws"
    spends_money = True

    def __init__(self, workload_folder: Path, deployment: str, region: str, architecture: str) -> None:
        self._folder, self._deployment, self._region = workload_folder, deployment, region
        self._architecture = architecture
        self._found: Deployment | None = None

    def check(self) -> None:
        """See `Site.check`: there is a deployment, and it holds this workload's code.

        Raises:
            MissingExtraError, UsageError, PlatformError: As there.
        """
        self.find()

    def find(self) -> Deployment:
        """What is deployed."""
        if self._found is None:
            try:
                import aiohttp  # noqa: F401
            except ImportError as error:
                raise MissingExtraError("aiohttp", self.name) from error
            found = read_deployment(Api(make_session(self._region)), self._deployment)
            wanted = build_package(self._folder, aws_target(self._architecture)).sha256_base64
            if found.code_sha256 != wanted:
                raise PlatformError(
                    f"the deployment {self._deployment} holds other code than this Siren with this workload "
                    f"({found.code_sha256} instead of {wanted}): run `python -m siren.deploy --name "
                    f"{self._deployment} --region {self._region} --workload {self._folder}`"
                )
            self._found = found
        return self._found

    def open(self) -> Grounds:
        """See `Site.open`."""
        found = self.find()
        return Grounds(found.backend(), found.code_sha256)

    def facts(self) -> Mapping[str, Any]:
        """See `Site.facts`."""
        return {"deployment": self.find().to_json()}

    def close(self) -> None:
        """See `Site.close`: a deployment stays."""
