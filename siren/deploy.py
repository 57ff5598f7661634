"""Create what `siren.run --platform aws` needs: `python -m siren.deploy --region us-east-1 --dry-run`."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TextIO

import tyro

from siren.errors import PriceError, RunFolderError, SirenError, UsageError
from siren.money.price_book import load_price_book
from siren.platforms.aws.api import Api, make_session
from siren.platforms.aws.charges import charges
from siren.platforms.aws.confirm import confirm
from siren.platforms.aws.deployment import read_deployment
from siren.platforms.aws.log_group import RETENTION_DAYS
from siren.platforms.aws.names import UNKNOWN_ACCOUNT, Names, check_name
from siren.platforms.aws.part import Settings
from siren.platforms.aws.parts import details, parts_to_make
from siren.platforms.aws.plan import Step, apply_plan, make_plan, offline_plan
from siren.platforms.aws.policies import Document, deployer_policy, manager_policy, worker_policy
from siren.platforms.aws.versions import parse_versions
from siren.platforms.package import Package, aws_target, build_package
from siren.types import ChannelKind, StopReason
from siren.units import SECONDS_PER_HOUR
from siren.workloads.registry import find_folder
from siren.workloads.spec_file import load_spec
from siren.worlds import World, load_world
from siren.worlds.real import KEPT_S

_REDIS_RULES = ("additive", "staleness")
"""Rules that add atomically, which S3 cannot (docs/explanation/hsp.md)."""


@dataclass(frozen=True)
class DeployConfig:
    """Create, or bring up to date, what `siren.run --platform aws` needs in your AWS account.

    Shows the plan with its prices first, then asks. Whatever is created carries the tag siren:deployment;
    `python -m siren.teardown` removes it. Exit codes: 0 done, 2 usage, 4 AWS refused, 130 interrupted.
    """

    workload: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mlp-mnist"
    """What the function trains: a folder under workloads/, or the path of your own."""

    region: Annotated[str | None, tyro.conf.arg(metavar="REGION")] = None
    """AWS region, e.g. us-east-1. Default: that of your AWS configuration; none is assumed."""

    name: Annotated[str, tyro.conf.arg(metavar="NAME")] = "siren"
    """Name of the deployment; several may stand side by side."""

    channel: Literal["s3", "redis"] = "s3"
    """Where parameters travel. redis adds a VPC and a cache node, which is billed by the started hour until
    it is torn down; without it, update rules that need it are refused."""

    world: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "aws-2026"
    """Whose region, prices, architecture and cache node hold: a file under envs/, or the path of your own."""

    concurrency: Annotated[int, tyro.conf.arg(metavar="N")] = 100
    """Functions that may ever run at once: a hard ceiling, reserved in your account."""

    versions: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MEMORYxTIMEOUT")] = ()
    """Versions to publish ahead of time, in MB and seconds, e.g. 1769x60 1024x120."""

    log_days: Annotated[int, tyro.conf.arg(metavar="DAYS")] = 14
    """Days that the functions' log is kept."""

    run_days: Annotated[int, tyro.conf.arg(metavar="DAYS")] = 30
    """Days that objects of a run are kept in the bucket; the data set stays."""

    dry_run: bool = False
    """Show the plan of a new deployment and end. Asks AWS nothing and needs no credentials."""

    yes: bool = False
    """Do not ask."""

    account: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """With --dry-run or --print-policy: the account to show, which is asked of AWS otherwise."""

    print_policy: bool = False
    """Print an IAM policy as JSON and end: --policy-of says whose."""

    policy_of: Literal["manager", "deployer", "worker"] = "manager"
    """manager: what siren.run needs; deployer: what siren.deploy and siren.teardown need; worker: what the
    function is given."""

    save_package: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the code package to this new file and end, e.g. for deploy/terraform. Asks AWS nothing."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the deployment as JSON on stdout; the plan goes to stderr."""


def main(
    config: DeployConfig,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    stdin: TextIO | None = None,
    api: Api | None = None,
) -> int:
    """Deploys; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
        stdin: Where answers come from; `sys.stdin` by default.
        api: AWS; made from the user's configuration by default.
    """
    stdout, stderr, stdin = stdout or sys.stdout, stderr or sys.stderr, stdin or sys.stdin
    try:
        _deploy(config, stdout, stderr, stdin, api)
        return 0
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        text = "interrupted; run it again to go on, or siren.teardown to remove what was created"
        return _fail(stderr, text, StopReason.INTERRUPTED.exit_code)


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.deploy: {error}", file=stderr)
    return code


def _deploy(config: DeployConfig, stdout: TextIO, stderr: TextIO, stdin: TextIO, api: Api | None) -> None:
    check_name(config.name)
    world = load_world(config.world)
    settings = _settings(config, world)
    if config.save_package is not None:
        package = build_package(find_folder(config.workload), aws_target(world.billing.architecture))
        _save(package, config.save_package, stdout)
        return
    api = api or Api(make_session(config.region))
    _check_region(world, api.region)
    offline = config.dry_run or config.print_policy
    if config.account is not None and not (offline and re.fullmatch("[0-9]{12}", config.account)):
        raise UsageError("--account takes 12 digits, and only with --dry-run or --print-policy: leave it out")
    account = config.account or UNKNOWN_ACCOUNT if offline else api.account()
    names = Names(config.name, api.region, account, api.partition)
    if config.print_policy:
        stdout.write(json.dumps(_policy(config, names), indent=2) + "\n")
        return
    memory_mb = max((version[0] for version in settings.versions), default=world.limits.memory_grid[-1])
    prices = charges(load_price_book(), api.region, world.billing.architecture, settings, memory_mb)
    folder = find_folder(config.workload)
    package = build_package(folder, aws_target(world.billing.architecture))
    parts, function = parts_to_make(api, names, settings, package)
    if offline:
        steps = offline_plan(parts, details(settings, package), prices)
    else:
        function.check_concurrency()
        steps = make_plan(parts, details(settings, package), prices)
    out = stderr if config.print_json else stdout
    _show(out, config, names, steps, [*_notes(config, package, load_spec(folder).training.update_rule)])
    if config.dry_run:
        return
    if all(step.action == "keep" for step in steps):
        out.write("Nothing to do: the deployment is as it should be.\n")
    elif config.yes or confirm("Create and change this?", stdin, stderr):
        apply_plan(parts, steps, lambda text: print(text, file=stderr))
        run = f"python -m siren.run --platform aws --deployment {config.name} --budget 2.00"
        out.write(f"Done. Train with `{run}`; remove with `python -m siren.teardown --name {config.name}`.\n")
    else:
        raise UsageError("nothing was created or changed; --dry-run shows the plan without asking")
    if config.print_json:
        stdout.write(json.dumps(read_deployment(api, config.name).to_json(), indent=1) + "\n")


def _save(package: Package, path: Path, stdout: TextIO) -> None:
    try:
        with path.open("xb") as file:
            file.write(package.content)
    except FileExistsError:
        raise UsageError(f"--save-package {path} exists already: name a new file") from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror}; name a file in a folder of yours"
        ) from error
    stdout.write(f"{path}: {package.zipped_bytes:,} B, CodeSha256 {package.sha256_base64}\n")


def _settings(config: DeployConfig, world: World) -> Settings:
    """The deployment's settings, checked.

    Raises:
        UsageError: One that AWS or the world refuses.
        PriceError: The world has no cache node.
    """
    redis = config.channel == "redis"
    store = world.channels.get(ChannelKind.REDIS)
    if redis and (store is None or not store.node):
        raise PriceError(f"world {world.name} names no cache node: use a world that does, or --channel s3")
    if not 1 <= config.concurrency <= world.limits.functions_max:
        raise UsageError(
            f"--concurrency {config.concurrency}: give 1 to {world.limits.functions_max:,}, the limit of "
            f"world {world.name}"
        )
    if config.log_days not in RETENTION_DAYS:
        choices = ", ".join(map(str, RETENTION_DAYS))
        raise UsageError(f"--log-days {config.log_days}: CloudWatch takes one of {choices}")
    if config.run_days < 1:
        raise UsageError(f"--run-days {config.run_days}: give at least 1 day")
    return Settings(
        redis=redis,
        cache_node=store.node if redis and store else "",
        concurrency=config.concurrency,
        log_days=config.log_days,
        run_days=config.run_days,
        versions=parse_versions(config.versions, world),
    )


def _check_region(world: World, region: str) -> None:
    """Runs are priced by the world, so it must be in the same region."""
    if region != world.billing.region:
        raise PriceError(
            f"world {world.name} has the prices of {world.billing.region}, not of {region}: deploy with "
            f"--region {world.billing.region}, or with --world and a copy of its file for {region} (prices: "
            "`python -m siren.prices --refresh`)"
        )


def _policy(config: DeployConfig, names: Names) -> Document:
    redis = config.channel == "redis"
    if config.policy_of == "deployer":
        return deployer_policy(names, redis=redis)
    return worker_policy(names, vpc=redis) if config.policy_of == "worker" else manager_policy(names)


def _notes(config: DeployConfig, package: Package, rule: str) -> Sequence[str]:
    notes = []
    if config.channel == "s3" and rule in _REDIS_RULES:
        notes.append(
            f"{config.workload} trains with {rule}, which needs a cache: deploy with --channel redis, or run "
            "it with --channel s3 and --update-rule average, sync, cas or overwrite"
        )
    kept_days = KEPT_S // (24 * SECONDS_PER_HOUR)
    if config.run_days >= kept_days:
        notes.append(
            f"a run's bill holds {kept_days} days of what a failed epoch leaves in the bucket: with "
            f"--run-days {config.run_days} it lies there for longer"
        )
    if not package.bytecode:
        notes.append(
            f"without {package.target.runtime} on the PATH the package has no bytecode: every cold start "
            "compiles numpy, about 0.2 s; install it to avoid that"
        )
    return notes


def _show(
    out: TextIO, config: DeployConfig, names: Names, steps: Sequence[Step], notes: Sequence[str]
) -> None:
    out.write(f"Deployment {config.name} in {names.region}, account {names.account}\n\n")
    for step in steps:
        out.write(f"{step.action:<7} {step.kind}: {step.name}\n")
        for line in (step.detail, step.cost):
            if line:
                out.write(f"        {line}\n")
    standing = [f"{charge} ({step.kind})" for step in steps for charge in step.charges if charge.standing]
    out.write(f"\nWhile nothing runs: {'; '.join(standing) or 'only what is stored'}.\n")
    for note in notes:
        out.write(f"Note: {note}.\n")


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(main(tyro.cli(DeployConfig, prog="python -m siren.deploy")))
