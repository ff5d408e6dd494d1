"""Draws the sample pictures and checks that the demo tagger gets them right.

    python core/demo/training/samples.py --model core/demo/tagger --out core/demo/images

The samples are pictures of the generator that the model never trained on, chosen
to look well and to show different labels, and, so that examples and tests can
rely on them, chosen among those whose labels the model gets right in full.
Every picture is checked as it was saved, with the weights as they are stored."""

import argparse
import csv
import json
import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from pictures import CHARACTERS, picture
from preprocess import pixels

THRESHOLD = 0.35
# File, seed, size, kind, transparent, and how it is saved.
SAMPLES = [
    ("shapes.png", 1723, (400, 300), "shapes", False, "P", {"optimize": True}),
    ("rainbow.jpg", 501, (480, 300), "landscape", False, None, {"quality": 88}),
    ("night.webp", 487, (300, 400), "landscape", False, None, {"quality": 88}),
    ("sunset.jpg", 605, (420, 320), "landscape", False, None, {"quality": 88, "progressive": True}),
    ("mochi.png", 1675, (320, 320), "mascot", False, "P", {"optimize": True}),
    ("robot.jpg", 3283, (420, 360), "mascot", False, None, {"quality": 88}),
    ("duo.webp", 22, (480, 280), "mascot", False, None, {"lossless": True}),
    ("owl.png", 590, (260, 300), "mascot", False, "L", {"optimize": True}),
    ("sticker.png", 233, (280, 280), "mascot", True, None, {"optimize": True}),
    ("skull.jpg", 494, (320, 320), "mascot", False, None, {"quality": 88}),
    ("mosaic.webp", 279, (300, 360), "mascot", False, None, {"quality": 88}),
    ("bar.gif", 5660, (300, 300), "mascot", False, "P", {}),
]


def tagger(folder):
    """The model of a folder and its labels as (name, category)."""
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(config["architecture"], num_classes=config["num_classes"], **config["model_args"])
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    with open(folder / "selected_tags.csv", newline="") as file:
        labels = [(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    return model.eval(), labels, config["pretrained_cfg"]["input_size"][1]


@torch.no_grad()
def scores(model, side, path):
    """Probabilities of every label for a saved picture."""
    with Image.open(path) as image:
        x = torch.from_numpy(pixels(image, side)).float()
    return model((x[None] / 255 - 0.5) / 0.5).sigmoid()[0]


def found(labels, values):
    """What the values say at the threshold: rating, characters, tags."""
    rating = max((v, n) for (n, category), v in zip(labels, values) if category == 9)[1]
    above = lambda wanted: sorted(n for (n, category), v in zip(labels, values) if category == wanted and v > THRESHOLD)
    return {"rating": rating, "characters": above(4), "tags": above(0)}


def truth(drawn):
    return {
        "rating": drawn.rating,
        "characters": sorted(drawn.tags & set(CHARACTERS)),
        "tags": sorted(drawn.tags - set(CHARACTERS)),
    }


def save(drawn, path, mode, options):
    if mode == "P":
        drawn.image.quantize(64).save(path, **options)
    else:
        drawn.image.convert(mode or drawn.image.mode).save(path, **options)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, labels, side = tagger(args.model)
    expected, wrong = {}, 0
    for name, seed, size, kind, clear, mode, how in SAMPLES:
        drawn = picture(seed, size, kind, clear)
        save(drawn, args.out / name, mode, how)
        expected[name] = truth(drawn)
        values = scores(model, side, args.out / name)
        given = found(labels, values.tolist())
        margin = min(abs(v - THRESHOLD) for (_, category), v in zip(labels, values.tolist()) if category != 9)
        print(f"{name}: {(args.out / name).stat().st_size} bytes, nearest to the threshold {margin:.3f}")
        if given != expected[name]:
            wrong += 1
            differ = set(given["tags"] + given["characters"]) ^ set(expected[name]["tags"] + expected[name]["characters"])
            print(f"  WRONG: {given['rating']} for {expected[name]['rating']}, {sorted(differ)}")
    (args.out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
