"""An epoch's functions under everything that Lambda may answer, told by a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from siren.errors import PlatformError, WorkloadError
from siren.platforms.manager import crew as crew_module
from siren.platforms.manager.crew import Crew, Outcome, Terms
from siren.platforms.manager.invoker import Answer, Fate
from siren.platforms.manager.purse import Charge, Purse
from siren.platforms.manager.report_line import Report
from siren.worker.messages import DataRef, ModelRef, Status, Task
from siren.worlds.real import ANSWER_BYTES, Shares
from siren.worlds.requests import Requests

MEMORY, LARGER, LONGEST_MS = 512, 1024, 1000
SHARES = Shares(Requests(10, 10), Requests(10, 10))
TERMS = Terms(LONGEST_MS, 1, SHARES, retries=0, answer_s=5.0, larger_mb=LARGER)
DATA = DataRef("data/" + "0" * 64 + "/", 100, 8, "<f4", (1,), "<f4", 100)
PUSHES = 4


def task(worker: int = 0, functions: int = 1) -> Task:
    return Task(
        run="r",
        epoch=1,
        functions=functions,
        epoch_pushes=PUSHES * functions,
        worker=worker,
        rule="average",
        channel="s3",
        region="us-east-1",
        bucket="bucket",
        dataset=DATA,
        model=ModelRef("numpy", (1,), 2),
        size=2,
        first_row=0,
        batches=(5,) * PUSHES,
        order_seed=0,
        rate=0.1,
        staleness_scale=1.0,
        deadline_s=2.0,
    )


def status(told: Task, position: int = PUSHES, state: str = "done", **changes) -> Status:
    values = {
        "run": told.run,
        "epoch": told.epoch,
        "launch": told.launch,
        "worker": told.worker,
        "attempt": told.attempt,
        "state": state,
        "position": position,
        "samples": 5 * position,
        "pushes": position - told.position,
        "version": 0,
        "model_key": "",
        "began": 1.0,
        "load_s": 0.1,
        "fetch_s": 0.1,
        "compute_s": 0.1,
        "update_s": 0.1,
        "staleness_sum": 0,
        "retries": 0,
        "s3_puts": 1,
        "s3_gets": 2,
        "loaded_rows": 20,
        "square_norm_sum": 1.0,
        "max_rss_mb": 50.0,
        "cold": False,
    }
    return Status(**{**values, **changes})


def returned(told: Status, billed_ms: int = 100) -> Answer:
    payload = json.dumps(told.to_json()).encode()
    return Answer(Fate.RETURNED, payload, report=Report("id", billed_ms - 1.0, billed_ms, MEMORY, 40))


def failed(kind: str, message: str = "", *, billed_ms: int = 50, trace: tuple[str, ...] = ()) -> Answer:
    error = {"errorType": kind, "errorMessage": message, "stackTrace": list(trace)}
    report = Report("id", billed_ms - 1.0, billed_ms, MEMORY, 40)
    return Answer(Fate.RETURNED, json.dumps(error).encode(), failed=True, report=report)


LOST = Answer(Fate.LOST, detail="HTTP 500")
REFUSED = Answer(Fate.REFUSED, throttled=True, detail="HTTP 429")
KILLED = failed("Runtime.ExitError", "exit status 1")
Script = Callable[[Task, str, int], Answer]


class Scripted:
    """Answers invocation k of each function as a script says."""

    def __init__(self, script: Script) -> None:
        self.script, self.pauses = script, True
        self.calls: list[tuple[str, Task]] = []

    async def invoke(
        self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None]
    ) -> Answer:
        on_sent()
        told = Task.from_json(json.loads(payload))
        count = sum(task.worker == told.worker for _, task in self.calls)
        self.calls.append((function, told))
        if self.pauses:
            await asyncio.sleep(0)
        return self.script(told, function, count)


def play(
    script: Script, functions: int = 1, runs: int = 1, within_s: float = 5.0, terms: Terms = TERMS
) -> tuple[Outcome, Scripted]:
    """The outcome of a crew whose reservation holds `runs` invocations of each function."""
    invoker, count = Scripted(script), functions * runs
    most = Charge(count * MEMORY * LONGEST_MS, 3 * count, 30 * count, 30 * count, 3 * count * ANSWER_BYTES)

    async def run() -> Outcome:
        crew = Crew(invoker, lambda memory_mb: f"arn:{memory_mb}", Purse(most), terms, MEMORY)
        return await crew.run([task(i, functions) for i in range(functions)], within_s)

    outcome = asyncio.run(run())
    assert outcome.used.within(most)
    return outcome, invoker


def answers(*told: Callable[[Task], Answer] | Answer) -> Script:
    """One answer for each invocation of a function, the last one for all that follow."""

    def script(told_task: Task, function: str, count: int) -> Answer:
        answer = told[min(count, len(told) - 1)]
        return answer if isinstance(answer, Answer) else answer(told_task)

    return script


def test_a_function_is_told_how_often_it_may_ask_s3():
    shares = Shares(Requests(3, 9), Requests(2, 5))
    _, invoker = play(
        lambda told, _, count: returned(status(told)), functions=2, terms=replace(TERMS, shares=shares)
    )
    told = {task.worker: (task.s3_puts, task.s3_gets) for _, task in invoker.calls}
    assert told == {0: (3, 9), 1: (2, 5)}


def test_retries_are_set_aside_again_only_for_what_told_how_many_it_made():
    terms = replace(TERMS, retries=7)
    script = answers(
        KILLED, lambda told: returned(status(told, 2, "unfinished")), lambda t: returned(status(t))
    )
    outcome, invoker = play(script, runs=3, terms=terms)
    assert outcome.members[0].done
    assert [told.s3_puts for _, told in invoker.calls] == [17, 10, 17]


def done(told: Task) -> Answer:
    return returned(status(told))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(crew_module, "BACKOFF_S", 0.001)


def test_functions_that_return_are_billed_as_reported():
    outcome, invoker = play(answers(done), 3)
    assert len(invoker.calls) == 3
    assert outcome.used == Charge(3 * 100 * MEMORY, 3, 3, 6)
    assert (outcome.retries, outcome.throttles, outcome.lost) == (0, 0, 0)
    assert all(member.done for member in outcome.members)


def test_billed_time_is_rounded_as_the_world_rounds():
    outcome, _ = play(answers(lambda t: returned(status(t), 101)), terms=replace(TERMS, granularity_ms=100))
    assert outcome.used.mb_ms == 200 * MEMORY


def test_throttled_invocations_wait_and_cost_nothing():
    outcome, invoker = play(answers(REFUSED, REFUSED, done))
    assert len(invoker.calls) == 3
    assert outcome.used == Charge(100 * MEMORY, 1, 1, 2)
    assert (outcome.throttles, outcome.retries) == (2, 0)


def test_an_unfinished_function_goes_on_where_it_stopped():
    outcome, invoker = play(answers(lambda t: returned(status(t, 3, "unfinished")), done), runs=2)
    told = invoker.calls[1][1]
    assert (told.worker, told.attempt, told.position) == (0, 1, 3)
    assert outcome.members[0].done
    assert outcome.used.mb_ms == 200 * MEMORY


def test_an_unfinished_function_stays_so_where_the_reservation_does_not_cover_another():
    def script(told: Task, function: str, count: int) -> Answer:
        return returned(status(told, 1, "unfinished"), billed_ms=LONGEST_MS)

    outcome, invoker = play(script, 2)
    assert len(invoker.calls) == 2
    assert not any(member.done for member in outcome.members)
    assert "reservation" in outcome.members[0].ended


def test_a_function_that_makes_no_progress_is_not_run_for_ever():
    outcome, invoker = play(answers(lambda t: returned(status(t, 0, "unfinished"))), runs=10)
    assert len(invoker.calls) == crew_module.STALLED
    assert not outcome.members[0].done


def test_a_lost_answer_is_charged_in_full_and_repeated_only_if_that_still_fits():
    outcome, invoker = play(answers(LOST, done), runs=2)
    assert len(invoker.calls) == 2
    assert outcome.used == Charge((LONGEST_MS + 100) * MEMORY, 2, 11, 12, ANSWER_BYTES)
    assert (outcome.lost, outcome.retries) == (1, 1)
    with pytest.raises(PlatformError, match="no function of the epoch returned"):
        play(answers(LOST, done), runs=1)


def test_one_lost_answer_of_many_leaves_the_others_result():
    def script(told: Task, function: str, count: int) -> Answer:
        return LOST if told.worker == 1 else returned(status(told), LONGEST_MS)

    outcome, _ = play(script, 3)
    assert [member.done for member in outcome.members] == [True, False, True]
    assert outcome.used.mb_ms == 3 * LONGEST_MS * MEMORY


def test_a_killed_function_runs_again_from_what_the_others_put_back():
    def script(told: Task, function: str, count: int) -> Answer:
        return KILLED if told.worker == 0 and count == 0 else done(told)

    outcome, invoker = play(script, 2)
    assert all(member.done for member in outcome.members)
    assert outcome.retries == 1
    assert outcome.used.mb_ms == (50 + 100 + 100) * MEMORY
    assert outcome.used.requests == len(invoker.calls) == 3


def test_a_function_that_is_killed_again_and_again_is_given_up():
    def script(told: Task, function: str, count: int) -> Answer:
        return KILLED if told.worker == 0 else done(told)

    outcome, invoker = play(script, 2, runs=10)
    assert len(invoker.calls) == 1 + 3
    assert "exit status 1" in outcome.members[0].ended


def test_out_of_memory_is_repeated_once_with_the_next_size_and_said():
    def script(told: Task, function: str, count: int) -> Answer:
        return (
            failed("Runtime.OutOfMemory", "signal: killed") if function.endswith(str(MEMORY)) else done(told)
        )

    outcome, invoker = play(script, runs=4)
    assert [function for function, _ in invoker.calls] == [f"arn:{MEMORY}", f"arn:{LARGER}"]
    assert outcome.used.mb_ms == 50 * MEMORY + 100 * LARGER
    assert outcome.notes == ["function 0 of epoch 1 ran out of 512 MB and is run again with 1024 MB"]
    with pytest.raises(PlatformError, match=r"ran out of 1024 MB .* choose more memory"):
        play(answers(failed("Runtime.OutOfMemory")), runs=8)


def test_a_model_that_raises_ends_the_run():
    trace = ('  File "/var/task/workload/model.py", line 3, in loss_and_grad',)
    with pytest.raises(WorkloadError, match="ZeroDivisionError: by zero"):
        play(answers(failed("ZeroDivisionError", "by zero", trace=trace)), 3)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(Fate.RETURNED, b"null"),
        Answer(Fate.RETURNED, b"\xff"),
        failed("MessageError", "the task lacks 'rate'"),
        returned(replace(status(task()), run="other")),
        returned(replace(status(task()), attempt=7)),
        returned(status(task(), position=PUSHES + 1)),
    ],
)
def test_what_is_no_answer_to_this_task_ends_the_run(answer: Answer):
    with pytest.raises(PlatformError):
        play(answers(answer))


def test_an_answer_without_report_is_charged_in_full():
    outcome, _ = play(answers(lambda t: replace(returned(status(t)), report=None)))
    assert outcome.used.mb_ms == LONGEST_MS * MEMORY


def test_an_epoch_does_not_outlast_its_time():
    with pytest.raises(PlatformError, match="had not ended"):
        play(answers(REFUSED), within_s=0.05)


def test_a_diverged_function_is_not_run_again():
    outcome, invoker = play(answers(lambda t: returned(status(t, 1, "diverged"))), runs=5)
    assert len(invoker.calls) == 1
    assert outcome.members[0].diverged
    assert not outcome.members[0].done


UNREACHABLE = Answer(Fate.REFUSED, unreachable=True, detail="ClientConnectorError no route")


def test_lambda_that_nobody_reaches_ends_the_epoch_and_says_what_to_check(monkeypatch):
    monkeypatch.setattr(crew_module, "UNREACHABLE_S", 0.2)
    with pytest.raises(PlatformError, match=r"no route.*network, HTTPS_PROXY.*ulimit -n"):
        play(answers(UNREACHABLE), functions=3)


def test_an_answer_between_shows_that_lambda_is_reached(monkeypatch):
    monkeypatch.setattr(crew_module, "UNREACHABLE_S", 1e-9)
    monkeypatch.setattr(crew_module, "BACKOFF_S", 0.001)
    outcome, invoker = play(answers(UNREACHABLE, REFUSED, UNREACHABLE, REFUSED, done))
    assert (len(invoker.calls), outcome.throttles, outcome.retries) == (5, 2, 0)


def test_lambda_that_answers_another_function_is_reached(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(crew_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(crew_module, "BACKOFF_S", 0.001)

    def script(told: Task, function: str, count: int) -> Answer:
        if told.worker == 1:
            clock.now = 50.0
            return done(told)
        if clock.now == 50.0:  # 20 s after that
            clock.now = 70.0
            return UNREACHABLE
        return done(told) if clock.now else UNREACHABLE

    outcome, _ = play(script, functions=2)
    assert all(member.done for member in outcome.members)
    assert clock.now > crew_module.UNREACHABLE_S


def test_connections_lost_long_apart_are_not_one_long_loss(monkeypatch):
    monkeypatch.setattr(crew_module, "UNREACHABLE_S", 0.2)
    monkeypatch.setattr(crew_module, "BACKOFF_S", 0.001)

    class Slow(Scripted):
        """Function 0 runs for long after a lost connection; function 1 loses its own meanwhile."""

        async def invoke(
            self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None]
        ) -> Answer:
            answer = await super().invoke(function, payload, longest_s=longest_s, on_sent=on_sent)
            second = Task.from_json(json.loads(payload)).worker == 1
            await asyncio.sleep(0.4 if answer.unreachable and second else 0.6 * (not answer.unreachable))
            return answer

    invoker = Slow(answers(UNREACHABLE, done))
    most = Charge(2 * MEMORY * LONGEST_MS, 6, 60, 60, 6 * ANSWER_BYTES)

    async def run() -> Outcome:
        crew = Crew(invoker, lambda memory_mb: f"arn:{memory_mb}", Purse(most), TERMS, MEMORY)
        return await crew.run([task(i, 2) for i in range(2)], 5.0)

    assert all(member.done for member in asyncio.run(run()).members)


class Unsent(Scripted):
    """Never gets as far as sending anything."""

    async def invoke(
        self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None]
    ) -> Answer:
        return await super().invoke(function, payload, longest_s=longest_s, on_sent=lambda: None)


def launched(invoker: Scripted, functions: int = 2, within_s: float = 0.1) -> int:
    """What a crew counts as launched whose epoch fails."""
    invoker.pauses = False  # or the epoch's time might end while a request is on its way
    count = 3 * functions
    most = Charge(count * MEMORY * LONGEST_MS, count, 10 * count, 10 * count, count * ANSWER_BYTES)

    async def run() -> int:
        crew = Crew(invoker, lambda memory_mb: f"arn:{memory_mb}", Purse(most), TERMS, MEMORY)
        with pytest.raises(PlatformError):
            await crew.run([task(i, functions) for i in range(functions)], within_s)
        return crew.launched

    return asyncio.run(run())


def test_what_was_refused_or_never_left_was_not_launched():
    def forbidden(told: Task, function: str, count: int) -> Answer:
        raise PlatformError("Lambda refuses to invoke it: look at its permissions")

    def endless(told: Task, function: str, count: int) -> Answer:
        return UNREACHABLE if count else REFUSED

    assert launched(Scripted(answers(REFUSED))) == 0
    assert launched(Unsent(answers(UNREACHABLE))) == 0
    assert launched(Scripted(endless)) == 0
    assert launched(Scripted(forbidden)) == 0
    assert launched(Scripted(answers(LOST))) > 0
    assert launched(Scripted(answers(KILLED))) > 0


def test_what_was_on_its_way_when_the_epoch_ended_may_have_run():
    class Silent(Scripted):
        async def invoke(
            self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None]
        ) -> Answer:
            answer = await super().invoke(function, payload, longest_s=longest_s, on_sent=on_sent)
            await asyncio.sleep(60)
            return answer

    assert launched(Silent(answers(REFUSED))) == 2


@pytest.mark.parametrize(("received", "counted"), [(700, ANSWER_BYTES), (2 * ANSWER_BYTES, 2 * ANSWER_BYTES)])
def test_answers_are_counted_in_bytes_and_failures_at_their_bound_at_least(received, counted):
    def script(told: Task, function: str, count: int) -> Answer:
        if told.worker == 0 and count == 0:
            return replace(KILLED, received_bytes=received)
        return replace(done(told), received_bytes=1000 + told.worker)

    outcome, _ = play(script, 2)
    assert outcome.used.answer_bytes == counted + 1000 + 1001


def test_function_0_sets_more_aside_where_it_asks_for_more():
    taken = []

    class Noted(Purse):
        async def take(self, worst: Charge) -> bool:
            taken.append((worst.s3_puts, worst.s3_gets))
            return await super().take(worst)

    most = Charge(3 * MEMORY * LONGEST_MS, 9, 60, 1000, 9 * ANSWER_BYTES)
    terms = replace(TERMS, shares=Shares(Requests(4, 500), Requests(3, 20)))

    async def run() -> None:
        crew = Crew(Scripted(answers(done)), lambda memory_mb: f"arn:{memory_mb}", Noted(most), terms, MEMORY)
        await crew.run([task(i, 3) for i in range(3)], 5.0)

    asyncio.run(run())
    assert sorted(taken) == [(3, 20), (3, 20), (4, 500)]
