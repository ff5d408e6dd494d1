"""Never run: pyright checks that these calls have the types that people rely on."""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from tagbrush import Edited, EditPipeline, EditRequest, Image, Tagger, TagbrushError, Tags

tagger = Tagger.load("demo", device="cpu", dtype="f32", batch_size=4, cache_dir=Path("models"))
assert_type(tagger.tag("a.png", threshold=0.3, order="score", category_thresholds={4: 0.8}), Tags)
assert_type(tagger.tag_batch([Path("a.png"), b"", np.zeros((3, 3), np.uint8)]), list[Tags])
assert_type(tagger.tag_batch(["a.png"], errors="return", progress=True), list[Tags | TagbrushError])
assert_type(tagger.scores(["a.png"]), NDArray[np.float32])
assert_type(tagger.tag(Image.open("a.png")).caption(separator=" ", rating="first"), str)
for tags in tagger.tag_iter(open("list", "rb") for _ in range(3)):
    assert_type(tags, Tags)

tagger.tag("a.png", treshold=0.3)  # pyright: ignore[reportCallIssue]
tagger.tag("a.png", order="size")  # pyright: ignore[reportArgumentType]
tagger.tag(3)  # pyright: ignore[reportArgumentType]
Tagger.load(dtype="float32")  # pyright: ignore[reportArgumentType]

pipeline = EditPipeline.load("model", max_memory=8 << 30)
edited = pipeline.edit(
    ["a.png", Image.open("b.png")], "red", n=2, size=(64, 64), preset="lightning-4", preview=lambda p: p.step < 3
)
assert_type(edited, list[Edited])
assert_type(edited[0].image.to_numpy(), NDArray[np.uint8])
assert_type(pipeline.edit_batch([EditRequest("a.png", "red")], errors="return"), list[Edited | TagbrushError])
pipeline.set_loras(["a.safetensors", ("b.safetensors", 0.5)])
