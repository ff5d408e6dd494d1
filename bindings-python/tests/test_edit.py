"""Edits with a tiny random model: order, seeds, options, callbacks, errors."""

import json
import pickle
import threading

import numpy as np
import pytest
import tagbrush
from conftest import DEMO_SAMPLES, EDIT_MODEL
from tagbrush import EditPipeline, EditRequest, Lora

FAST = {"num_inference_steps": 2, "seed": 3}


def test_variants_of_one_edit(pipeline, picture):
    made = pipeline.edit(picture, "make it red", n=2, **FAST)
    assert [(e.request, e.variant, e.seed) for e in made] == [(0, 0, 3), (0, 1, 4)]
    assert made[0].image != made[1].image
    assert made[0].image.mode == "RGB" and made[0].source is picture
    assert pipeline.edit(picture, "make it red", num_inference_steps=2, seed=4)[0].image == made[1].image


def test_a_batch_is_its_singles_in_order(pipeline, picture):
    requests = [
        EditRequest(picture, "make it red"),
        EditRequest([picture], "at night", negative_prompt="blur"),
        EditRequest(picture.encode(), "make it red", None),
    ]
    batch = pipeline.edit_batch(requests, n=2, **FAST)
    assert [(e.request, e.variant) for e in batch] == [(i, j) for i in range(3) for j in range(2)]
    for i, request in enumerate(requests):
        single = pipeline.edit(
            request.images, request.prompt, negative_prompt=request.negative_prompt, n=2, **FAST
        )
        assert [e.image for e in single] == [e.image for e in batch[2 * i : 2 * i + 2]]
    assert batch[0].image != batch[4].image, "without guidance it is another picture"


def test_a_request_may_have_its_own_seed(pipeline, picture):
    requests = [EditRequest(picture, "red", seed=9), EditRequest(picture, "red")]
    made = pipeline.edit_batch(requests, n=2, **FAST)
    assert [e.seed for e in made] == [9, 10, 3, 4]
    assert made[0].image == pipeline.edit(picture, "red", **{**FAST, "seed": 9})[0].image


def test_the_demo_model_does_what_it_is_told():
    demo = EditPipeline.load()
    picture = tagbrush.Image.open(DEMO_SAMPLES / "circle.png")
    cases = json.loads((DEMO_SAMPLES / "expected.json").read_text())["circle.png"]
    made = demo.edit_batch([EditRequest(picture, case["prompt"], seed=0) for case in cases])
    for edited, case in zip(made, cases, strict=True):
        image = edited.image.to_numpy()
        height, width, _ = image.shape
        for region in case["regions"]:
            left, top, right, bottom = region["box"]
            part = image[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
            off = np.abs(part.mean(axis=(0, 1)) - region["colour"]).max()
            assert off <= region["tolerance"], (case["prompt"], region)


def test_for_each_makes_one_request_for_each_picture(picture):
    requests = EditRequest.for_each([picture, "b.png"], "at night")
    assert [r.images for r in requests] == [picture, "b.png"]
    assert {(r.prompt, r.negative_prompt) for r in requests} == {("at night", " ")}


def test_a_bad_request_costs_no_other_one_its_output(pipeline, picture):
    requests = [EditRequest(i, "red") for i in (picture, b"no image", np.zeros((3, 3)), [], picture)]
    requests.append(EditRequest(picture, "  "))
    outputs = pipeline.edit_batch(requests, n=2, errors="return", **FAST)
    kinds = ["Edited", "ImageDecodeError", "InvalidInputError", "InvalidInputError", "Edited", "InvalidInputError"]
    assert [type(o).__name__ for o in outputs] == [kind for kind in kinds for _ in range(2)]
    assert outputs[8].request == 4 and outputs[8].image == outputs[0].image
    assert "float64" in str(outputs[4])
    with pytest.raises(tagbrush.ImageDecodeError):
        pipeline.edit_batch(requests, **FAST)
    with pytest.raises(TypeError, match="an image is"):
        pipeline.edit(3, "red", **FAST)


def test_options_reach_the_core(pipeline, picture):
    def one(**options):
        return pipeline.edit(picture, "make it red", **{**FAST, **options})[0]

    plain = one()
    for size in ((48, 32), "48x32"):
        assert one(size=size).image.size == (48, 32)
    assert one(true_cfg_scale=1).image != plain.image
    assert one(num_inference_steps=3).image != plain.image
    assert one(seed=5).image != plain.image
    assert one(size="auto", seed=np.int64(3), n=np.uint8(1)).image == plain.image
    assert one(reference_area=4096).image.size != one(reference_area=65536).image.size
    assert one(preset="lightning-4", num_inference_steps=None).image != plain.image
    values = one(keep_values=True).values
    assert plain.values is None
    assert values.shape == plain.image.shape and values.dtype == np.float32
    assert not values.flags.writeable
    assert np.abs(values * 255 - plain.image.to_numpy()).max() <= 0.51
    drawn = pipeline.edit(picture, "make it red", num_inference_steps=1)[0]
    again = pipeline.edit(picture, "make it red", num_inference_steps=1, seed=drawn.seed)[0]
    assert drawn.image == again.image


def test_options_without_effect_warn(pipeline, picture):
    with pytest.warns(UserWarning, match="guidance_scale has no effect") as warned:
        pipeline.edit(picture, "red", guidance_scale=3, **FAST)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="max_sequence_length") as warned:
        pipeline.edit_batch([EditRequest(picture, "red")], max_sequence_length=100, **FAST)
    assert warned[0].filename == __file__, "the warning points at the call"


@pytest.mark.parametrize(
    "options",
    [{"n": 0}, {"n": 11}, {"num_inference_steps": 0}, {"true_cfg_scale": -1}, {"size": "big"}, {"size": (0, 9)},
     {"size": (-4, 9)}, {"preset": "lightning-3"}, {"reference_multiple": 7}, {"seed": -1}],
    ids=str,
)
def test_wrong_options_are_named(pipeline, picture, options):
    with pytest.raises(tagbrush.InvalidInputError):
        pipeline.edit(picture, "red", **options)


def test_wrong_calls(pipeline, picture):
    with pytest.raises(TypeError, match="steps.*known: n, size"):
        pipeline.edit(picture, "red", steps=3)
    with pytest.raises(TypeError):
        pipeline.edit(picture)
    with pytest.raises(tagbrush.ModelNotFoundError):
        EditPipeline.load("/no/such/model")
    with pytest.raises(TypeError, match="EditPipeline.load"):
        EditPipeline()


def test_several_references(plus_folder, picture):
    plus = EditPipeline.load(plus_folder, dtype="f32")
    other = np.ascontiguousarray(picture.to_numpy()[::-1])
    two = plus.edit([picture, other], "together", **FAST)[0]
    assert two.image != plus.edit([other, picture], "together", **FAST)[0].image
    assert two.source is picture


def test_progress_tells_steps_and_time(pipeline, picture):
    seen, threads = [], set()

    def progress(done, total, left):
        seen.append((done, total, left))
        threads.add(threading.current_thread())

    pipeline.edit(picture, "red", n=2, num_inference_steps=3, progress=progress)
    assert seen[-1][:2] == (6, 6) and all(total == 6 for _, total, _ in seen)
    assert [d for d, _, _ in seen] == sorted(d for d, _, _ in seen)
    assert any(isinstance(left, float) for _, _, left in seen)
    assert threads == {threading.current_thread()}


def test_previews_are_pictures_of_every_step(pipeline, picture):
    seen = []
    made = pipeline.edit(picture, "red", n=2, preview=seen.append, **FAST)
    assert {(p.output, p.step, p.steps) for p in seen} == {(o, s, 2) for o in range(2) for s in (1, 2)}
    assert all(0 < p.image.width < made[0].image.width for p in seen)


@pytest.mark.parametrize("false", [False, np.False_])
@pytest.mark.parametrize("kind", ["progress", "preview"])
def test_false_cancels(pipeline, picture, kind, false):
    with pytest.raises(tagbrush.CancelledError):
        pipeline.edit(picture, "red", num_inference_steps=1000, **{kind: lambda *_: false})


def test_only_false_cancels(pipeline, picture):
    for answer in (None, 0, "", [], True):
        assert pipeline.edit(picture, "red", progress=lambda *_: answer, **FAST)


def test_after_a_cancel_what_was_made_is_kept(picture):
    alone = EditPipeline.load(EDIT_MODEL, dtype="f32", batch_size=1)
    outputs = alone.edit_batch(
        EditRequest.for_each([picture] * 3, "red"), errors="return", progress=lambda done, *_: done < 3, **FAST
    )
    names = [type(o).__name__ for o in outputs]
    assert names[0] == "Edited" and names[-1] == "CancelledError"


def test_what_a_callback_raises_comes_out(pipeline, picture):
    with pytest.raises(ZeroDivisionError):
        pipeline.edit(picture, "red", num_inference_steps=1000, progress=lambda *_: 1 / 0)
    assert pipeline.edit(picture, "red", **FAST), "the pipeline can be used again"


def test_a_callback_may_use_the_package(pipeline, picture, tagger):
    found = []
    pipeline.edit(picture, "red", preview=lambda p: found.append(tagger.tag(p.image)), **FAST)
    assert len(found) == 2


def test_loras_and_pickles(pipeline, picture):
    lora = EDIT_MODEL / "lora.safetensors"
    other = EditPipeline.load(EDIT_MODEL, dtype="f32")
    plain = other.edit(picture, "red", **FAST)[0].image
    other.set_loras([Lora(lora, 0.5)])
    half = other.edit(picture, "red", **FAST)[0].image
    other.set_loras([lora])
    full = other.edit(picture, "red", **FAST)[0].image
    assert plain != half != full != plain
    other.set_loras([(lora, 0.5)])
    data = pickle.dumps(other)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.edit(picture, "red", **FAST)[0].image == half
    with pytest.raises(tagbrush.ModelNotFoundError):
        other.set_loras(["none.safetensors"])
    with pytest.raises(TypeError, match="list"):
        other.set_loras(str(lora))
    other.set_loras([])
    assert other.edit(picture, "red", **FAST)[0].image == plain


def test_max_memory_is_for_edit_models_and_checked():
    with pytest.raises(tagbrush.OutOfMemoryError):
        EditPipeline.load(EDIT_MODEL, dtype="f32", max_memory=1)
    with pytest.raises(tagbrush.UnsupportedError):
        tagbrush.Tagger.load("demo", max_memory=1)


def test_what_a_pipeline_says_of_itself(pipeline):
    assert repr(pipeline) == f"EditPipeline({str(EDIT_MODEL)!r}, device='cpu', dtype='f32')"
    assert pipeline.default_steps == 50 and pipeline.default_true_cfg_scale == 4


def test_notebooks_show_before_and_after(pipeline, picture, tmp_path):
    made = pipeline.edit(picture, "red", **FAST)[0]
    assert made._repr_html_().count("<img") == 2 and "seed 3" in made._repr_html_()
    path = tmp_path / "a.png"
    picture.save(path)
    from_file = pipeline.edit(path, "red", **FAST)[0]
    assert from_file._repr_html_().count("<img") == 2
    path.unlink()
    assert from_file._repr_html_().count("<img") == 1
    from_file.save(path)
    assert tagbrush.Image.open(path) == made.image
