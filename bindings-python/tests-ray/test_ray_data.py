"""Ray Data itself, on this machine: the class in `map_batches`, and the example, killed and resumed.

Run by `make test-ray`, in an environment of its own: Ray is large.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import tagbrush
from pyarrow import parquet
from tagbrush.ray import TagImages

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "bindings-python/examples/ray_tag.py"
SAMPLES = sorted(path for path in (ROOT / "core/demo/images").iterdir() if path.suffix != ".json")
SHARDS, PICTURES = 24, 150
# Nothing is sent anywhere.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def cluster():
    # Two for the actors, and more for what reads files: with none left, Ray would wait for ever.
    ray.init(num_cpus=4, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def expected() -> dict[str, tagbrush.Tags]:
    return {path.name: tags for path, tags in zip(SAMPLES, tagbrush.Tagger.load().tag_batch(SAMPLES), strict=True)}


def test_the_class_in_map_batches(cluster, expected, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos = ray.data.read_binary_files([str(ROOT / "core/demo/images"), str(tmp_path)], include_paths=True)
    photos = photos.filter(lambda row: not row["path"].endswith(".json"))
    tagged = photos.map_batches(
        TagImages,
        fn_constructor_kwargs={"model": "demo", "keep": ["path"]},
        batch_size=4,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    rows = {Path(row["path"]).name: row for row in tagged.take_all()}
    assert rows.pop("broken.png")["error"].startswith("image_decode: ")
    assert rows.keys() == expected.keys()
    for name, tags in expected.items():
        assert_same(rows[name], tags)
    tagged.write_parquet(str(tmp_path / "tags"))
    assert parquet.read_table(tmp_path / "tags").num_rows == len(expected) + 1


def assert_same(row, tags):
    assert list(row["tag_index"]) == [tag.index for tag in tags]
    assert list(row["tag_score"]) == [np.float32(tag.score) for tag in tags]
    assert (row["rating"], row["error"]) == (tags.rating.name, "")


@pytest.fixture
def shards(tmp_path) -> Path:
    """Files of pictures, in another order each, with a broken one in each."""
    folder = tmp_path / "shards"
    folder.mkdir()
    files = [path.read_bytes() for path in SAMPLES]
    for shard in range(SHARDS):
        order = [(shard + i) % len(SAMPLES) for i in range(PICTURES)]
        columns = {
            "name": ["broken", *(SAMPLES[i].name for i in order)],
            "bytes": [b"no image", *(files[i] for i in order)],
            "number": range(PICTURES + 1),
        }
        parquet.write_table(pa.table(columns), folder / f"{shard:03}.parquet")
    return folder


def start(shards, tags):
    command = [sys.executable, EXAMPLE, shards, tags, "--actors", "2", "--threads", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def processes_with(variable):
    """The other processes that have this in their environment: those that Ray started for the example."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            is_alive = "\nState:\tZ" not in (folder / "status").read_text()
        except OSError:
            continue
        if is_alive and variable.encode() in environment and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_run_does_only_what_is_left(shards, tmp_path, expected, monkeypatch):
    tags = tmp_path / "tags"
    monkeypatch.setenv("TAGBRUSH_TEST", str(tmp_path))
    first = start(shards, tags)
    began = time.monotonic()
    while len(list(tags.glob("*.parquet"))) < 4:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < began + 300
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    assert first.wait(timeout=60) == -signal.SIGKILL
    # Its actors end by themselves; until then they may finish what they have begun.
    while processes_with(f"TAGBRUSH_TEST={tmp_path}"):
        assert time.monotonic() < began + 400
        time.sleep(0.2)
    done = {path.name: identity(path) for path in tags.glob("*.parquet")}
    assert 4 <= len(done) < SHARDS, "it was killed in the middle"
    for path in done:
        check_shard(shards / path, tags / path, expected)

    second = start(shards, tags)
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert output.splitlines()[0] == f"{SHARDS} shards, {len(done)} of them done before"
    tagged = re.findall(rf"^(\d+\.parquet): {PICTURES + 1} pictures, 1 failed$", output, re.MULTILINE)
    names = {path.name for path in shards.iterdir()}
    assert sorted(tagged) == sorted(names - done.keys())
    assert {path.name for path in tags.iterdir()} == names, "no file was left half done"
    assert {name: identity(tags / name) for name in done} == done, "finished shards were not written again"
    for name in names:
        check_shard(shards / name, tags / name, expected)
    third = start(shards, tags)
    assert third.communicate(timeout=100)[0] == f"{SHARDS} shards, {SHARDS} of them done before\n"
    print(f"\nkilled after {len(done)} of {SHARDS} shards, {len(tagged)} were left")


def check_shard(source, made, expected):
    rows = parquet.read_table(made).to_pylist()
    assert list(rows[0]) == ["name", "number", "tag_index", "tag_score", "rating", "error"]
    assert [row["number"] for row in rows] == list(range(PICTURES + 1))
    assert [row["name"] for row in rows] == parquet.read_table(source)["name"].to_pylist()
    assert rows[0]["error"].startswith("image_decode: ") and rows[0]["tag_index"] == []
    for row in rows[1:]:
        assert_same(row, expected[row["name"]])
