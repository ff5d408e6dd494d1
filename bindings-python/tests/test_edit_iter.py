"""Edits that come one by one, and checks before any work."""

import io
import time

import numpy as np
import pytest
import tagbrush
from conftest import EDIT_MODEL
from tagbrush import Edited, EditPipeline, EditRequest
from test_edit import FAST
from test_tagger import threads_of_this_process


@pytest.fixture(scope="module")
def alone() -> EditPipeline:
    """One edit at a time."""
    return EditPipeline.load(EDIT_MODEL, dtype="f32", batch_size=1)


def test_outputs_are_those_of_the_batch_in_order(pipeline, picture):
    images = (picture, b"no image", np.zeros((3, 3)), picture)
    requests = [EditRequest(image, "make it red") for image in images]
    batch = pipeline.edit_batch(requests, n=2, errors="return", **FAST)
    stream = pipeline.edit_iter(iter(requests), n=2, errors="return", keep_values=True, **FAST)
    for one, other in zip(stream, batch, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Edited):
            assert one.image == other.image and one.source is picture and one.values is not None
            assert (one.request, one.variant, one.seed) == (other.request, other.variant, other.seed)
    assert list(pipeline.edit_iter([], **FAST)) == []


def test_each_comes_as_soon_as_it_is_made(alone, picture):
    seen = []
    stream = alone.edit_iter(
        EditRequest.for_each([picture] * 3, "red"), progress=lambda done, total, _: seen.append((done, total)), **FAST
    )
    for i, edited in enumerate(stream):
        assert edited.request == i
        assert seen == [(done, 6) for done in range(1, 2 * i + 3)]


def test_the_first_failure_is_raised_in_its_place(alone, picture):
    stream = alone.edit_iter([EditRequest(picture, "red"), EditRequest(b"", "red")], **FAST)
    assert isinstance(next(stream), Edited)
    with pytest.raises(tagbrush.ImageDecodeError):
        next(stream)
    assert list(stream) == []


def test_wrong_calls_are_found_at_once(alone, picture):
    requests = [EditRequest(picture, "red")]
    with pytest.raises(tagbrush.InvalidInputError):
        alone.edit_iter(requests, n=0)
    with pytest.raises(TypeError, match="steps.*known: n, size"):
        alone.edit_iter(requests, steps=3)
    with pytest.raises(ValueError, match="errors"):
        alone.edit_iter(requests, errors="ignore")
    with pytest.raises(TypeError, match="progress"):
        alone.edit_iter(requests, progress="yes")
    with pytest.raises(TypeError, match="an image is"):
        alone.edit_iter([EditRequest(3, "red")])
    with pytest.warns(UserWarning, match="guidance_scale") as warned:
        alone.edit_iter(requests, guidance_scale=3, **FAST).close()
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize("how", ["close", "drop", "drop unused"])
def test_closing_stops_the_work(alone, picture, how):
    before = threads_of_this_process()
    stream = alone.edit_iter(EditRequest.for_each([picture] * 2, "red"), n=10, num_inference_steps=1000, preview=print)
    if how == "close":
        stream.close()
    del stream
    end = time.monotonic() + 20
    while threads_of_this_process() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threads_of_this_process() <= before
    assert alone.edit(picture, "red", **FAST), "the pipeline can be used again"


def test_callbacks_see_steps_and_cancel(alone, picture):
    requests = EditRequest.for_each([picture] * 3, "red")
    seen = []
    outputs = alone.edit_iter(requests, preview=lambda p: seen.append((p.output, p.step)), **FAST)
    next(outputs)
    assert seen == [(0, 1), (0, 2)]
    outputs.close()
    slow = {**FAST, "num_inference_steps": 1000}
    outputs = list(alone.edit_iter(requests, errors="return", progress=lambda *_: False, **slow))
    assert {type(output) for output in outputs} == {tagbrush.CancelledError} and len(outputs) == 3
    with pytest.raises(tagbrush.CancelledError):
        list(alone.edit_iter(requests, progress=lambda *_: False, **slow))
    with pytest.raises(ZeroDivisionError):
        list(alone.edit_iter(requests, preview=lambda _: 1 / 0, **slow))


def test_progress_with_a_bar(alone, picture, capsys):
    assert len(list(alone.edit_iter([EditRequest(picture, "red")], progress=True, **FAST))) == 1
    assert "2/2" in capsys.readouterr().err


def test_a_stream_refuses_two_users(alone, picture):
    def preview(_):
        next(stream)

    stream = alone._core.edit_iter([EditRequest(picture, "red")._parts()], dict(FAST), None, preview)
    with pytest.raises(RuntimeError, match="in use"):
        next(stream)


def test_checks_look_at_everything_but_pictures(pipeline, picture):
    file = io.BytesIO(picture.encode())
    fine = [EditRequest(file, "red"), EditRequest(["none.png", b""], "red", None, 3)]
    assert pipeline.check(fine, **FAST) is None
    assert file.tell() == 0
    for wrong in (EditRequest([], "red"), EditRequest(picture, " "), EditRequest([picture] * 100, "red")):
        with pytest.raises(tagbrush.InvalidInputError) as failed:
            pipeline.check([*fine, wrong])
        assert failed.value.context["request"] == "2"
    with pytest.raises(tagbrush.InvalidInputError):
        pipeline.check([], n=11)
    with pytest.raises(TypeError, match="steps"):
        pipeline.check(fine, steps=3)
    assert 0 < pipeline.default_area < 4096 * 4096
