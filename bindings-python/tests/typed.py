"""Never run: pyright checks that these calls have the types that people rely on."""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from tagbrush import (
    Edited,
    EditPipeline,
    EditRequest,
    Generated,
    GeneratePipeline,
    GenerateRequest,
    Image,
    MetadataScheme,
    Sampler,
    SizeGuidance,
    Summary,
    Tagger,
    TagbrushError,
    Tags,
    Unstyled,
)

tagger = Tagger.load("demo", device="cpu", dtype="f32", batch_size=4, cache_dir=Path("models"))
assert_type(tagger.tag("a.png", threshold=0.3, order="score", category_thresholds={4: 0.8}), Tags)
assert_type(tagger.tag_batch([Path("a.png"), b"", np.zeros((3, 3), np.uint8)]), list[Tags])
assert_type(tagger.tag_batch(["a.png"], errors="return", progress=True), list[Tags | TagbrushError])
scores = tagger.scores(["a.png"])
assert_type(scores, np.ndarray[tuple[int, int], np.dtype[np.float32]])
pixels: NDArray[np.float32] = scores
assert_type(tagger.select(scores, threshold=0.3), list[Tags])
assert_type(tagger.select([0.1, 0.2]), Tags)
for row in tagger.embed(["a.png"], errors="return"):
    if not isinstance(row, TagbrushError):
        assert_type(tagger.select(row), Tags)
assert_type(tagger.tag_folder("photos", format="jsonl", output="out", caption={"escape": True}), Summary)
assert_type(tagger.tag(Image.open("a.png")).caption(separator=" ", rating="first"), str)
for tags in tagger.tag_iter(open("list", "rb") for _ in range(3)):
    assert_type(tags, Tags)

tagger.tag("a.png", treshold=0.3)  # pyright: ignore[reportCallIssue]
tagger.tag("a.png", order="size")  # pyright: ignore[reportArgumentType]
tagger.tag_folder("photos", format="text")  # pyright: ignore[reportArgumentType]
tagger.tag_folder("photos")  # pyright: ignore[reportCallIssue]
tagger.tag(3)  # pyright: ignore[reportArgumentType]
Tagger.load(dtype="float32")  # pyright: ignore[reportArgumentType]

pipeline = EditPipeline.load("model", max_memory=8 << 30)
edited = pipeline.edit(
    ["a.png", Image.open("b.png")], "red", n=2, size=(64, 64), preset="lightning-4", preview=lambda p: p.step < 3
)
assert_type(edited, list[Edited])
assert_type(edited[0].image.to_numpy(), NDArray[np.uint8])
assert_type(pipeline.edit_batch([EditRequest("a.png", "red")], errors="return"), list[Edited | TagbrushError])
for output in pipeline.edit_iter([EditRequest("a.png", "red")], n=2):
    assert_type(output, Edited)
pipeline.check([EditRequest("a.png", "red")], size="64x64")
pipeline.set_loras(["a.safetensors", ("b.safetensors", 0.5)])

generator = GeneratePipeline.load(Path("model.safetensors"), dtype="bf16", batch_size=2)
sampler: Sampler = "euler"
generated = generator.generate(
    "a cat", negative_prompt="bad", image="a.png", n=2, size=(64, 64), sampler=sampler, size_guidance=None, denoise=0.3
)
assert_type(generated, list[Generated])
assert_type(generated[0].image, Image)
assert_type(generated[0].values, NDArray[np.float32] | None)
assert_type(generator.name, str)
assert_type(generator.default_styles, list[str] | None)
assert_type(generator.needs_performance_loras, bool)
GeneratePipeline.load("model", vae=Path("vae.safetensors"))
GenerateRequest("a cat, sharp", unstyled=Unstyled("a cat", styles=["Mine"]))
scheme: MetadataScheme = "a1111"
assert_type(generated[0].metadata(), str)
assert_type(generated[0].encode("jpeg", quality=90, metadata=scheme), bytes)
generated[0].save(Path("a.png"), metadata="fooocus")
generated[0].save("a.png", metadata="a111")  # pyright: ignore[reportArgumentType]
both = ["a cat", GenerateRequest("a dog", seed=3)]
assert_type(generator.generate_batch(both, scheduler="karras", size_guidance=SizeGuidance(end=0.5)), list[Generated])
assert_type(generator.generate_batch(["a"], errors="return"), list[Generated | TagbrushError])
for output in generator.generate_iter(both, size="64x64", progress=True):
    assert_type(output, Generated)

generator.generate("a cat", sampler="eular")  # pyright: ignore[reportArgumentType]
generator.generate("a cat", cfg=3)  # pyright: ignore[reportCallIssue]
generator.generate()  # pyright: ignore[reportCallIssue]
