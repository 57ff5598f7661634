"""Run folders: durable, exclusive, and clear about damage."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from siren.analysis import _tensors, run_folder
from siren.analysis._disk import Disk
from siren.analysis.run_folder import RunFolder, new_run_path
from siren.analysis.system import _git_state, system_facts
from siren.errors import RunFolderError, WorkloadError
from tests.analysis import samples

CONFIG = {"workload": "mlp-mnist", "budget_usd": Decimal("2.00"), "rate": 0.1, "epochs": 5}
RECORDS = samples.epochs(4)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", CONFIG, {"host": "here"})


def filled(folder: RunFolder, count: int = 3) -> Path:
    for record in RECORDS[:count]:
        folder.append(record)
    return folder.path / run_folder.EVENTS


# --- create and open ---------------------------------------------------------------------------


def test_a_created_folder_opens_with_the_same_config(folder):
    again = RunFolder.open(folder.path)
    assert again.config == folder.config == CONFIG
    assert isinstance(again.config["budget_usd"], Decimal)
    assert isinstance(again.config["rate"], float)
    assert again.system == {"host": "here"}
    assert again.events() == ()


def test_an_empty_folder_is_used_and_a_full_one_refused(tmp_path):
    RunFolder.create(tmp_path / "a" / "b", CONFIG, {})
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", CONFIG, {})
    with pytest.raises(
        RunFolderError, match=r"already holds files: choose another folder, or `python -m siren.run"
    ):
        RunFolder.create(tmp_path / "empty", CONFIG, {})


def test_a_path_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"could not create the run folder .*Not a directory"):
        RunFolder.create(tmp_path / "file" / "run", CONFIG, {})
    with pytest.raises(RunFolderError, match="already holds files"):
        RunFolder.create(tmp_path / "file", CONFIG, {})


def test_of_two_processes_that_create_one_folder_the_second_is_refused(tmp_path):
    class Racing(Disk):
        def create(self, path):
            RunFolder.create(path.parent, CONFIG, {"host": "first"})
            super().create(path)

    # The rival is there between the check and the first file.
    with pytest.raises(RunFolderError, match="already holds files"):
        RunFolder.create(tmp_path / "run", CONFIG, {"host": "second"}, Racing())
    assert RunFolder.open(tmp_path / "run").system == {"host": "first"}


@pytest.mark.parametrize("name", ["config.json", "system.json", "events.jsonl"])
def test_a_missing_file_is_named(folder, name):
    (folder.path / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing.*start a new run"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("name", ["config.json", "system.json"])
@pytest.mark.parametrize("text", [b"", b'{"workload": "mlp', b"\xff\xfe", b"[]", b"NaN"])
def test_a_damaged_file_is_named(folder, name, text):
    (folder.path / name).write_bytes(text)
    with pytest.raises(RunFolderError, match=f"{name} is damaged .*start a new run"):
        RunFolder.open(folder.path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_new_paths_are_unique_and_name_the_workload(tmp_path):
    seen = set()
    for _ in range(3):
        path = new_run_path(tmp_path, "mlp-mnist")
        assert path.name[:4].isdigit()
        assert "-mlp-mnist" in path.name
        path.mkdir()
        seen.add(path)
    assert len(seen) == 3
    assert new_run_path(tmp_path, "../../etc").parent == tmp_path


# --- events ------------------------------------------------------------------------------------


def test_events_come_back_as_they_were_appended(folder):
    filled(folder, 4)
    back = RunFolder.open(folder.path).events()
    assert [r.status.cost_usd for r in back] == [r.status.cost_usd for r in RECORDS]
    assert back[1:] == RECORDS[1:]  # the first holds a NaN


def test_a_torn_last_line_is_no_epoch_at_every_byte_offset(tmp_path):
    path = filled(RunFolder.create(tmp_path / "run", CONFIG, {}))
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    reopened = RunFolder.open(tmp_path / "run")
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert len(reopened.events()) == 2
        assert path.stat().st_size == end, "a reader without the lock changes nothing"
        with reopened.lock():
            assert len(reopened.events()) == 2
        assert path.read_bytes() == whole[:start]
    path.write_bytes(whole[: start + 5])
    reopened.append(RECORDS[2])
    assert path.read_bytes() == whole, "appending cuts the torn line off too"


def test_a_file_that_holds_nothing_but_a_torn_line_holds_no_epoch(folder):
    path = folder.path / run_folder.EVENTS
    path.write_bytes(b"\0" * 200_000)
    with folder.lock():
        assert folder.events() == ()
    assert path.read_bytes() == b""


def changed(record, **changes):
    return dataclasses.replace(record, status=dataclasses.replace(record.status, **changes))


def test_a_bad_line_in_the_middle_is_refused_with_its_number(folder):
    path = filled(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in (b"\n", b"{}\n", lines[1][:50] + b"\n", lines[1].replace(b'"loss"', b'"lass"')):
        path.write_bytes(lines[0] + bad + lines[2])
        with pytest.raises(RunFolderError, match=r"events\.jsonl, line 2: .*start a new run"):
            folder.events()


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (1, 2), (0, 0, 1)])
def test_epochs_out_of_order_are_refused(folder, order):
    for index in order:
        folder.append(RECORDS[index])
    with pytest.raises(RunFolderError, match=r"line \d: epoch \d where epoch \d belongs"):
        folder.events()


def test_money_that_does_not_add_up_is_refused(folder):
    folder.append(RECORDS[0])
    little = Decimal("1e-20")
    folder.append(changed(RECORDS[1], budget_left_usd=RECORDS[1].status.budget_left_usd + little))
    with pytest.raises(RunFolderError, match=r"line 2: budget_left_usd is .* the budget minus all costs is"):
        folder.events()


def test_a_bill_that_does_not_add_up_is_refused(folder):
    folder.append(changed(RECORDS[0], bill={"compute": Decimal("0.5")}))
    with pytest.raises(RunFolderError, match=r"line 1: the bill adds up to \$0.5, cost_usd is"):
        folder.events()


@pytest.mark.parametrize("config", [{"budget_usd": Decimal("1.99")}, {"budget": "1.99"}, {"budget": 1.99}])
def test_the_first_epoch_must_fit_the_budget_of_the_config(tmp_path, config):
    folder = RunFolder.create(tmp_path / "run", config, {})
    filled(folder, 1)
    with pytest.raises(RunFolderError, match="line 1: budget_left_usd"):
        folder.events()


def test_a_config_without_a_budget_starts_from_the_first_epoch(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {}, {})
    filled(folder)
    assert len(folder.events()) == 3
    odd = RunFolder.create(tmp_path / "odd", {"budget": "much"}, {})
    with pytest.raises(RunFolderError, match="the budget 'much' is not a number of dollars"):
        odd.events()


def test_charges_beside_the_epochs_are_accepted_up_to_what_is_stated(folder):
    folder.append(RECORDS[0])
    lost = Decimal("0.25")
    folder.append(changed(RECORDS[1], budget_left_usd=RECORDS[1].status.budget_left_usd - lost))
    with pytest.raises(RunFolderError, match="budget minus all costs"):
        folder.events()
    with pytest.raises(RunFolderError, match="budget minus all costs"):
        folder.events(outside_usd=Decimal("0.24"))
    assert len(folder.events(outside_usd=lost)) == 2


def test_absurd_amounts_are_damage_not_a_crash(folder):
    folder.append(changed(RECORDS[0], bill={"compute": Decimal("1e-90"), "cache": Decimal("1e90")}))
    with pytest.raises(RunFolderError, match="line 1"):
        folder.events()


# --- a full or broken disk ---------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_while_appending_leaves_the_file_as_it_was(folder, monkeypatch, room):
    path = filled(folder)
    before = path.read_bytes()
    write, left = os.write, [room]

    def full(descriptor, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunFolderError) as caught:
            folder.append(RECORDS[3])
    assert str(caught.value) == (
        f"could not write {path}: No space left on device; free space, then "
        f"`python -m siren.run --resume {folder.path}`"
    )
    assert path.read_bytes() == before
    folder.append(RECORDS[3])
    assert len(folder.events()) == 4


def test_a_failing_fsync_undoes_the_line(folder, monkeypatch):
    path = filled(folder, 1)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(
            RunFolderError, match=r"Input/output error; when it can be written again, `python"
        ):
            folder.append(RECORDS[1])
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_systems_own_full_device_is_reported(folder):
    path = folder.path / run_folder.EVENTS
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(RunFolderError, match="No space left on device; free space, then"):
        folder.append(RECORDS[0])


def test_a_full_disk_keeps_older_checkpoints_models_and_summaries(folder, monkeypatch):
    params = np.ones(3, np.float32)
    writes = [
        lambda f: f.write_checkpoint(1, {"p": params}, {}),
        lambda f: f.write_model(params, {"p": (3,)}, {}),
        lambda f: f.write_summary(samples.summary()),
    ]
    for write in writes:
        write(folder)
    files = sorted(p for p in folder.path.rglob("*"))
    before = [p.read_bytes() for p in files if p.is_file()]
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    for write in writes:
        with pytest.raises(RunFolderError, match="No space left; free space, then"):
            write(folder)
    assert sorted(p for p in folder.path.rglob("*")) == files
    assert [p.read_bytes() for p in files if p.is_file()] == before


# --- checkpoints, model, summary ---------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(folder):
    tensors = {
        "params": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "big": np.array([1.5, -2.5], dtype=">f8"),
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float16),
        "mask": np.array([True, False]),
    }
    state = {
        "rng": {"state": 2**127 + 1},
        "clock_s": 0.1 + 0.2,
        "spent_usd": Decimal("0.10"),
        "best_loss": float("inf"),
        "names": ["a", None, True],
    }
    folder.write_checkpoint(0, tensors, state)
    back, again = folder.read_checkpoint(0)
    assert again == state
    assert again["spent_usd"].as_tuple() == Decimal("0.10").as_tuple()
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].shape == array.shape
        assert back[name].flags.writeable
    assert safetensors.numpy.load_file(folder.checkpoint_path(0)).keys() == tensors.keys()


def test_the_last_two_checkpoints_are_kept(folder):
    for epoch in range(5):
        folder.write_checkpoint(epoch, {"p": np.full(2, epoch)}, {"epoch": epoch})
        assert folder.checkpoints() == tuple(range(max(0, epoch - 1), epoch + 1))
    (folder.path / "checkpoints" / ".epoch-000009.safetensors.tmp").write_bytes(b"left by a killed process")
    folder.write_checkpoint(2, {"p": np.zeros(2)}, {})
    assert folder.checkpoints() == (2,), "later ones belong to a past that was rolled back"
    assert len(list((folder.path / "checkpoints").iterdir())) == 1


def test_damage_anywhere_in_a_checkpoint_is_found(folder):
    folder.write_checkpoint(3, {"p": np.arange(40, dtype=np.float32)}, {"clock_s": 1.5})
    path = folder.checkpoint_path(3)
    whole = path.read_bytes()
    cases = [whole[:end] for end in range(0, len(whole), 7)]
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        cases.append(bytes(flipped))
    unnoticed = 0
    for case in cases:
        path.write_bytes(case)
        try:
            tensors, state = folder.read_checkpoint(3)
        except RunFolderError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            unnoticed += 1  # a flipped space in the padding may still be a space to JSON
            np.testing.assert_array_equal(tensors["p"], np.arange(40, dtype=np.float32))
            assert state == {"clock_s": 1.5}
    assert unnoticed <= 8


def test_a_checkpoint_of_another_epoch_or_none_is_refused(folder):
    with pytest.raises(RunFolderError, match=r"epoch-000007.safetensors is missing"):
        folder.read_checkpoint(7)
    folder.write_checkpoint(1, {"p": np.zeros(1)}, {})
    folder.checkpoint_path(1).rename(folder.checkpoint_path(2))
    with pytest.raises(RunFolderError, match=r"damaged \(it holds epoch 1\)"):
        folder.read_checkpoint(2)


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_the_same_tensors_are_the_same_bytes(metadata):
    metadata.pop("sha256", None)
    tensors = {"b": np.ones(3), "a": np.zeros((2, 2), np.int32)}
    data = _tensors.pack(tensors, metadata)
    assert data == _tensors.pack(dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    back, again = _tensors.unpack(data)
    assert again == metadata
    np.testing.assert_array_equal(back["b"], tensors["b"])


def test_a_model_is_one_named_tensor_per_entry_of_its_layout(folder):
    layout = {"w2": (2, 3), "b1": (), "a": (0,), "z": (4,)}
    params = np.arange(11, dtype=np.float32)
    folder.write_model(params, layout, {"workload": "mlp-mnist"})
    tensors = safetensors.numpy.load_file(folder.path / "model.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == layout
    np.testing.assert_array_equal(tensors["w2"], params[:6].reshape(2, 3))
    back, shapes, metadata = folder.read_model()
    np.testing.assert_array_equal(back, params)
    assert (list(shapes.items()), metadata) == (list(layout.items()), {"workload": "mlp-mnist"})


@pytest.mark.parametrize(("size", "layout"), [(5, {"w": (2, 3)}), (1, {}), (7, {"w": (2, 3)})])
def test_a_layout_that_does_not_cover_the_parameters_is_refused(folder, size, layout):
    with pytest.raises(WorkloadError, match="make the workload's layout list every parameter"):
        folder.write_model(np.zeros(size, np.float32), layout, {})


def test_a_model_that_is_missing_or_foreign_is_refused(folder):
    with pytest.raises(RunFolderError, match=r"model.safetensors is missing"):
        folder.read_model()
    safetensors.numpy.save_file({"w": np.zeros(1)}, folder.path / "model.safetensors")
    with pytest.raises(RunFolderError, match=r"model.safetensors is damaged"):
        folder.read_model()
    folder.write_model(np.zeros(0, np.float32), {}, {})
    assert folder.read_model()[0].shape == (0,)


def test_a_summary_comes_back_and_its_absence_says_how_to_resume(folder):
    with pytest.raises(RunFolderError, match=r"the run has not ended: `python -m siren\.run --resume"):
        folder.read_summary()
    summary = samples.summary(RECORDS)
    folder.write_summary(summary)
    assert folder.read_summary() == summary
    text = (folder.path / "summary.json").read_text()
    assert text.startswith('{\n  "workload": "mlp-mnist"')
    (folder.path / "summary.json").write_text(text[:100])
    with pytest.raises(RunFolderError, match=r"summary\.json is damaged"):
        folder.read_summary()


# --- the order of durability, and death in between ----------------------------------------------


def test_a_checkpoint_is_durable_before_its_epoch_is_committed(tmp_path):
    steps: list[tuple[str, str]] = []
    disk = Disk(lambda step, path: steps.append((step, path.name)))
    folder = RunFolder.create(tmp_path / "run", CONFIG, {}, disk)
    assert steps[-2:] == [("rename", "config.json"), ("fsync folder", "run")]
    steps.clear()
    for epoch in (1, 2, 3):
        folder.write_checkpoint(epoch, {"p": np.zeros(1)}, {})
    folder.append(RECORDS[0])
    assert steps[-7:] == [
        ("write", ".epoch-000003.safetensors.tmp"),
        ("fsync", ".epoch-000003.safetensors.tmp"),
        ("rename", "epoch-000003.safetensors"),
        ("fsync folder", "checkpoints"),
        ("remove", "epoch-000001.safetensors"),
        ("append", "events.jsonl"),
        ("fsync", "events.jsonl"),
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from siren.analysis._disk import Disk
from siren.analysis.run_folder import RunFolder
from tests.analysis import samples

left = int(sys.argv[2])
def witness(step, path):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

folder = RunFolder.open(Path(sys.argv[1]), Disk(witness))
with folder.lock():
    done = len(folder.events())
    for record in samples.epochs(4)[done:]:
        epoch = record.status.report.epoch
        folder.write_checkpoint(epoch, {"p": np.full(3, epoch)}, {"epoch": epoch})
        folder.append(record)
"""


def test_killed_at_any_step_the_folder_resumes_with_every_committed_epoch(folder):
    """Kill after step 1, then after step 2 of what remains, and so on until four epochs are through."""
    folder.write_checkpoint(0, {"p": np.zeros(3)}, {"epoch": 0})
    deaths, committed = 0, 0
    for kill_after in range(1, 60):
        done = subprocess.run([sys.executable, "-c", KILLED, folder.path, str(kill_after)], check=False)
        with folder.lock():  # the dead process's lock does not block
            events = folder.events()
        assert len(events) >= committed
        committed = len(events)
        _, state = folder.read_checkpoint(committed)
        assert state == {"epoch": committed}
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        deaths += 1
    assert committed == 4
    assert deaths >= 6


# --- lock --------------------------------------------------------------------------------------


def test_two_processes_cannot_run_one_folder(folder):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from siren.analysis.run_folder import RunFolder
        with RunFolder.open(Path(sys.argv[1])).lock():
            print("locked", flush=True)
            time.sleep(60)
    """)
    holder = subprocess.Popen([sys.executable, "-c", script, folder.path], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "locked\n"
        said = rf"being run by another process \(pid {holder.pid}\)"
        with pytest.raises(RunFolderError, match=said), folder.lock():
            pytest.fail("locked twice")
        holder.kill()
    with folder.lock():
        other = RunFolder.open(folder.path)
        with pytest.raises(RunFolderError, match="another process"), other.lock():
            pytest.fail("locked twice")
    with other.lock():
        pass


# --- system facts ------------------------------------------------------------------------------


def test_system_facts_are_json_and_name_versions_and_commit(tmp_path):
    facts = system_facts()
    folder = RunFolder.create(tmp_path / "run", {}, facts)
    assert folder.system == facts
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["cores"] >= 1
    assert facts["time_utc"].endswith("+00:00")


def test_the_commit_and_changes_of_a_checkout_are_seen(tmp_path):
    assert _git_state(tmp_path) == (None, None)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert _git_state(tmp_path) == (None, False)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit, dirty = _git_state(tmp_path)
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "new").write_text("x")
    assert _git_state(tmp_path) == (commit, True)
