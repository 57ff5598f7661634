from __future__ import annotations

import sys

import numpy as np
import pytest

from siren.errors import MissingExtraError, UnknownNameError, WorkloadError
from siren.types import BatchRule, ChannelKind, UpdateRule
from siren.workloads.registry import find_folder, load_workload, workload_names
from siren.workloads.spec_file import load_spec, nearest_divisors

SHIPPED = ["lenet-mnist", "linear-ctr", "logreg-higgs", "mlp-mnist", "softmax-digits", "textcnn-spam"]


def test_shipped_workloads_are_found():
    assert set(SHIPPED) <= set(workload_names())
    assert find_folder("mlp-mnist").name == "mlp-mnist"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_specs_state_what_they_must(name):
    spec = load_spec(find_folder(name))
    training = spec.training
    assert training.update_rule is UpdateRule.ADDITIVE
    assert training.channel is ChannelKind.REDIS
    assert training.batch_rule is BatchRule.CONSTANT
    assert "calibrate_workloads" in spec.cost.measured


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mlp-mnist'"):
        load_workload("mpl-mnist")


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/siren-nowhere"])
def test_a_path_to_nothing_is_refused(path):
    with pytest.raises(WorkloadError, match="no such folder"):
        load_workload(path)


def test_a_folder_without_its_files_is_refused(user):
    (user.folder / "model.py").unlink()
    with pytest.raises(WorkloadError, match=r"model\.py missing"):
        load_workload(str(user))


def test_a_folder_in_the_working_directory_needs_no_slash(user, monkeypatch):
    monkeypatch.chdir(user.folder.parent)
    assert load_workload("line").folder == user.folder


def test_a_shipped_name_wins_over_a_folder_in_the_working_directory(user, monkeypatch):
    user.folder.rename(user.folder.parent / "softmax-digits")
    monkeypatch.chdir(user.folder.parent)
    assert load_workload("softmax-digits").size == 650


def test_toml_errors_name_the_file_and_the_line(user):
    user.spec("title = \n")
    with pytest.raises(WorkloadError, match=r"workload\.toml: not valid TOML: .*line 1"):
        load_workload(str(user))


def test_schema_errors_are_one_line_a_problem(user):
    user.change("workload.toml", "batch_size = 5", "batch_syze = 5\nchannel = 'pigeon'\nstaleness_scale = -1")
    user.change("workload.toml", 'licence = "none"', "")
    with pytest.raises(WorkloadError) as caught:
        load_workload(str(user))
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert all("workload.toml: " in line for line in lines)
    text = "\n".join(lines)
    assert "dataset.licence: missing" in text
    assert "training.batch_size: missing" in text
    assert "training.batch_syze: unknown key: did you mean 'batch_size'?" in text
    assert "training.channel: input should be 'memory', 's3' or 'redis', not 'pigeon'" in text
    assert "training.staleness_scale: input should be greater than 0, not -1" in text


def test_an_unknown_section_names_the_sections(user):
    user.spec((user.folder / "workload.toml").read_text(encoding="utf-8") + "\n[trainer]\n")
    with pytest.raises(WorkloadError, match="trainer: unknown key: did you mean 'training'"):
        load_workload(str(user))


def test_a_scalar_where_a_section_belongs_is_refused(user):
    user.spec('training = 3\ntitle = "x"\n')
    with pytest.raises(WorkloadError, match="training: input should be"):
        load_workload(str(user))
    with pytest.raises(WorkloadError, match=r"training\.learning_rate: missing"):
        load_workload(str(user), overrides={"batch_size": 3})


def test_an_unknown_dataset_suggests_the_nearest(user):
    user.change("workload.toml", 'source = "model.py"', 'source = "higs"')
    with pytest.raises(WorkloadError, match="did you mean 'higgs'"):
        load_workload(str(user))


def test_overrides_patch_the_training_section(user):
    overrides = {"batch_rule": "split", "update_rule": UpdateRule.SYNC, "target_loss": 0.2, "channel": None}
    training = load_workload(str(user), overrides=overrides).spec.training
    assert training.batch_rule is BatchRule.SPLIT
    assert training.update_rule is UpdateRule.SYNC
    assert training.target_loss == 0.2
    assert training.channel is ChannelKind.REDIS


def test_a_bad_override_says_that_it_was_one(user):
    with pytest.raises(
        WorkloadError, match=r"training\.target_loss \(overridden\): input should be greater than 0"
    ):
        load_workload(str(user), overrides={"target_loss": -1})
    with pytest.raises(WorkloadError, match=r"training\.momentum \(overridden\): unknown key"):
        load_workload(str(user), overrides={"momentum": 0.9})


def test_more_samples_than_there_are_is_refused(user):
    with pytest.raises(WorkloadError, match="samples_per_epoch is 61, the training set has 60"):
        load_workload(str(user), overrides={"samples_per_epoch": 61})


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest(user):
    with pytest.raises(WorkloadError, match=r"batch_size 7 does not divide the 60 .* 6 and 10"):
        load_workload(str(user), overrides={"batch_size": 7})
    load_workload(str(user), overrides={"batch_size": 7, "batch_rule": "split"})
    assert load_workload(str(user), overrides={"batch_size": 7, "samples_per_epoch": 49}).samples == 49


@pytest.mark.parametrize(
    ("number", "near", "found"), [(60, 7, [6, 10]), (60, 6, [6]), (13, 99, [13]), (13, 5, [1, 13])]
)
def test_nearest_divisors(number, near, found):
    assert nearest_divisors(number, near) == found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "import numpy as np",
            "import numpy as np\n1 / 0",
            r"model\.py:3: importing it raised ZeroDivisionError",
        ),
        (
            "import numpy as np",
            "import numpy as np\nimport nothing_such",
            "importing it raised ModuleNotFoundError",
        ),
        ("import numpy as np", "import numpy as np\ndef (", r"model\.py:3: importing it raised SyntaxError"),
        ("class Model:", "class Network:", "defines no Model"),
        ("def evaluate(", "def assess(", "Model has no evaluate"),
        ("self.layout = ", "self.shapes = ", "Model has no layout"),
        ("self, feature_shape, classes", "self, feature_shape", r"Model\(\.\.\.\) raised TypeError"),
        ("def load_dataset(samples)", "def load_data(samples)", "defines no load_dataset"),
        ("def load_dataset(samples)", "def load_dataset(rows)", "load_dataset raised TypeError"),
        ("return x[:samples], y[:samples], x", "return x, y, x, x", "returned 5 arrays"),
        ("return x[:samples], y[:samples]", "return x[:samples], y", "as many rows as the features"),
        ("return x[:samples]", "return x[:samples, :2]", "different row shape"),
        ("return x[:samples]", "return x[:samples] * np.nan", "NaN or infinite"),
        ("return x[:samples]", "return x[:samples].astype(str)", "use numbers"),
        ("y = (x[:, 0] > 0)", "y = 3 * (x[:, 0] > 0)", r"class indices \(int64\), or 0\.0 and 1\.0"),
        ("y = (x[:, 0] > 0).astype(np.float32)", "y = -(x[:, 0] > 0).astype(int)", "negative class index"),
        ("y[:samples]", "y[:samples].astype(int)", "labels of different dtype"),
    ],
)
def test_a_broken_model_file_is_refused_in_one_line(user, old, new, says):
    user.change("model.py", old, new)
    with pytest.raises(WorkloadError, match=says) as caught:
        load_workload(str(user))
    assert "\n" not in str(caught.value)


def test_class_indices_are_counted(user):
    user.change(
        "model.py", "y = (x[:, 0] > 0).astype(np.float32)", "y = np.arange(len(x), dtype=np.uint8) % 4"
    )
    dataset = load_workload(str(user)).dataset
    assert dataset.classes == 4
    assert dataset.train_labels.dtype == np.int64


def test_a_missing_extra_is_named(user):
    user.change("model.py", "import numpy as np", "import numpy as np\nimport mxnet")
    with pytest.raises(MissingExtraError, match=r"siren-scheduler\[mxnet\]"):
        load_workload(str(user))


def test_the_training_set_is_shuffled_once_by_its_seed(user):
    first, again = load_workload(str(user)).dataset, load_workload(str(user)).dataset
    np.testing.assert_array_equal(first.train_features, again.train_features)
    user.change("workload.toml", 'licence = "none"', 'licence = "none"\nshuffle_seed = 1')
    other = load_workload(str(user)).dataset
    assert not np.array_equal(first.train_features, other.train_features)
    np.testing.assert_array_equal(np.sort(first.train_features[:, 0]), np.sort(other.train_features[:, 0]))
    np.testing.assert_array_equal(first.heldout_features, other.heldout_features)
    assert first.train_features.flags.c_contiguous


def test_siblings_may_have_equal_names_in_two_folders(user, tmp_path):
    UserFolder = type(user)
    other = UserFolder(tmp_path / "jobs" / "other")
    modules, path = set(sys.modules), list(sys.path)
    for folder, start in ((user, "1.0"), (other, "2.0")):
        (folder.folder / "layers.py").write_text(f"START = {start}\n", encoding="utf-8")
        folder.change("model.py", "import numpy as np", "import numpy as np\nfrom layers import START")
        folder.change("model.py", "np.zeros(3, dtype", "np.full(3, START, dtype")
    first, second = load_workload(str(user)), load_workload(str(other))
    assert first.init(0)[0] == 1.0
    assert second.init(0)[0] == 2.0
    assert sys.path == path
    assert {
        name for name in sys.modules if name not in modules and not name.startswith("siren_workload_")
    } == set()


def test_siblings_do_not_disturb_modules_of_the_same_name(user, monkeypatch, tmp_path):
    (tmp_path / "layers.py").write_text("START = 9.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import layers  # type: ignore[import-not-found]

    (user.folder / "layers.py").write_text("START = 1.0\n", encoding="utf-8")
    user.change("model.py", "import numpy as np", "import numpy as np\nfrom layers import START")
    user.change("model.py", "np.zeros(3, dtype", "np.full(3, START, dtype")
    assert load_workload(str(user)).init(0)[0] == 1.0
    assert sys.modules["layers"] is layers
    del sys.modules["layers"]


def test_an_edited_model_counts_at_once_and_leaves_no_bytecode(user):
    assert load_workload(str(user)).init(0)[0] == 0
    user.change("model.py", "np.zeros(3, dtype", "np.ones(3, dtype")
    assert load_workload(str(user)).init(0)[0] == 1
    assert not (user.folder / "__pycache__").exists()


def test_a_failed_reload_keeps_the_module_that_was_loaded(user):
    before = load_workload(str(user))
    name = type(before.model).__module__
    module = sys.modules[name]
    user.change("model.py", "import numpy as np", "raise ValueError('broken')")
    with pytest.raises(WorkloadError, match="broken"):
        load_workload(str(user))
    assert sys.modules[name] is module
