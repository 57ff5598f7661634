"""Remove what `siren.deploy` created, and nothing else: `python -m siren.teardown --name siren`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TextIO

import tyro

from siren.errors import SirenError, UsageError
from siren.platforms.aws.api import Api, RequestError, make_session
from siren.platforms.aws.bucket import Bucket
from siren.platforms.aws.confirm import confirm
from siren.platforms.aws.names import Names, check_name
from siren.platforms.aws.part import Part
from siren.platforms.aws.parts import ANYTHING, parts_to_remove
from siren.types import StopReason


@dataclass(frozen=True)
class TeardownConfig:
    """Remove a deployment: everything that carries its tag siren:deployment, and nothing else.

    Shows what will be removed first, then asks. Network interfaces that Lambda made in a VPC take up to 20
    minutes to go; an interrupted teardown is gone on with by the same command. Exit codes: 0 done, 2 usage,
    4 AWS refused, 130 interrupted.
    """

    name: Annotated[str, tyro.conf.arg(metavar="NAME")] = "siren"
    """Name of the deployment."""

    region: Annotated[str | None, tyro.conf.arg(metavar="REGION")] = None
    """AWS region. Default: that of your AWS configuration; none is assumed."""

    dry_run: bool = False
    """Show what would be removed, and end."""

    yes: bool = False
    """Do not ask."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print what was removed (with --dry-run: what would be) as JSON on stdout."""


def main(
    config: TeardownConfig,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    stdin: TextIO | None = None,
    api: Api | None = None,
) -> int:
    """Tears down; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
        stdin: Where answers come from; `sys.stdin` by default.
        api: AWS; made from the user's configuration by default.
    """
    stdout, stderr, stdin = stdout or sys.stdout, stderr or sys.stderr, stdin or sys.stdin
    try:
        _tear_down(config, stdout, stderr, stdin, api)
        return 0
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(stderr, "interrupted; run it again to go on", StopReason.INTERRUPTED.exit_code)


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.teardown: {error}", file=stderr)
    return code


def _tear_down(
    config: TeardownConfig, stdout: TextIO, stderr: TextIO, stdin: TextIO, api: Api | None
) -> None:
    check_name(config.name)
    api = api or Api(make_session(config.region))
    names = Names(config.name, api.region, api.account(), api.partition)

    def tell(text: str) -> None:
        print(text, file=stderr)

    bucket = Bucket(api, names, ANYTHING)
    channel = bucket.channel() if bucket.exists() else None
    parts = parts_to_remove(api, names, redis=channel != "s3")
    found = [part for part in parts if _exists(part, tell, may_be_denied=channel is None)]
    out = stderr if config.print_json else stdout
    out.write(f"Deployment {config.name} in {names.region}, account {names.account}\n")
    for part in found:
        out.write(f"remove  {part.kind}: {part.name}{_content(part)}\n")
    if not found:
        out.write("Nothing carries its tag: there is nothing to remove.\n")
    elif not config.dry_run:
        if not (config.yes or confirm("Remove this for ever?", stdin, stderr)):
            raise UsageError("nothing was removed; --dry-run shows the list without asking")
        for part in found:
            tell(f"{part.kind} {part.name} ...")
            part.remove()
        out.write("Done.\n")
    if config.print_json:
        listed = [{"kind": part.kind, "name": part.name} for part in found]
        stdout.write(json.dumps({"removed": listed, "dry_run": config.dry_run}, indent=1) + "\n")


def _exists(part: Part, tell: Callable[[str], None], *, may_be_denied: bool) -> bool:
    """Whether a part is there.

    Without its bucket it is unknown whether a deployment had a network. Whoever may not look there cannot
    have made one, and is told.
    """
    try:
        return part.exists()
    except RequestError as error:
        if may_be_denied and error.denied and part.kind in ("cache", "network"):
            tell(f"not looked for a {part.kind}: AWS denies {error.permission}")
            return False
        raise


def _content(part: Part) -> str:
    if not isinstance(part, Bucket):
        return ""
    count, size = part.contents()
    return f" with {count:,} objects of {size:,} B"


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(main(tyro.cli(TeardownConfig, prog="python -m siren.teardown")))
