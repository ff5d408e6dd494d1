"""Forks, spawns, Ctrl-C, and the command line tool: what only whole processes show."""

import multiprocessing
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from pathlib import Path

import pytest
import tagbrush
from conftest import EDIT_MODEL, GENERATE_MODEL, SAMPLES

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and forks")


def run_python(code: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@POSIX
def test_work_after_a_fork_is_refused_and_not_hung():
    done = run_python(
        """
        import os, sys, tagbrush
        tagger = tagbrush.Tagger.load()
        image = tagbrush.Image.from_rgb8(1, 1, b"abc")
        stream = tagger.tag_iter([image, image])
        calls = [
            lambda: tagger.tag(image),
            lambda: tagger.tag_batch([image]),
            lambda: tagger.tag_iter([image]),
            lambda: tagger.scores([image]),
            lambda: tagger.tag_folder("photos", format="sidecar"),
            lambda: next(stream),
            lambda: tagbrush.Tagger.load(),
        ]
        child = os.fork()
        if child == 0:
            for call in calls:
                try:
                    call()
                except tagbrush.UnsupportedError as error:
                    assert "spawn" in str(error)
                else:
                    os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        tagger.tag(image)
        """
    )
    assert done.returncode == 0, done.stderr


@POSIX
def test_a_fork_before_the_first_load_is_fine():
    done = run_python(
        """
        import os, tagbrush
        image = tagbrush.Image.from_rgb8(1, 1, b"abc")
        child = os.fork()
        tagbrush.Tagger.load().tag(image)
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_tagger_goes_to_spawned_processes(tagger, samples):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(tagger.tag, samples[:3]) == tagger.tag_batch(samples[:3])


def interrupted(code: str) -> tuple[float, int, str]:
    """How long a process lives after Ctrl-C, its exit status and its errors."""
    # Whoever started the tests may ignore Ctrl-C, and the process would inherit that.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", listen + textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "working\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, errors = process.communicate(timeout=100)
    return time.monotonic() - start, process.returncode, output + errors


EDIT = ("EditPipeline", EDIT_MODEL, 'pipeline.edit(image, "red", num_inference_steps=1)')
GENERATE = ("GeneratePipeline", GENERATE_MODEL, 'pipeline.generate("red", size=(64, 64), steps=1)')


@POSIX
@pytest.mark.parametrize(
    "pipeline, call",
    [
        (EDIT, 'pipeline.edit(image, "red", n=10, num_inference_steps=1000)'),
        (EDIT, 'list(pipeline.edit_iter([tagbrush.EditRequest(image, "red")], n=10, num_inference_steps=1000))'),
        (GENERATE, 'pipeline.generate("red", size=(64, 64), n=1000, steps=1000)'),
        (GENERATE, 'list(pipeline.generate_iter(["red"], size=(64, 64), n=1000, steps=1000))'),
    ],
)
def test_ctrl_c_stops_long_work(pipeline, call):
    kind, model, short = pipeline
    seconds, status, text = interrupted(
        f"""
        import tagbrush
        pipeline = tagbrush.{kind}.load({str(model)!r}, dtype="f32")
        image = tagbrush.Image.from_rgb8(64, 64, bytes(64 * 64 * 3))
        print("working", flush=True)
        try:
            {call}
        except KeyboardInterrupt:
            print("stopped", {short}[0].image)
        """
    )
    assert status == 0 and "stopped Image(" in text, text
    assert seconds < 30


@POSIX
@pytest.mark.parametrize(
    "call", ["tagger.tag_batch([image] * 300_000)", "for tags in tagger.tag_iter(itertools.repeat(image)): pass"]
)
def test_ctrl_c_stops_tagging(call):
    _, status, text = interrupted(
        f"""
        import itertools, tagbrush
        tagger = tagbrush.Tagger.load()
        image = tagbrush.Image.from_rgb8(64, 64, bytes(64 * 64 * 3))
        print("working", flush=True)
        try:
            {call}
        except KeyboardInterrupt:
            print("stopped", tagger.tag(image))
        """
    )
    assert status == 0 and "stopped Tags(" in text, text


def script() -> Path:
    return Path(sysconfig.get_path("scripts")) / ("tagbrush.exe" if os.name == "nt" else "tagbrush")


@pytest.mark.parametrize("command", [[sys.executable, "-m", "tagbrush"], [str(script())]], ids=["module", "script"])
def test_the_command_line_is_the_one_of_the_core(command, samples, tagger):
    def run(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)

    done = run("tag", str(samples[0]), "--format", "jsonl", "--quiet")
    assert done.returncode == 0, done.stderr
    assert tagger.tag(samples[0]).to_json()[1:-1] in done.stdout
    assert run("--version").stdout == f"tagbrush {tagbrush.__version__}\n"
    for verb in ("tag", "edit", "pull", "models", "doctor", "completions"):
        assert verb in run("--help").stdout
    assert run("tag").returncode == 2
    missing = run("tag", str(SAMPLES / "none.png"))
    assert missing.returncode == 1 and "none.png" in missing.stderr


def test_published_models_are_known_and_not_downloaded_offline(tmp_path):
    model = tagbrush.find_known("WD-VIT-V3")
    assert model.id == "SmilingWolf/wd-vit-tagger-v3" and model.task == "tag"
    assert model in tagbrush.KNOWN_MODELS and tagbrush.find_known("none") is None
    assert {m.task for m in tagbrush.KNOWN_MODELS} == {"tag", "edit"}
    with pytest.raises(tagbrush.ModelNotFoundError):
        tagbrush.Tagger.load("wd-vit-v3", offline=True, cache_dir=tmp_path)
    with pytest.raises(tagbrush.DownloadError):
        tagbrush.pull("owner/name", cache_dir=tmp_path, endpoint="http://127.0.0.1:9")
    with pytest.raises(tagbrush.InvalidInputError):
        tagbrush.pull("no id at all", cache_dir=tmp_path)
    assert tagbrush.cache_dir().name and tagbrush.cpu_kernels()


def test_threads_are_set_before_any_work():
    done = run_python(
        """
        import tagbrush
        try:
            tagbrush.set_threads(0)
        except ValueError:
            tagbrush.set_threads(1)
        tagbrush.Tagger.load().tag(tagbrush.Image.from_rgb8(1, 1, b"abc"))
        try:
            tagbrush.set_threads(2)
        except tagbrush.InvalidInputError:
            print("too late")
        """
    )
    assert done.stdout == "too late\n", done.stderr


def test_importing_needs_neither_pillow_nor_numpy():
    done = run_python(
        """
        import sys
        sys.modules["PIL"] = sys.modules["numpy"] = sys.modules["tqdm"] = None
        import tagbrush
        print(tagbrush.Tagger.load().tag(tagbrush.Image.from_rgb8(1, 1, b"abc")).rating.name)
        """
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_asyncio_goes_on_while_pictures_are_tagged(tagger, samples):
    import asyncio

    async def main():
        work = asyncio.create_task(asyncio.to_thread(tagger.tag_batch, samples * 60))
        ticks = 0
        while not work.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks, await work

    ticks, answers = asyncio.run(main())
    assert ticks > 3 and answers[: len(samples)] == tagger.tag_batch(samples)
