"""The console script `siren`."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from siren import __version__, cli
from siren.errors import UnknownNameError


def siren(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "siren", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def called(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return cli.main(arguments, out, err), out.getvalue(), err.getvalue()


def test_every_module_with_a_guard_is_a_command_and_nothing_else_is(checkout: Path) -> None:
    guarded = {p.stem for p in (checkout / "siren").glob("*.py") if cli.GUARD in p.read_text()}
    assert {cli.module_of(name).removeprefix("siren.") for name in cli.commands()} == guarded - {
        "cli",
        "__main__",
    }


def test_the_list_names_every_command_with_a_line_that_fits_a_terminal() -> None:
    code, out, err = called("--help")
    assert (code, err) == (0, "")
    for name, line in cli.commands().items():
        assert line
        assert f"  {name:14} {line}\n" in out
    assert max(map(len, out.splitlines())) <= 110
    assert called() == called("-h") == (0, out, "")


def test_a_newcomer_reads_run_first() -> None:
    names = list(cli.commands())
    assert names[0] == "run"
    assert names.index("rehearse") < names.index("train-agent") < names.index("prices")


def test_the_list_loads_nothing_but_the_error_tree() -> None:
    code = (
        "import sys\nfrom siren import cli\ncli.main(['--help'])\n"
        "print([m for m in ('tyro', 'numpy', 'rich', 'pydantic', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    code, out, err = called("evaluat")
    assert (code, out) == (2, "")
    assert "did you mean 'evaluate'?" in err
    with pytest.raises(UnknownNameError):
        cli.module_of("cli")


def test_hyphen_and_underscore_are_the_same() -> None:
    assert cli.module_of("train-agent") == cli.module_of("train_agent") == "siren.train_agent"


def test_version() -> None:
    assert called("--version") == (0, f"siren {__version__}\n", "")


def test_a_command_is_what_python_m_runs() -> None:
    ours = siren("prices", "--grep", "lambda.request")
    module = [sys.executable, "-m", "siren.prices", "--grep", "lambda.request"]
    theirs = subprocess.run(module, capture_output=True, text=True, check=True)
    assert ours.returncode == 0
    assert ours.stdout == theirs.stdout
    assert "0.0000002" in ours.stdout


def test_the_exit_code_and_the_message_are_those_of_the_command() -> None:
    done = siren("run", "--budget", "-1")
    assert done.returncode == 2
    assert done.stderr.startswith("siren.run: ")


def test_the_console_script_is_this_main(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["siren"].partition(":")
    assert getattr(import_module(module), function) is cli.main


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    code, script, err = called("--tyro-print-completion", "bash")
    assert (code, err) == (0, "")
    file = tmp_path / "siren.bash"
    file.write_text(script)

    def completed(*words: str) -> list[str]:
        typed = " ".join(words)
        ask = (
            f"source {file}\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words) - 1}\nCOMP_LINE='{typed}'\n"
            f"COMP_POINT={len(typed)}\n_tyro_siren\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        return [word.strip() for word in done.stdout.split("\n") if word.strip()]

    assert "rehearse" in completed("siren", "reh")
    assert "--workload" in completed("siren", "run", "--work")
