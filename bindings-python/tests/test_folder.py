"""Folder runs: what is written, and how a run that was stopped goes on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tagbrush


@pytest.fixture
def folder(samples, tmp_path) -> Path:
    """Two pictures, a broken one, and one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for source, name in zip(samples, ["a", "b", "deep/c"], strict=False):
        shutil.copy(source, folder / f"{name}{source.suffix}")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def pictures(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "broken.png")


def test_captions_stand_beside_their_pictures(tagger, folder):
    paths = pictures(folder)
    summary = tagger.tag_folder(
        folder, format="sidecar", recursive=True, threshold=0.2, caption={"separator": "; "}, errors="return"
    )
    assert (summary.tagged, summary.skipped, summary.cancelled) == (3, 0, False)
    [(path, error)] = summary.failures
    assert path == folder / "broken.png" and isinstance(error, tagbrush.ImageDecodeError)
    for path, tags in zip(paths, tagger.tag_batch(paths, threshold=0.2), strict=True):
        assert path.with_suffix(".txt").read_text() == tags.caption(separator="; ") + "\n"
    assert not (folder / "broken.txt").exists()


def test_options_reach_the_core(tagger, folder, tmp_path):
    out = tmp_path / "out"
    (folder / "broken.png").unlink()
    assert tagger.tag_folder(str(folder), format="json", output=out, full_names=True).tagged == 2
    [first, second] = sorted(path for path in folder.iterdir() if path.is_file())
    assert sorted(path.name for path in out.iterdir()) == [f"{first.name}.json", f"{second.name}.json"]
    assert tagger.tag_folder([first, second], format="csv", output=str(out), progress=None).tagged == 2
    assert (out / "tags.csv").read_text().count("\n") == 3
    first.with_suffix(".txt").write_text("my tag")
    tagger.tag_folder(first, format="sidecar", existing="append", caption=None)
    assert first.with_suffix(".txt").read_text().startswith("my tag, ")


def test_the_command_line_writes_the_same(tagger, folder, tmp_path):
    tagger.tag_folder(folder, format="jsonl", output=tmp_path / "a", recursive=True, errors="return")
    command = [sys.executable, "-m", "tagbrush", "tag", folder, "-r", "-f", "jsonl", "-o", tmp_path / "b", "-q"]
    subprocess.run(command, check=False, timeout=120)
    written = (tmp_path / "a/tags.jsonl").read_bytes()
    assert written.count(b"\n") == 4 and written == (tmp_path / "b/tags.jsonl").read_bytes()


def test_a_run_goes_on_where_it_stopped(tagger, folder, tmp_path):
    options = {"format": "jsonl", "output": tmp_path / "out", "recursive": True, "existing": "skip"}
    one = tagger.with_batch_size(1)
    stopped = one.tag_folder(folder, errors="return", progress=lambda done, *_: done < 1, **options)
    assert stopped.cancelled and stopped.tagged == 1
    with pytest.raises(tagbrush.CancelledError):
        one.tag_folder(folder, progress=lambda *_: False, **{**options, "output": tmp_path / "other"})
    seen = []
    rest = one.tag_folder(folder, errors="return", progress=lambda *p: seen.append(p), **options)
    assert (rest.tagged, rest.skipped, len(rest.failures)) == (2, 1, 1)
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    lines = [json.loads(line) for line in (tmp_path / "out/tags.jsonl").read_text().splitlines()]
    assert len({line["path"] for line in lines}) == len(lines) == 4
    again = one.tag_folder(folder, errors="return", **options)
    assert (again.tagged, again.skipped, len(again.failures)) == (0, 3, 1)


def test_failures_are_raised_once_everything_is_written(tagger, folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(tagbrush.ImageDecodeError) as failed:
        tagger.tag_folder(folder, format="sidecar", output=out, recursive=True)
    assert failed.value.context["file"].endswith("broken.png")
    assert len(list(out.rglob("*.txt"))) == 3
    with pytest.raises(tagbrush.InputOutputError):
        tagger.tag_folder(tmp_path / "none", format="sidecar")
    with pytest.raises(ZeroDivisionError):
        tagger.tag_folder(folder, format="sidecar", progress=lambda *_: 1 / 0)


def test_wrong_calls_write_nothing(tagger, folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(TypeError, match="format"):
        tagger.tag_folder(folder)
    with pytest.raises(tagbrush.InvalidInputError, match="known: sidecar, json, jsonl, csv"):
        tagger.tag_folder(folder, format="text")
    with pytest.raises(tagbrush.InvalidInputError, match="known: overwrite, skip, append"):
        tagger.tag_folder(folder, format="json", existing="keep")
    with pytest.raises(tagbrush.InvalidInputError, match="needs a folder"):
        tagger.tag_folder(folder, format="csv")
    with pytest.raises(tagbrush.InvalidInputError):
        tagger.tag_folder(folder, format="sidecar", threshold=-1)
    with pytest.raises(TypeError, match="treshold.*known: threshold"):
        tagger.tag_folder(folder, format="sidecar", treshold=0.3)
    with pytest.raises(TypeError, match="seperator.*known: separator"):
        tagger.tag_folder(folder, format="sidecar", caption={"seperator": " "})
    with pytest.raises(TypeError):
        tagger.tag_folder([3], format="sidecar")
    with pytest.raises(ValueError, match="errors"):
        tagger.tag_folder(folder, format="sidecar", errors="ignore")
    assert sorted(folder.rglob("*")) == before
