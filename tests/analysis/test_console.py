"""What a person sees: on a terminal, in a pipe, and with --json."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.analysis import _format, records
from siren.analysis._table import COLUMNS, Table
from siren.analysis._wording import comparison_lines
from siren.analysis.console import ConsoleObserver, JsonObserver, console_for, observer_for
from siren.errors import RunFolderError
from siren.types import Comparison, RunObserver, StopReason
from tests.analysis import samples
from tests.analysis.screen import run_in_terminal, visible

SHOW = """
import sys
from siren.analysis.console import observer_for
from siren.types import StopReason
from tests.analysis import samples

count, past, reason, json = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "json"
records = samples.epochs(count)
observer = observer_for(json, sys.stdout, sys.stderr)
ending = samples.summary(records, StopReason(reason), notes=("digits instead of MNIST",))
samples.play(observer, records, ending, past)
"""


def command(count, past=0, reason="target_reached", json="text"):
    return [sys.executable, "-W", "error", "-c", SHOW, count, past, reason, json]


def piped(*arguments, **environment) -> str:
    argv = [str(part) for part in command(*arguments)]
    done = subprocess.run(argv, capture_output=True, check=True, env={**os.environ, **environment})
    assert done.stderr == b""
    return done.stdout.decode()


def rows_of(lines) -> list[str]:
    return [line for line in lines if re.match(r" *\d+ +\d+ +\d+ +\d", line)]


# --- a pipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}])
def test_piped_output_is_plain_lines(environment):
    text = piped(12, 0, "interrupted", **environment)
    assert not re.search(r"[^\n -~]", text), "only printable ASCII and newlines"
    lines = text.splitlines()
    assert lines[0] == "Siren: Perceptron on MNIST (mlp-mnist)"
    for line in ("platform  twin: no money is spent", "budget    $2.00", "seed      1", "interrupted"):
        assert line in lines
    assert "target    held-out loss 0.08, within 200 epochs" in lines
    assert "note      digits instead of MNIST" in lines
    assert "resume    python -m siren.run --resume runs/2026-11-22T06-30-12-mlp-mnist" in lines
    assert any(re.fullmatch(r"bill +compute +\$0\.\d{6}", line) for line in lines)
    rows = rows_of(lines)
    assert len(rows) == 12
    heading = next(line for line in lines if line.startswith("epoch "))
    assert {len(row) for row in rows} == {len(heading)}
    assert len(heading) <= 80
    assert max(map(len, lines)) <= 80


def test_every_line_is_flushed_as_its_epoch_ends():
    class Counting(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    stream = Counting()
    observer = observer_for(False, stream, io.StringIO())
    run = samples.epochs(2)
    observer.started(samples.header(), (), 2.3)
    observer.epoch_ended(run[0])
    assert stream.flushed == stream.getvalue()
    assert len(rows_of(stream.flushed.splitlines())) == 1


def test_long_texts_are_not_cut_in_a_pipe_and_their_control_characters_do_not_pass():
    stream = io.StringIO()
    observer = observer_for(False, stream, io.StringIO())
    folder = "runs/" + "x" * 200
    nasty = "red \x1b[31m bell \x07 new\nline"
    samples.play(observer, (), samples.summary(folder=folder, title=nasty, notes=(nasty,)))
    text = stream.getvalue()
    assert folder in text
    assert not re.search(r"[^\n -~]", text)
    assert "note      red ?[31m bell ? new line" in text


def test_a_stream_that_cannot_write_a_letter_gets_a_question_mark():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    samples.play(observer_for(False, stream, stream), (), samples.summary(title="Größe"))
    stream.flush()
    assert b"Siren: Gr??e (mlp-mnist)" in stream.buffer.getvalue()


def test_a_reader_that_goes_away_does_not_stop_the_run():
    argv = [str(part) for part in command(300)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_log_on_a_full_disk_does_not_stop_the_run():
    # Not closed by us: what is still buffered could not be written then either.
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", closefd=False)
    observer = observer_for(False, stream, stream)
    run = samples.epochs(3)
    samples.play(observer, run, samples.summary(run))
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    stream.close()


def test_an_epoch_in_trouble_says_so():
    stream = io.StringIO()
    record = samples.epochs(1)[0]
    report = dataclasses.replace(record.status.report, unfinished=3, throttles=1)
    record = dataclasses.replace(record, status=dataclasses.replace(record.status, report=report))
    samples.play(observer_for(False, stream, stream), (record,), samples.summary((record,)))
    assert "epoch 1: 3 functions stopped at the deadline, 1 function throttled\n" in stream.getvalue()


def test_resumed_runs_show_their_last_epochs_and_count_all_of_them():
    text = piped(30, 28)
    lines = text.splitlines()
    assert any(line.startswith("resumed after epoch 28, $0.") for line in lines)
    assert "... 23 earlier epochs" in lines
    assert [int(row.split()[0]) for row in rows_of(lines)] == list(range(24, 31))


# --- a terminal --------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 24), (132, 50), (200, 10)])
def test_on_a_terminal_every_epoch_is_one_line_and_nothing_of_the_bars_remains(columns, rows):
    written, code = run_in_terminal(command(60, 0, "limit_reached"), columns, rows, {})
    assert code == 0
    assert "\x1b[2K" in written, "the live region was redrawn"
    assert written.rstrip().endswith("mlp-mnist")
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"), "the cursor is shown again"
    lines = visible(written, columns)
    shown = rows_of(lines)
    assert [int(row.split()[0]) for row in shown] == list(range(1, 61))
    headings = [line for line in lines if line.startswith("epoch ")]
    assert len({len(row) for row in shown} | {len(heading) for heading in headings}) == 1
    assert len(headings) >= 2, "long tables repeat their heading"
    text = "\n".join(lines)
    assert "no money is spent" in text
    assert "best loss" not in text
    assert "stopped at a limit before the target" in text
    assert "resume   python -m siren.run --resume runs/2026-11-22T06-30-12-mlp-mnist" in text


def test_the_bars_show_the_way_to_the_target_and_the_budget():
    written, _ = run_in_terminal(command(5), 100, 30, {})
    assert re.search(r"best loss.*-> 0\.08.*━", written)
    assert re.search(r"budget.*of \$2\.00", written)
    assert re.search(r"epoch 5: 40 functions of 1,769 MB", written)


def test_no_color_is_honoured():
    coloured, _ = run_in_terminal(command(3), 80, 24, {})
    plain, _ = run_in_terminal(command(3), 80, 24, {"NO_COLOR": "1"})
    colours = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]+)m")
    assert colours.search(coloured)
    assert not colours.search(plain)
    assert "\x1b[2K" in plain, "it is still a terminal"


def test_a_dumb_terminal_gets_plain_lines():
    written, _ = run_in_terminal(command(3), 80, 24, {"TERM": "dumb"})
    assert "\x1b" not in written
    assert len(rows_of(written.splitlines())) == 3


def test_a_window_that_changes_its_width_gets_a_new_heading(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = console_for(stream)
    observer = ConsoleObserver(console)
    run = samples.epochs(2)
    console.size = (132, 40)
    observer.started(samples.header(), (), 2.3)
    observer.epoch_ended(run[0])
    console.size = (80, 40)
    observer.epoch_ended(run[1])
    observer.close()
    observer.close()
    assert len(re.findall(r"epoch +funcs", stream.getvalue())) == 2
    assert "staleness" in stream.getvalue()


# --- --json ------------------------------------------------------------------------------------


def test_with_json_stdout_is_one_object_and_a_pipe_of_stderr_stays_silent():
    text = piped(4, 0, "budget_exhausted", "json")
    obj = json.loads(text)
    assert obj["exit_code"] == 3
    assert records.summary_from_json(records.parse(text)) == samples.summary(
        samples.epochs(4), StopReason.BUDGET_EXHAUSTED, notes=("digits instead of MNIST",)
    )


def test_with_json_progress_goes_to_stderr_if_that_is_a_terminal(tmp_path):
    path = tmp_path / "out.json"
    with path.open("wb") as out:
        written, code = run_in_terminal(command(4, 0, "target_reached", "json"), 80, 24, {}, out.fileno())
    assert code == 0
    assert len(rows_of(visible(written, 80))) == 4
    assert json.loads(path.read_text())["target_reached"] is True


def test_a_summary_that_cannot_be_printed_says_where_it_is():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    observer = JsonObserver(Full(), RunObserver())
    with pytest.raises(RunFolderError, match=r"No space left on device; it is also in runs/.*/summary\.json"):
        samples.play(observer, (), samples.summary())
    observer.close()


def test_notes_are_told_beside_json():
    stdout, stderr = io.StringIO(), io.StringIO()
    observer = observer_for(True, stdout, stderr)
    observer.note("function 1 of epoch 2 ran out of 1024 MB and is run again with 1769 MB")
    samples.play(observer, (), samples.summary())
    assert stderr.getvalue() == "function 1 of epoch 2 ran out of 1024 MB and is run again with 1769 MB\n"
    assert json.loads(stdout.getvalue())["target_reached"] is True


# --- words and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("reason", StopReason)
def test_every_end_has_its_words(reason):
    stream = io.StringIO()
    samples.play(observer_for(False, stream, stream), (), samples.summary(reason=reason, spends_money=True))
    text = stream.getvalue()
    assert "real money is spent" in text
    assert ("--resume" in text) == (reason.value in ("interrupted", "limit_reached", "platform_failure"))


def test_a_comparison_tells_only_what_is_known():
    known = Comparison(4, 1769, 1, 100, 8, 0.875, True, 20.0, Decimal("0.5"), 1.5, 0.75, 10.0, 3.0, 3)
    compare, chosen, bound = comparison_lines(known)
    assert compare[1].startswith("fixed:4x1769: ")
    assert compare[1].endswith("; the run took 1.50 times as long and cost 0.75 times as much")
    assert chosen[1] == ("among 1 fixed action on seeds 100 to 107; 88% of its runs there reached the target")
    assert bound[1].endswith("a model fitted to 3 curves; the run took 3.00 times as long")
    nan = math.nan
    unknown = dataclasses.replace(
        known, fixed_reached=False, fixed_s=nan, time_ratio=nan, cost_ratio=nan, bound_s=nan, bound_ratio=nan
    )
    compare, chosen = comparison_lines(unknown)
    assert compare == ("compare", "fixed:4x1769: did not reach the target with this seed")


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "$0.00"),
        ("0.0000001", "$1.0e-07"),
        ("0.000012", "$0.000012"),
        ("0.00123", "$0.00123"),
        ("1.5", "$1.50000"),
        ("12345.6", "$12,346"),
    ],
)
def test_dollars_are_readable(usd, text):
    assert _format.dollars(Decimal(usd), decimals=5) == text


def test_a_budget_is_shown_as_typed():
    assert [_format.budget(Decimal(b)) for b in ("2", "2.00", "0.125", "1E+1")] == [
        "$2.00",
        "$2.00",
        "$0.125",
        "$10.00",
    ]
    assert _format.exact_dollars(Decimal("1e-9")) == "under $0.000001"


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0s"),
        (0.0001, "0.1ms"),
        (0.85, "850ms"),
        (0.9999, "1.00s"),
        (9.999, "10.0s"),
        (125, "2m05s"),
        (3599.7, "1h00m"),
        (86400 * 5, "5d00h"),
        (math.nan, "-"),
    ],
)
def test_durations_are_readable(duration_s, text):
    assert _format.seconds(duration_s) == text


@given(st.floats(0, 999_999))
def test_numbers_fit_their_columns(value):
    assert len(_format.dollars(value)) <= 8
    assert len(_format.dollars(value, decimals=5)) <= 9
    assert len(_format.seconds(value)) <= 6
    assert len(_format.loss(value)) <= 7
    assert len(_format.loss(-value)) <= 8


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_losses_that_are_no_numbers_are_named(value, text):
    assert _format.loss(value) == text


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ((1.0, 0.1, 0.01), 0.5),
        ((1.0, 2.0, 0.01), 0.0),
        ((1.0, 0.01, 0.01), 1.0),
        ((1.0, math.nan, 0.01), 0.0),
        ((math.nan, 0.5, 0.01), 0.0),
        ((math.nan, 0.01, 0.01), 1.0),
        ((1.0, 0.0, -1.0), 0.5),
        ((0.01, 0.5, 0.1), 0.0),
    ],
)
def test_progress_is_logarithmic_and_between_0_and_1(losses, share):
    assert _format.progress(*losses) == pytest.approx(share)


def test_the_table_uses_the_width_there_is():
    assert Table.for_width(80).width <= 80
    assert {c.head for c in Table.for_width(80).columns} >= {"fetch", "compute", "update", "cold", "left"}
    assert Table.for_width(200).columns == COLUMNS
    widths = [Table.for_width(width).width for width in range(60, 200)]
    assert widths == sorted(widths)
    assert all(table <= width for table, width in zip(widths, range(60, 200), strict=True))
    assert all(len(column.head) <= column.width for column in COLUMNS)
