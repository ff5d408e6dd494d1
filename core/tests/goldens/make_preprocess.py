"""Makes the goldens of `preprocess.json`: what dghs-imgutils makes of pictures under the stages that
tagger folders list there.

    pip install -r requirements.txt && python core/tests/goldens/make_preprocess.py

`preprocess/index.json` lists every case: the file as a model folder has it, the input, and the
expected picture (8-bit RGB, the input of the conversion to a tensor). `preprocess/tensor.safetensors` has the whole result of the first case, so that the
steps behind the conversion are covered too. Inputs are drawn from fixed seeds."""

import json
from pathlib import Path

import numpy as np
from imgutils.data import load_image
from imgutils.preprocess import create_pillow_transforms
from PIL import Image
from safetensors.numpy import save_file

from make_pixels import alpha, saved, scene

FOLDER = Path(__file__).parent / "preprocess"
SIDE = 32

TENSOR = [{"type": "maybe_to_tensor"}]
IMAGENET = {"type": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"type": "normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def pad(size, color="white", interpolation="bilinear"):
    return {"type": "pad_to_size", "size": size, "background_color": color, "interpolation": interpolation}


def resize(size, interpolation="bicubic", max_size=None):
    return {"type": "resize", "size": size, "interpolation": interpolation, "max_size": max_size, "antialias": True}


def crop(size):
    return {"type": "center_crop", "size": size}


RGB = {"type": "convert_rgb", "force_background": "white"}
SQUARE = [SIDE, SIDE]

# Stages in front of the conversion to a tensor, and the normalisation behind it.
CASES = {
    "padded": ("test", [pad([40, 40]), resize(SIDE), crop(SQUARE)], IMAGENET),
    "stretched": ("stages", [RGB, resize(SQUARE)], HALF),
    "shorter-side": ("stages", [resize(36, "bilinear"), crop(SIDE)], IMAGENET),
    "shorter-side-listed": ("val", [resize([SIDE], 3), crop([SIDE])], IMAGENET),
    "longest-limited": ("test", [resize(30, "bicubic", 31), crop(SQUARE)], IMAGENET),
    "defaults": ("test", [{"type": "pad_to_size", "size": 38}, {"type": "resize", "size": SQUARE}], HALF),
    "lanczos": ("test", [resize([30, 36], "lanczos"), crop(SIDE)], HALF),
    "padded-black": ("test", [resize([36, 30], 1), pad(SIDE, "black", "bicubic")], HALF),
    "hamming": ("test", [resize(SQUARE, "Hamming")], {"type": "normalize", "mean": 0.5, "std": 0.25}),
    "padded-grey": ("test", [pad(SQUARE, 127, "bicubic")], HALF),
    "padded-colour": ("test", [pad([33, 35], [10, 200, 30], "lanczos"), crop(SIDE)], HALF),
    "padded-hex": ("test", [pad(SIDE, "#102030", "hamming")], HALF),
    "over-black": ("stages", [RGB | {"force_background": "black"}, resize(SQUARE)], HALF),
    "cropped": ("test", [crop([SIDE, 40]), crop(SIDE)], HALF),
}


def inputs():
    yield "wide.png", Image.fromarray(scene(71, 45))
    yield "tall.png", Image.fromarray(scene(26, 90, 3))
    rgba = np.dstack([scene(53, 60, 4), alpha(53, 60)])
    yield "transparent.png", Image.fromarray(rgba)
    yield "tiny.png", Image.fromarray(scene(7, 5, 5))
    yield "exact.png", Image.fromarray(scene(SIDE, SIDE, 6))
    yield "large.png", Image.fromarray(scene(301, 203, 7)).quantize(32).convert("RGB")


def main():
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    index = []
    for file, image in inputs():
        (FOLDER / file).write_bytes(saved(image, "PNG", optimize=True))
        for name, (part, stages, normalize) in CASES.items():
            picture = load_image(str(FOLDER / file), force_background=None)
            if stages[0]["type"] != "convert_rgb":
                # As its taggers do with every picture.
                picture = load_image(picture, force_background="white", mode="RGB")
            whole = create_pillow_transforms([*stages, *TENSOR, normalize])(picture)
            picture = create_pillow_transforms(stages)(picture)
            assert picture.size == (SIDE, SIDE) and picture.mode == "RGB"
            expected = f"{name}.{file}"
            (FOLDER / expected).write_bytes(saved(picture, "PNG", optimize=True))
            if not index:
                save_file({"tensor": whole}, FOLDER / "tensor.safetensors")
            preprocess = {part: [*stages, *TENSOR, normalize]}
            index.append({"file": file, "expected": expected, "preprocess": preprocess})
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
