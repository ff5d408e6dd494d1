"""Whether an edit was done: is the change there, and is the rest as it was?"""

import numpy as np
from PIL import Image, ImageFilter

from edit_pictures import PALETTE

KEPT = 12  # levels of 255 that what is kept may differ by on average
CLOSE = 40  # levels that a colour may differ by in any channel
GREY = 16  # levels between the channels, or of lightness, in a grey picture


def shrunk(mask, pixels):
    """The mask without its rim."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MinFilter(2 * pixels + 1))) > 127


def apart(a, b):
    """Mean difference over pixels and channels."""
    return float(np.abs(a - b).mean()) if a.size else 0.0


def is_colour(found, wanted):
    """Whether a mean colour is nearest to this of the palette, and close to it."""
    gaps = {name: np.linalg.norm(found - np.array(colour)) for name, colour in PALETTE.items()}
    return min(gaps, key=gaps.get) == wanted and np.abs(found - np.array(PALETTE[wanted])).max() < CLOSE


def judge(pair, picture):
    """(changed, kept) for a picture that should be `pair` behind its edit."""
    before, after, edit = np.asarray(pair.before, dtype=float), np.asarray(picture, dtype=float), pair.edit
    if edit.kind == "grey":
        light = np.asarray(pair.before.convert("L"), dtype=float)[..., None]
        chroma = (after.max(-1) - after.min(-1)).mean()
        difference = apart(after.mean(-1, keepdims=True), light)
        return bool(chroma < GREY and difference < GREY), difference < KEPT
    cover = {shape.kind: pair.cover(shape.kind) for shape in pair.scene.shapes}
    everything = sum(cover.values())
    if edit.kind == "background":
        free, shapes = shrunk(everything < 0.01, 2), shrunk(everything > 0.99, 1)
        return bool(is_colour(after[free].mean(0), edit.colour)), apart(after[shapes], before[shapes]) < KEPT
    inside, rest = cover[edit.shape] > 0.99, shrunk(cover[edit.shape] < 0.01, 2)
    kept = apart(after[rest], before[rest]) < KEPT
    if edit.kind == "recolour":
        return bool(is_colour(after[shrunk(inside, 1)].mean(0), edit.colour)), kept
    return bool(np.abs(after[inside] - pair.scene.background).max(-1).mean() < 30), kept
