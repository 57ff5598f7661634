"""Turns what an epoch used, or may at most use, into a bill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from siren.errors import LedgerError, PriceError
from siren.money import billing
from siren.money.amounts import ZERO, check_count, exact, exact_quantity, usd_text
from siren.money.bill import Bill
from siren.money.price_book import PriceBook, PriceTier, check_memory_mb
from siren.types import Usage
from siren.units import MS_PER_S


@dataclass(frozen=True)
class RunTotals:
    """What a run has been billed for so far, as far as later prices depend on it.

    Attributes:
        gb_s: GB-seconds of training and evaluation functions; decides the price tier.
        cache_hours: Started hours of the cache node.
    """

    gb_s: Decimal = ZERO
    cache_hours: int = 0

    def after(self, usage: Usage) -> RunTotals:
        """The totals once `usage` is billed too."""
        with exact():
            gb_s = (
                self.gb_s
                + billing.gb_seconds(usage.memory_mb, usage.billed_ms)
                + billing.gb_seconds(usage.evaluator_memory_mb, usage.evaluator_billed_ms)
            )
        return RunTotals(gb_s, max(self.cache_hours, billing.cache_hours(usage.cache_s)))

    def to_json(self) -> dict[str, str | int]:
        """A JSON object that `from_json` reads."""
        return {"gb_s": usd_text(self.gb_s), "cache_hours": self.cache_hours}

    @classmethod
    def from_json(cls, data: dict[str, str | int]) -> RunTotals:
        """Read what `to_json` wrote.

        Raises:
            LedgerError: It holds something else.
        """
        try:
            gb_s = Decimal(data["gb_s"])
            exact_quantity(gb_s, "gb_s")
            return cls(gb_s, check_count(data["cache_hours"], "cache_hours"))  # type: ignore[arg-type]
        except (KeyError, TypeError, ArithmeticError) as error:
            raise LedgerError(
                f"{data!r:.80} are not the totals of a run: start from its settled epochs"
            ) from error


@dataclass(frozen=True)
class EpochBounds:
    """The most that an epoch may use: what its platform itself enforces.

    Attributes:
        functions: Training functions, n.
        memory_mb: Their memory.
        timeout_s: The platform's own limit per invocation (on Lambda the version's Timeout).
        max_init_s: Longest initialisation billed beside it (10 on Lambda: a longer one starts again
            within the timeout; Lambda developer guide).
        retries: Repeats per invocation of calls that did not run (throttled, refused): a request
            each, no duration (recalled; no page of AWS was read that says so).
        reruns: Repeats per invocation of calls that did run, or may have (a lost response): request
            and duration again.
        spares: Repeats of that kind beside those, of any of the functions; their requests are among the
            retries.
        ephemeral_mb: /tmp of all functions.
        s3_puts, s3_gets: Most S3 requests, retries included.
        s3_gb_s: Most GB stored times seconds.
        log_bytes: Most bytes of log.
        egress_bytes: Most bytes that leave the region for the scheduler's machine.
        cache_until_s: Seconds since the start of the run up to which the cache may be needed.
        evaluations: Invocations of the evaluator, 0 or 1.
        evaluator_memory_mb: Its memory; 0 without evaluator.
        evaluator_timeout_s: Its timeout.
    """

    functions: int
    memory_mb: int
    timeout_s: float
    max_init_s: float
    retries: int = 0
    reruns: int = 0
    spares: int = 0
    ephemeral_mb: int = billing.FREE_EPHEMERAL_MB
    s3_puts: int = 0
    s3_gets: int = 0
    s3_gb_s: float = 0.0
    log_bytes: int = 0
    egress_bytes: int = 0
    cache_until_s: float = 0.0
    evaluations: int = 0
    evaluator_memory_mb: int = 0
    evaluator_timeout_s: float = 0.0


class Pricer:
    """Prices epochs at the list prices of one region, without free tier, tax or discounts.

    Every price is looked up here, so that an unknown one is refused before anything runs. Where a
    price depends on what the whole account used in the month and Siren cannot know it (S3 storage,
    logs), the first tier, the dearest, applies.

    Args:
        book: Where prices come from.
        region: AWS region.
        architecture: "x86" (or "x86_64") or "arm64".
        granularity_ms: Durations are billed in multiples of this; 1 today, 100 in 2019.
        init_billed: Whether initialisation is billed; since 2025-08-01 it always is.
        cache_node: Redis node type, or None for a run without a cache.
        month_gb_s_used: GB-seconds that the account used in this month, region and architecture
            before the run; more of them only make a run cheaper.
        memory_range_mb: Memory sizes that exist; by default those of the book.

    Raises:
        PriceError: Region, architecture, cache node or one of the prices is unknown.
        LedgerError: `granularity_ms` or `month_gb_s_used` is not a valid quantity.
    """

    def __init__(
        self,
        book: PriceBook,
        *,
        region: str,
        architecture: str,
        granularity_ms: int = 1,
        init_billed: bool = True,
        cache_node: str | None = None,
        month_gb_s_used: Decimal = ZERO,
        memory_range_mb: tuple[int, int] | None = None,
    ) -> None:
        billing.billed_ms(0, granularity_ms=granularity_ms)
        exact_quantity(month_gb_s_used, "month_gb_s_used")
        self.region = region
        self.architecture = book.check_architecture(region, architecture)
        self.granularity_ms = granularity_ms
        self.init_billed = init_billed
        self.cache_node = cache_node
        self.month_gb_s_used = month_gb_s_used
        self.memory_range_mb = memory_range_mb or book.memory_range_mb(region)
        self.ephemeral_range_mb = (
            book.count(region, "lambda.limit.tmp_min_mb"),
            book.count(region, "lambda.limit.tmp_max_mb"),
        )
        self.duration_tiers: tuple[PriceTier, ...] = book.duration_tiers(region, architecture)
        self.request_usd = book.value(region, "lambda.request.usd")
        self.ephemeral_usd_per_gb_s = book.value(region, "lambda.ephemeral.usd_per_gb_s")
        self.s3_put_usd = book.value(region, "s3.put.usd")
        self.s3_get_usd = book.value(region, "s3.get.usd")
        self.s3_storage_usd_per_gb_month = max(tier.usd for tier in book.tiers(region, "s3.storage"))
        self.log_usd_per_gb = book.value(region, "cwlogs.lambda.tier1.usd_per_gb")
        self.egress_usd_per_gb = book.value(region, "transfer.internet_out.tier1.usd_per_gb")
        self.cache_usd_per_h = ZERO if cache_node is None else book.cache_node_usd_per_h(region, cache_node)

    def price_epoch(self, usage: Usage, *, previous: RunTotals) -> Bill:
        """The bill of an epoch.

        Training comes before evaluation where the epoch crosses into the next price tier; /tmp of
        `usage.ephemeral_mb` counts for both.

        Args:
            usage: What was used; its milliseconds are already rounded up, its requests are all
                invocations, the evaluator's included.
            previous: What the run was billed for before.

        Raises:
            PriceError: A memory size does not exist, or a cache was used and no node was named.
            LedgerError: A quantity is negative, NaN or infinite.
        """
        training_gb_s = self._gb_s(usage.memory_mb, usage.billed_ms)
        evaluation_gb_s = self._gb_s(usage.evaluator_memory_mb, usage.evaluator_billed_ms)
        with exact():
            used = self.month_gb_s_used + previous.gb_s
            return self._bill(
                usage,
                previous,
                compute=billing.tiered_usd(training_gb_s, self.duration_tiers, used),
                evaluation=billing.tiered_usd(evaluation_gb_s, self.duration_tiers, used + training_gb_s),
            )

    def worst_case(self, bounds: EpochBounds, *, previous: RunTotals) -> Decimal:
        """The most dollars that an epoch within `bounds` may be billed.

        Args:
            bounds: What the platform enforces.
            previous: What the run was billed for before.

        Raises:
            PriceError: As in `price_epoch`.
            LedgerError: A bound is negative, NaN or infinite.
        """
        return self.worst_bill(bounds, previous=previous).total

    def worst_bill(self, bounds: EpochBounds, *, previous: RunTotals) -> Bill:
        """The items of `worst_case`: `worst_usage` at the dearest duration price that may still apply."""
        usage = self.worst_usage(bounds)
        usd_per_gb_s = self.dearest_usd_per_gb_s(previous)
        with exact():
            return self._bill(
                usage,
                previous,
                compute=self._gb_s(usage.memory_mb, usage.billed_ms) * usd_per_gb_s,
                evaluation=self._gb_s(usage.evaluator_memory_mb, usage.evaluator_billed_ms) * usd_per_gb_s,
            )

    def dearest_usd_per_gb_s(self, previous: RunTotals) -> Decimal:
        """The dearest price of a GB-second that may still apply in this month."""
        with exact():
            return billing.highest_price(self.duration_tiers, self.month_gb_s_used + previous.gb_s)

    def cache_usd(self, until_s: float, previous: RunTotals) -> Decimal:
        """Dollars for the started hours of a cache node needed up to `until_s`, beyond those billed before.

        Raises:
            PriceError: A cache is needed and no node was named.
            LedgerError: `until_s` is negative, NaN or infinite.
        """
        started_hours = max(0, billing.cache_hours(until_s) - previous.cache_hours)
        if until_s > 0 and self.cache_node is None:
            raise PriceError("the epoch used a cache and no cache node has a price here: name a cache_node")
        with exact():
            return started_hours * self.cache_usd_per_h

    def worst_usage(self, bounds: EpochBounds) -> Usage:
        """Every invocation initialises and runs as long as it may, as often as it may be repeated.

        Raises:
            PriceError: A memory size does not exist.
            LedgerError: A bound is negative, NaN or infinite.
        """
        functions = check_count(bounds.functions, "functions")
        evaluations = check_count(bounds.evaluations, "evaluations")
        runs = 1 + check_count(bounds.reruns, "reruns")
        spares = check_count(bounds.spares, "spares")
        calls = runs + check_count(bounds.retries, "retries")
        return Usage(
            memory_mb=bounds.memory_mb,
            billed_ms=(functions * runs + spares) * self.longest_ms(bounds.timeout_s, bounds.max_init_s),
            requests=(functions + evaluations) * calls,
            ephemeral_mb=bounds.ephemeral_mb,
            evaluator_billed_ms=evaluations
            * runs
            * self.longest_ms(bounds.evaluator_timeout_s, bounds.max_init_s),
            evaluator_memory_mb=bounds.evaluator_memory_mb,
            s3_puts=bounds.s3_puts,
            s3_gets=bounds.s3_gets,
            s3_gb_s=bounds.s3_gb_s,
            log_bytes=bounds.log_bytes,
            egress_bytes=bounds.egress_bytes,
            cache_s=bounds.cache_until_s,
        )

    def longest_ms(self, timeout_s: float, max_init_s: float) -> int:
        """Billed milliseconds of an invocation that initialises and runs as long as it may."""
        longest_s = exact_quantity(timeout_s, "timeout_s")
        init_s = exact_quantity(max_init_s, "max_init_s")
        if self.init_billed:
            longest_s += init_s
        return math.ceil(longest_s * MS_PER_S / self.granularity_ms) * self.granularity_ms

    def _gb_s(self, memory_mb: int, billed_ms: int) -> Decimal:
        if billed_ms != 0 or memory_mb != 0:
            check_memory_mb(memory_mb, self.memory_range_mb)
        return billing.gb_seconds(memory_mb, billed_ms)

    def _bill(self, usage: Usage, previous: RunTotals, *, compute: Decimal, evaluation: Decimal) -> Bill:
        """The bill whose duration items are given; everything else follows from the usage."""
        low, high = self.ephemeral_range_mb
        if not low <= check_count(usage.ephemeral_mb, "ephemeral_mb") <= high:
            raise PriceError(f"no price is known for a /tmp of {usage.ephemeral_mb} MB: give {low} to {high}")
        run_ms = check_count(usage.billed_ms, "billed_ms") + check_count(
            usage.evaluator_billed_ms, "evaluator_billed_ms"
        )
        with exact():
            return Bill(
                {
                    "compute": compute,
                    "requests": check_count(usage.requests, "requests") * self.request_usd,
                    "ephemeral_storage": billing.ephemeral_gb_s(usage.ephemeral_mb, run_ms)
                    * self.ephemeral_usd_per_gb_s,
                    "evaluation": evaluation,
                    "s3_requests": check_count(usage.s3_puts, "s3_puts") * self.s3_put_usd
                    + check_count(usage.s3_gets, "s3_gets") * self.s3_get_usd,
                    "s3_storage": billing.storage_usd(usage.s3_gb_s, self.s3_storage_usd_per_gb_month),
                    "cache": self.cache_usd(usage.cache_s, previous),
                    "logs": billing.traffic_usd(usage.log_bytes, self.log_usd_per_gb),
                    "transfer": billing.traffic_usd(usage.egress_bytes, self.egress_usd_per_gb),
                }
            )
