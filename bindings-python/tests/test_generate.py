"""Pictures from prompts with a tiny random model: the reference's values, order, seeds, options, callbacks, errors."""

import copy
import dataclasses
import inspect
import io
import json
import pickle
import re
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import tagbrush
from conftest import GENERATE_GOLDENS, GENERATE_MODEL
from PIL import Image as PilImage
from tagbrush import (
    Generated,
    GeneratePipeline,
    GenerateRequest,
    Lora,
    Prompter,
    SizeGuidance,
    Unstyled,
    performance_lora,
)

FAST = {"size": (64, 64), "steps": 2, "seed": 3}
GOLDEN = json.loads((GENERATE_GOLDENS / "golden.json").read_text())["pictures"]


@pytest.fixture(scope="module")
def alone() -> GeneratePipeline:
    """One picture at a time."""
    return GeneratePipeline.load(GENERATE_MODEL, dtype="f32", batch_size=1)


def golden(name: str) -> np.ndarray:
    """A tensor of the reference."""
    data = (GENERATE_GOLDENS / "golden.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    start, end = entry["data_offsets"]
    dtype = {"F32": np.float32, "U8": np.uint8}[entry["dtype"]]
    return np.frombuffer(data[8 + length + start : 8 + length + end], dtype)


@pytest.mark.parametrize("i", range(len(GOLDEN)))
def test_pictures_are_those_of_the_reference(generator, i):
    case = GOLDEN[i]
    width, height = case["size"]
    start = golden(f"start.{i}").reshape(height, width, 3) if "denoise" in case else None
    (made,) = generator.generate(
        case["prompt"],
        negative_prompt=case["negative"],
        image=start,
        **{name: case[name] for name in ("steps", "sampler", "scheduler", "seed")},
        size=(width, height),
        guidance_scale=case["cfg"],
        denoise=case.get("denoise", 1),
        size_guidance=None,
        adaptive_guidance=100,
        sharpness=0,
        keep_values=True,
    )
    assert made.image.size == (width, height) and made.values.shape == (height, width, 3)
    off = np.abs(made.values.ravel() - golden(f"picture.{i}").ravel())
    assert (off > 1 / 255).mean() < 0.001, f"the worst by {off.max()}"
    assert np.abs(made.values * 255 - made.image.to_numpy()).max() <= 0.51


def test_the_demo_model_draws_what_it_is_asked_for():
    demo = GeneratePipeline.load()
    prompts = ["a red circle on a white background", "蓝色背景上的白色圆形"]
    colours = [((216, 52, 56), (252, 252, 252)), ((252, 252, 252), (58, 122, 222))]
    made = demo.generate_batch(prompts, n=4, seed=0)
    right = 0
    for generated in made:
        image = generated.image.to_numpy().astype(int)
        assert image.shape == (64, 64, 3)
        # Parts of the picture near the colour of the shape, and of the background.
        shape, ground = ((np.abs(image - c).max(axis=-1) < 45).mean() for c in colours[generated.request])
        right += 0.04 < shape < 0.4 and ground > 0.4
    assert right >= 7


def test_every_step_has_a_preview(generator):
    seen = []
    (made,) = generator.generate("a cat", preview=seen.append, **FAST)
    assert [(p.output, p.step, p.steps) for p in seen] == [(0, 1, 2), (0, 2, 2)]
    assert all(p.image.size == (8, 8) for p in seen)
    assert generator.generate("a cat", **FAST)[0].image == made.image
    with pytest.raises(tagbrush.CancelledError):
        generator.generate("a cat", preview=lambda _: False, **FAST)
    seen.clear()
    list(generator.generate_iter(["a", "b"], preview=seen.append, **FAST))
    assert {(p.output, p.step) for p in seen} == {(i, step) for i in range(2) for step in (1, 2)}


def test_sizes_of_the_model(generator):
    assert generator.default_size == (1152, 896)
    assert generator.default_size in tagbrush.ASPECT_RATIOS and len(tagbrush.ASPECT_RATIOS) == 26


def test_what_goes_with_the_model(generator):
    demo = GeneratePipeline.load()
    assert (demo.default_styles, demo.needs_performance_loras) == ([], False)
    assert (generator.default_styles, generator.needs_performance_loras) == (None, True)


def test_variants_of_one_prompt(generator):
    made = generator.generate("a cat", n=2, **FAST)
    assert [(g.request, g.variant, g.seed) for g in made] == [(0, 0, 3), (0, 1, 4)]
    assert all(isinstance(g, Generated) and g.source is None and g.values is None for g in made)
    assert made[0].image != made[1].image
    assert generator.generate("a cat", **{**FAST, "seed": 4})[0].image == made[1].image
    drawn = generator.generate("a cat", size=(64, 64), steps=1)[0]
    assert generator.generate("a cat", size=(64, 64), steps=1, seed=drawn.seed)[0].image == drawn.image


def test_a_batch_is_its_singles_in_order(generator, picture):
    requests = [
        "a cat",
        GenerateRequest("one\ntwo, (three:1.4)", "bad"),
        GenerateRequest("a cat", image=picture, seed=9),
    ]
    batch = generator.generate_batch(iter(requests), n=2, **FAST)
    assert [(g.request, g.variant) for g in batch] == [(i, j) for i in range(3) for j in range(2)]
    assert [g.seed for g in batch] == [3, 4, 3, 4, 9, 10] and batch[4].source is picture
    for i, request in enumerate([GenerateRequest("a cat"), *requests[1:]]):
        single = generator.generate(
            request.prompt,
            negative_prompt=request.negative_prompt,
            image=request.image,
            n=2,
            **{**FAST, "seed": request.seed or 3},
        )
        assert [g.image for g in single] == [g.image for g in batch[2 * i : 2 * i + 2]]
    assert generator.generate_batch([], **FAST) == []


def test_a_bad_request_costs_no_other_one_its_output(generator, picture):
    requests = ["a", "<|endoftext|>"]
    requests += [GenerateRequest("b", image=image) for image in (b"no image", np.zeros((3, 3)), "none.png", picture)]
    outputs = generator.generate_batch(requests, n=2, errors="return", **FAST)
    kinds = [Generated, tagbrush.InvalidInputError, tagbrush.ImageDecodeError, tagbrush.InvalidInputError]
    kinds += [tagbrush.InputOutputError, Generated]
    assert [type(o) for o in outputs] == [kind for kind in kinds for _ in range(2)]
    assert outputs[2].context["field"] == "prompt" and outputs[4].context["request"] == "2"
    assert "float64" in str(outputs[6]) and outputs[10].request == 5
    stream = generator.generate_iter(requests, n=2, errors="return", **FAST)
    for one, other in zip(stream, outputs, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Generated):
            assert one.image == other.image and one.source is other.source
            assert (one.request, one.variant, one.seed) == (other.request, other.variant, other.seed)
        else:
            assert (str(one), one.context) == (str(other), other.context)
    with pytest.raises(tagbrush.InvalidInputError, match="prompt"):
        generator.generate_batch(requests, **FAST)


def test_options_reach_the_core(generator, picture):
    def one(**options):
        return generator.generate("a cat", **{**FAST, "guidance_scale": 9, "steps": 4, **options})[0].image

    plain = one()
    assert one(size="64x128").size == one(size=(64, 128)).size == (64, 128)
    for options in (
        {"steps": 5}, {"guidance_scale": 1}, {"sampler": "euler"}, {"scheduler": "exponential"}, {"clip_skip": 1},
        {"seed": 4}, {"size_guidance": None}, {"size_guidance": (1.5, 0.8, 0.9)}, {"adaptive_guidance": 5}, {"sharpness": 9},
        {"negative_prompt": "bad"}, {"image": picture}, {"freeu": (1.5, 1.5, 0.5, 0.5)},
    ):
        assert one(**options) != plain, options
    assert one(image=picture, denoise=0.2) != one(image=picture)
    assert one(size_guidance=SizeGuidance(end=0)) == one(size_guidance=None)
    assert one(seed=np.int64(3), n=np.uint8(1)) == plain


def test_shown_defaults_are_those_of_the_core(generator):
    parameters = inspect.signature(GeneratePipeline.generate).parameters.values()
    shown = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert shown["size"] is None
    small = {"size": (64, 64), "seed": 3}
    (unset,), (set_,) = generator.generate("a", **small), generator.generate("a", **{**shown, **small})
    assert unset.image == set_.image


@pytest.mark.parametrize("field, names", [("sampler", tagbrush.Sampler), ("scheduler", tagbrush.Scheduler)])
def test_names_are_those_of_the_core(generator, field, names):
    with pytest.raises(tagbrush.InvalidInputError) as failed:
        generator.generate("a", **{field: "none"})
    known = re.search(r"known: ([^()]*)", str(failed.value)).group(1)
    assert known.strip().split(", ") == list(get_args(names))
    assert failed.value.context["field"] == field


@pytest.mark.parametrize(
    "options, field",
    [({"n": 0}, "n"), ({"steps": 0}, "steps"), ({"size": (60, 64)}, "width"), ({"size": "big"}, "size"),
     ({"size": "auto"}, "size"), ({"size": (-8, 64)}, "option"), ({"guidance_scale": -1}, "guidance_scale"),
     ({"clip_skip": 0}, "clip_skip"), ({"denoise": 0}, "denoise"), ({"seed": -1}, "option"),
     ({"size_guidance": (0, 1, 1)}, "size_guidance.positive"), ({"adaptive_guidance": 1e9}, "adaptive_guidance"),
     ({"sharpness": 31}, "sharpness"), ({"freeu": (-1, 1, 1, 1)}, "freeu.b1"), ({"refiner_switch": 2}, "refiner_switch"),
     ({"inpaint_field": 2}, "inpaint_field"), ({"inpaint_strength": 0}, "inpaint_strength"), ({"mask_growth": 99}, "mask_growth")],
    ids=str,
)
def test_wrong_options_are_named(generator, options, field):
    for call in (generator.generate_batch, generator.generate_iter):
        with pytest.raises(tagbrush.InvalidInputError) as failed:
            call(["a"], **options)
        assert failed.value.context["field"] == field


def test_wrong_calls(generator):
    with pytest.raises(TypeError, match="cfg.*known: n, size, performance, steps"):
        generator.generate("a", cfg=3)
    with pytest.raises(TypeError, match="an image is"):
        generator.generate("a", image=3)
    with pytest.raises(TypeError, match="size_guidance"):
        generator.generate("a", size_guidance=1.5)
    for call in (generator.generate_batch, generator.generate_iter):
        with pytest.raises(TypeError, match="list of prompts"):
            call("a cat")
        with pytest.raises(TypeError, match="a request is"):
            call([3])
        with pytest.raises(TypeError, match="str"):
            call([GenerateRequest(3)])
        with pytest.raises(ValueError, match="errors"):
            call(["a"], errors="ignore")
        with pytest.raises(TypeError, match="progress"):
            call(["a"], progress="yes")
    with pytest.raises(TypeError, match="GeneratePipeline.load"):
        GeneratePipeline()


def test_models_that_cannot_be_loaded(tmp_path):
    for missing in ("demon", tmp_path / "none.safetensors"):
        with pytest.raises(tagbrush.ModelNotFoundError):
            GeneratePipeline.load(missing)
    with pytest.raises(tagbrush.UnsupportedError):
        GeneratePipeline.load(GENERATE_MODEL, dtype="f16")
    with pytest.raises(tagbrush.OutOfMemoryError, match="max_memory"):
        GeneratePipeline.load(GENERATE_MODEL, max_memory=1)


def test_little_memory_changes_nothing(generator):
    small = GeneratePipeline.load(GENERATE_MODEL, dtype="f32", max_memory=75_000_000)
    assert small.generate("a", **FAST)[0].image == generator.generate("a", **FAST)[0].image


def test_progress_tells_steps_and_time(generator, capsys):
    seen, threads = [], set()

    def progress(done, total, left):
        seen.append((done, total, left))
        threads.add(threading.current_thread())

    generator.generate("a", n=2, progress=progress, **{**FAST, "steps": 3})
    assert [(done, total) for done, total, _ in seen] == [(done, 6) for done in range(1, 7)]
    assert all(isinstance(left, float) for *_, left in seen)
    assert threads == {threading.current_thread()}
    assert len(generator.generate("a", progress=True, **FAST)) == 1
    assert "2/2" in capsys.readouterr().err


def test_each_comes_as_soon_as_it_is_made(alone):
    seen = []
    stream = alone.generate_iter(["a", "b", "c"], progress=lambda done, total, _: seen.append((done, total)), **FAST)
    for i, generated in enumerate(stream):
        assert generated.request == i
        assert seen == [(done, 6) for done in range(1, 2 * i + 3)]


def test_false_cancels_and_exceptions_come_out(alone):
    slow = {**FAST, "steps": 1000}
    with pytest.raises(tagbrush.CancelledError):
        alone.generate("a", progress=lambda *_: False, **slow)
    with pytest.raises(ZeroDivisionError):
        alone.generate("a", progress=lambda *_: 1 / 0, **slow)
    outputs = alone.generate_batch(["a"] * 3, errors="return", progress=lambda done, *_: done < 3, **FAST)
    assert isinstance(outputs[0], Generated) and isinstance(outputs[2], tagbrush.CancelledError)
    stream = alone.generate_iter(["a"], n=10, **slow)
    stream.close()
    assert alone.generate("a", **FAST), "the pipeline can be used again"


def test_threads_share_a_pipeline(generator):
    expected = [g.image for g in generator.generate("a", n=4, **FAST)]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda i: generator.generate("a", **{**FAST, "seed": 3 + i})[0].image, range(4))
    assert list(made) == expected


def test_a_pickle_is_a_recipe(generator):
    data = pickle.dumps(generator)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert repr(again) == repr(generator) == f"GeneratePipeline({str(GENERATE_MODEL)!r}, device='cpu', dtype='f32')"
    assert again.generate("a", **FAST)[0].image == generator.generate("a", **FAST)[0].image


def test_notebooks_show_what_was_made(generator, picture, tmp_path):
    (made,) = generator.generate("a", **FAST)
    assert made._repr_html_().count("<img") == 1 and "seed 3" in made._repr_html_()
    (made,) = generator.generate("a", image=picture, **FAST)
    assert made._repr_html_().count("<img") == 2
    made.save(tmp_path / "a.png")
    assert tagbrush.Image.open(tmp_path / "a.png") == made.image
    assert repr(made).startswith("Generated(image=Image(")


def test_files_say_how_they_were_made(generator, tmp_path):
    (made,) = generator.generate("a 红 cat", negative_prompt="bad", **FAST)
    told = json.loads(made.metadata())
    assert (told["prompt"], told["seed"], told["steps"], told["base_model"]) == ("a 红 cat", "3", 2, GENERATE_MODEL.name)
    assert told == json.loads(made.metadata("fooocus")) and told["metadata_scheme"] == "fooocus"
    lines = made.metadata("a1111")
    assert lines.startswith("a 红 cat\nNegative prompt: bad\nSteps: 2, Sampler: DPM++ 2M SDE Karras, Seed: 3, Size: 64x64")
    for scheme, text in [("fooocus", made.metadata()), ("a1111", lines)]:
        for name in ("a.png", "a.jpg", "a.webp"):
            made.save(tmp_path / name, metadata=scheme)
            assert written(tmp_path / name) == (text, scheme), name
            data = made.encode(name[2:], metadata=scheme)
            assert data == (tmp_path / name).read_bytes()
    assert np.array_equal(np.asarray(PilImage.open(tmp_path / "a.png")), made.image.to_numpy())
    low = made.encode("jpeg", quality=10, metadata="fooocus")
    assert len(low) < len(made.encode("jpeg", metadata="fooocus")) and written(io.BytesIO(low))[0] == made.metadata()
    # Nothing is said unless it is asked for.
    assert made.encode("webp") == made.image.encode("webp") and written(io.BytesIO(made.encode()))[0] is None
    made.save(tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == made.image.encode("png")
    for other in generator.generate_iter(["a 红 cat"], **FAST, keep_values=True):
        assert json.loads(other.metadata())["prompt"] == "a 红 cat" and other.values is not None


def test_files_say_which_styles_were_around_a_prompt(generator):
    (request,), _ = Prompter().prepare("a cat", "bad", styles=["Fooocus Sharp"], seed=5)
    own = GenerateRequest("a cat, sharp", unstyled=Unstyled("a cat", styles=["Mine"]))
    told = [json.loads(made.metadata()) for made in generator.generate_batch([request, own, "a cat"], **FAST)]
    assert [(t["prompt"], t["negative_prompt"], t["styles"]) for t in told] == [
        ("a cat", "bad", "['Fooocus Sharp']"), ("a cat", "", "['Mine']"), ("a cat", "", "[]"),
    ]
    assert len(told[0]["full_prompt"]) >= 1 and told[1]["full_prompt"] == ["a cat, sharp"]
    for wrong in (("a", "", "Mine"), ("a", "", [3])):
        with pytest.raises(TypeError):
            generator.generate_batch([GenerateRequest("a", unstyled=wrong)], **FAST)


def test_what_cannot_be_told_is_refused_by_name(generator, tmp_path):
    (made,) = generator.generate("a", **FAST)
    assert copy.copy(made).metadata() == copy.deepcopy(made).metadata() == made.metadata()
    pickled = pickle.loads(pickle.dumps(made))
    assert pickled.image == made.image and pickled.seed == 3
    other = dataclasses.replace(made, image=tagbrush.Image.from_rgb8(1, 1, b"abc"))
    for stranger in (pickled, other):
        for call in (stranger.metadata, lambda s=stranger: s.encode(metadata="a1111")):
            with pytest.raises(tagbrush.InvalidInputError, match="the process that made it") as failed:
                call()
            assert failed.value.context == {"field": "metadata"}
        assert stranger.encode() == stranger.image.encode()
    for call in (made.metadata, lambda s: made.encode(metadata=s), lambda s: made.save(tmp_path / "a.png", metadata=s)):
        with pytest.raises(tagbrush.InvalidInputError, match="known: fooocus, a1111") as failed:
            call("a111")
        assert failed.value.context["field"] == "metadata"
    assert not list(tmp_path.iterdir())
    with pytest.raises(tagbrush.InvalidInputError, match="only JPEG has a quality"):
        made.encode(quality=3, metadata="a1111")
    long = generator.generate("a\n" * 16000, **{**FAST, "steps": 1})[0]
    with pytest.raises(tagbrush.InvalidInputError, match="at most") as failed:
        long.encode("jpeg", metadata="fooocus")
    assert failed.value.context["field"] == "metadata"


def written(file) -> tuple[str | None, str | None]:
    """The parameters in a file and the name of their notation, where Fooocus looks for them."""
    with PilImage.open(file) as image:
        if image.format == "PNG":
            return image.info.get("parameters"), image.info.get("fooocus_scheme")
        exif = image.getexif()
    # Pillow reads texts of EXIF as Latin letters.
    texts = (exif.get(0x9286), exif.get(0x927C))
    return tuple(text if text is None else text.encode("latin-1").decode() for text in texts)


def test_prompts_are_prepared(tmp_path):
    (tmp_path / "color.txt").write_text("red\ngreen\n")
    (tmp_path / "Film.safetensors").write_text("")
    prompter = Prompter(wildcards=tmp_path, loras=[tmp_path])
    assert prompter.style_names[:2] == ["Random Style", "Fooocus Enhance"]
    how = {"n": 2, "seed": 5, "wildcards_in_order": True}
    requests, loras = prompter.prepare("a __color__ [[cat, dog]], <lora:Film:0.5>", "bad.", **how)
    assert [(r.prompt, r.negative_prompt, r.seed, r.as_is) for r in requests] == [
        ("a red cat", "bad", 5, True),
        ("a green dog", "bad", 6, True),
    ]
    assert loras == [Lora(tmp_path / "Film.safetensors", 0.5)]
    (request,), _ = prompter.prepare("a cat\nsunny", "bad", styles=["Fooocus Sharp"], seed=5)
    assert request.unstyled == Unstyled("a cat\nsunny", "bad", ["Fooocus Sharp"]) and request.prompt != "a cat\nsunny"
    for wrong, error in [
        ({"styles": ["Moon"]}, tagbrush.InvalidInputError),
        ({"styles": ["Fooocus V2"]}, tagbrush.UnsupportedError),
        ({"styles": "Moon"}, TypeError),
        ({"n": 0}, tagbrush.InvalidInputError),
    ]:
        with pytest.raises(error):
            prompter.prepare("a", **wrong)
    with pytest.raises(tagbrush.ModelNotFoundError, match="Sun.safetensors"):
        prompter.prepare("<lora:Sun:1>")
    with pytest.raises(tagbrush.InvalidInputError, match="no styles"):
        Prompter(styles=tmp_path)


def test_refiners_and_masks():
    small = {**FAST, "guidance_scale": 1}
    refined = GeneratePipeline.load(GENERATE_MODEL, dtype="f32", refiner=GENERATE_GOLDENS.parent / "generate-refiner/model")
    late = refined.generate("a", refiner_switch=1, **small)[0].image
    assert late != refined.generate("a", refiner_switch=0.5, refiner_swap="separate", **small)[0].image
    with pytest.raises(tagbrush.UnsupportedError, match="interposer"):
        refined.generate("a", refiner_swap="vae", **small)
    whole = np.full((48, 64, 3), 90, np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    for wrong in ({"mask": mask}, {"image": whole, "mask": mask}, {"image": whole, "mask": mask[:9] + 255}, {"outpaint": (9, 0, 0, 0)}):
        with pytest.raises(tagbrush.InvalidInputError) as failed:
            refined.generate("a", **wrong, **small)
        assert failed.value.context["field"] in ("mask", "outpaint")


def test_another_autoencoder(generator, tmp_path):
    own = GENERATE_MODEL / "vae/diffusion_pytorch_model.safetensors"
    data = own.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    # The same weights with other signs; each has 16 bits.
    (tmp_path / "mine.safetensors").write_bytes(data[:start] + (np.frombuffer(data[start:], "<u2") ^ 0x8000).tobytes())
    (plain,) = generator.generate("a", **FAST)
    for vae, name in [(own, own.stem), (tmp_path / "mine.safetensors", "mine")]:
        other = GeneratePipeline.load(GENERATE_MODEL, dtype="f32", vae=vae)
        (made,) = other.generate("a", **FAST)
        assert (made.image == plain.image) == (vae == own)
        assert json.loads(made.metadata())["vae"] == name
    with pytest.raises(tagbrush.ModelNotFoundError, match="vae=none"):
        GeneratePipeline.load(GENERATE_MODEL, vae="none.safetensors")


def test_pictures_are_made_larger():
    upscaler = GENERATE_GOLDENS.parent / "generate-upscale/fooocus.bin"
    larger = GeneratePipeline.load(GENERATE_MODEL, dtype="f32", upscaler=upscaler)
    plain = GeneratePipeline.load(GENERATE_MODEL, dtype="f32")
    assert (larger.has_upscaler, plain.has_upscaler) == (True, False)
    small = {"image": np.full((520, 1000, 3), 90, np.uint8), "steps": 1, "guidance_scale": 1, "seed": 3}
    (fast,) = larger.generate("a", upscale="fast 2", **small)
    assert ((fast.image.width, fast.image.height), fast.notes) == ((2000, 1040), ())
    (resampled,) = plain.generate("a", upscale="Upscale (Fast 2x)", **small)
    assert resampled.image != fast.image
    assert "resampling" in resampled.notes[0]
    # Too small for the model, whose pictures have about a megapixel.
    (tiny,) = plain.generate("a", upscale=1.5, **{**small, "image": np.full((16, 16, 3), 90, np.uint8)}, upscale_strength=0.5)
    assert (tiny.image.width, tiny.image.height) == (1024, 1024)
    for wrong in ({"upscale": 9}, {"upscale": 2, "image": None}, {"upscale": 2, "upscale_strength": 0}):
        with pytest.raises(tagbrush.InvalidInputError) as failed:
            plain.generate("a", **{**small, **wrong})
        assert failed.value.context["field"] in ("upscale", "upscale_strength")
    with pytest.raises(tagbrush.InvalidInputError, match="known: a factor"):
        plain.generate("a", upscale="large", **small)
    with pytest.raises(TypeError):
        plain.generate("a", upscale=[2], **small)
    with pytest.raises(tagbrush.ModelNotFoundError, match="none.pth"):
        GeneratePipeline.load(GENERATE_MODEL, upscaler="none.pth")


def test_the_inpaint_engine_makes_parts():
    files = [GENERATE_GOLDENS.parent / "generate-inpaint" / name for name in ("head.pth", "patch.fooocus.patch")]
    pipeline = GeneratePipeline.load(GENERATE_MODEL, dtype="f32")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    part = {"image": np.full((64, 64, 3), 90, np.uint8), "mask": mask, "steps": 1, "guidance_scale": 1, "seed": 3}
    plain = pipeline.generate("a", **part)[0].image
    pipeline.set_inpaint_engine(files)
    made = pipeline.generate("a", **part)[0].image
    assert pipeline.has_inpaint_engine and made != plain
    again = pickle.loads(pickle.dumps(pipeline))
    assert again.generate("a", **part)[0].image == made
    pipeline.set_inpaint_engine(None)
    assert not pipeline.has_inpaint_engine and pipeline.generate("a", **part)[0].image == plain
    with pytest.raises(tagbrush.ModelInvalidError, match="no part of a patch"):
        pipeline.set_inpaint_engine((files[0], files[0]))
    with pytest.raises(tagbrush.InvalidInputError) as failed:
        GeneratePipeline.load(GENERATE_MODEL, inpaint_head=files[0])
    assert failed.value.context["field"] == "inpaint_patch"


def test_performances():
    other = GeneratePipeline.load(GENERATE_MODEL, dtype="f32")
    small = {"size": (64, 64), "seed": 3}
    assert other.generate("a", performance="Speed", **small)[0].image == other.generate("a", **small)[0].image
    assert [performance_lora(name) for name in ("Quality", "Speed")] == [None, None]
    assert performance_lora("Hyper-SD").scale == 0.8
    lora = performance_lora("Lightning")
    with pytest.raises(tagbrush.ModelNotFoundError, match=str(lora.file)):
        other.generate("a", performance="Lightning", **small)
    with pytest.raises(tagbrush.InvalidInputError, match="known: Quality"):
        other.generate("a", performance="Turbo", **small)


def test_loras():
    lora = GENERATE_GOLDENS.parent / "generate-lora/lora_kohya.safetensors"
    other = GeneratePipeline.load(GENERATE_MODEL, dtype="f32")

    def made(loras):
        other.set_loras(loras)
        return other.generate("a red cat", **FAST)[0].image

    plain, full = made([]), made([lora])
    assert plain != made([Lora(lora, 0.5)]) != full != plain
    assert made([]) == plain
    other.set_loras([(lora, 1)])
    again = pickle.loads(pickle.dumps(other))
    assert again.generate("a red cat", **FAST)[0].image == full
    with pytest.raises(tagbrush.ModelNotFoundError):
        other.set_loras(["none.safetensors"])
    with pytest.raises(TypeError, match="list"):
        other.set_loras(str(lora))
    assert other.generate("a red cat", **FAST)[0].image == full
