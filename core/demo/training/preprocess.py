"""The preprocessing of WD14-style taggers, as Pillow does it: transparency on
white, a white square around the picture, bicubic to the model's side."""

import numpy as np
from PIL import Image


def squared(image, side):
    """The picture as the model sees it: a `side` x `side` RGB image."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "WHITE")
    white.alpha_composite(rgba)
    rgb = white.convert("RGB")
    w, h = rgb.size
    longest = max(w, h)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(rgb, ((longest - w) // 2, (longest - h) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return square


def pixels(image, side):
    """The same as a byte array, channels first and in the order BGR."""
    return np.ascontiguousarray(np.asarray(squared(image, side))[:, :, ::-1].transpose(2, 0, 1))
