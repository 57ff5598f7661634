"""Money inside an epoch: no invocation starts unless its worst case fits what the reservation has left.

An epoch's reservation bounds n invocations (times the lifetimes that were planned, and the spares) that
all run until Lambda's own timeout ends them. Every invocation that is launched takes its worst case out of
it; one that returns puts back what it did not use. What is repeated (after a kill, a lost answer, a
deadline) is paid from that alone, so an epoch never bills more than was reserved.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Charge:
    """What invocations used, or may use at most.

    Attributes:
        mb_ms: Memory times billed milliseconds: sizes can be mixed, the price is the same for each.
        requests: Invocations.
        s3_puts, s3_gets: Requests to S3, by the two prices.
        answer_bytes: What Lambda sends back.
    """

    mb_ms: int = 0
    requests: int = 0
    s3_puts: int = 0
    s3_gets: int = 0
    answer_bytes: int = 0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.mb_ms + other.mb_ms,
            self.requests + other.requests,
            self.s3_puts + other.s3_puts,
            self.s3_gets + other.s3_gets,
            self.answer_bytes + other.answer_bytes,
        )

    def __sub__(self, other: Charge) -> Charge:
        return self + Charge(
            -other.mb_ms, -other.requests, -other.s3_puts, -other.s3_gets, -other.answer_bytes
        )

    def within(self, most: Charge) -> bool:
        """Whether nothing of it exceeds `most`."""
        return (
            self.mb_ms <= most.mb_ms
            and self.requests <= most.requests
            and self.s3_puts <= most.s3_puts
            and self.s3_gets <= most.s3_gets
            and self.answer_bytes <= most.answer_bytes
        )


class Purse:
    """What an epoch may use and has used. Belongs to one event loop.

    Args:
        most: What the reservation bounds.

    Attributes:
        used: What has been used for certain, or must be taken as used.
    """

    def __init__(self, most: Charge) -> None:
        self.used = Charge()
        self._most = most
        self._committed = Charge()
        self._running = 0
        self._changed = asyncio.Condition()

    async def take(self, worst: Charge) -> bool:
        """Sets the worst case of an invocation aside; waits for others to put back if it does not fit.

        Returns:
            False if it does not fit even now that nothing else runs.
        """
        async with self._changed:
            while not (self.used + self._committed + worst).within(self._most):
                if not self._running:
                    return False
                await self._changed.wait()
            self._committed += worst
            self._running += 1
            return True

    async def put_back(self, worst: Charge, used: Charge) -> None:
        """The invocation that took `worst` has ended and used `used`."""
        async with self._changed:
            self._committed -= worst
            self.used += used
            self._running -= 1
            self._changed.notify_all()
