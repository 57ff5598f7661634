"""Whatever happens in an epoch, what it may still use and has used stays within its reservation."""

from __future__ import annotations

import asyncio
import random

import pytest

from siren.platforms.manager.purse import Charge, Purse

WORST = Charge(mb_ms=100, requests=1, s3_puts=3, s3_gets=5, answer_bytes=7)


def times(charge: Charge, count: int) -> Charge:
    return Charge(**{name: value * count for name, value in vars(charge).items()})


def test_a_second_call_waits_for_what_the_first_puts_back():
    async def play() -> list[str]:
        purse, order = Purse(Charge(100, 5, 9, 9, 9)), []
        assert await purse.take(WORST)

        async def second() -> None:
            assert await purse.take(Charge(60, 1, 0, 0))
            order.append("second")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        order.append("first ends")
        await purse.put_back(WORST, Charge(40, 1, 1, 1))
        await waiting
        return order

    assert asyncio.run(play()) == ["first ends", "second"]


def test_a_call_that_can_never_fit_is_refused_when_nothing_runs():
    async def play() -> bool:
        purse = Purse(WORST)
        assert await purse.take(WORST)
        waiting = asyncio.create_task(purse.take(WORST))
        await asyncio.sleep(0)
        assert not waiting.done()
        await purse.put_back(WORST, Charge(1, 1, 0, 0))
        return await waiting

    assert asyncio.run(play()) is False


@pytest.mark.parametrize("kind", ["mb_ms", "requests", "s3_puts", "s3_gets", "answer_bytes"])
def test_every_quantity_is_bounded(kind: str):
    async def play() -> bool:
        most = times(WORST, 10)
        return await Purse(most).take(Charge(**{**vars(WORST), kind: getattr(most, kind) + 1}))

    assert asyncio.run(play()) is False


@pytest.mark.parametrize("seed", range(30))
def test_any_course_of_calls_stays_within_the_reservation(seed: int):
    rng = random.Random(seed)
    workers = rng.randint(1, 12)
    most = times(WORST, rng.randint(workers, 2 * workers))

    async def play() -> tuple[Charge, int]:
        purse, launched = Purse(most), 0

        async def worker() -> None:
            nonlocal launched
            while await purse.take(WORST):
                launched += 1
                await asyncio.sleep(rng.random() * 1e-4)
                share = rng.choice((1.0, rng.random()))
                used = Charge(int(share * 100), 1, rng.randint(0, 3), rng.randint(0, 5), rng.randint(0, 7))
                await purse.put_back(WORST, used)
                assert purse.used.within(most)

        await asyncio.gather(*(worker() for _ in range(workers)))
        return purse.used, launched

    used, launched = asyncio.run(play())
    assert launched >= workers
    assert used.within(most)
    assert not (used + WORST).within(most), "something would still have fitted"
