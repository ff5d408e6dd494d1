"""Draws the sample pictures of the demo edit model, with what its edits must give.

    python core/demo/training/edit_samples.py --model core/demo/edit --out core/demo/edit/samples

writes the pictures and expected.json. For every picture it lists instructions and
what must be true of the answer at any size: rectangles, in parts of the width and
the height, whose mean colour must be near a colour; `kept` names those that the
edit must leave alone. Only instructions that the model gets right are written;
the others are named, and the script fails where a picture has too few."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from edit_evaluate import edit, load
from edit_pictures import PALETTE, Edit, Scene, Shape, draw

SIDE = 256
TOLERANCE = 40  # levels per channel
GREY = 24  # levels between the channels of a grey rectangle
SOFT = PALETTE | {"sand": (238, 220, 180), "teal": (40, 140, 140)}


def shape(kind, colour, x, y, radius, turn=0):
    return Shape(kind, SOFT[colour], x, y, radius, turn)


SCENES = {
    "circle.png": Scene(SOFT["white"], (shape("circle", "blue", 0.5, 0.5, 0.3),)),
    "square.png": Scene(SOFT["yellow"], (shape("square", "purple", 0.42, 0.55, 0.26, 4),)),
    "triangle.png": Scene(SOFT["black"], (shape("triangle", "orange", 0.55, 0.48, 0.3),)),
    "pair.png": Scene(SOFT["green"], (shape("circle", "white", 0.28, 0.3, 0.2), shape("square", "red", 0.7, 0.68, 0.2))),
    "corner.png": Scene(SOFT["sand"], (shape("triangle", "red", 0.3, 0.68, 0.22), shape("circle", "teal", 0.72, 0.3, 0.2))),
}
ASKED = {
    "circle.png": [
        ("make the background yellow", Edit("background", None, "yellow")),
        ("make the circle red", Edit("recolour", "circle", "red")),
        ("make it greyscale", Edit("grey")),
        ("把圆形变成绿色", Edit("recolour", "circle", "green")),
        ("去掉圆形", Edit("remove", "circle")),
    ],
    "square.png": [
        ("change the background to blue", Edit("background", None, "blue")),
        ("把方块变成红色", Edit("recolour", "square", "red")),
        ("remove the square", Edit("remove", "square")),
        ("变成黑白", Edit("grey")),
    ],
    "triangle.png": [
        ("make the triangle blue", Edit("recolour", "triangle", "blue")),
        ("把背景变成白色", Edit("background", None, "white")),
        ("Remove the triangle.", Edit("remove", "triangle")),
    ],
    "pair.png": [
        ("make the background blue", Edit("background", None, "blue")),
        ("make the square yellow", Edit("recolour", "square", "yellow")),
        ("remove the circle", Edit("remove", "circle")),
        ("把背景变成黑色", Edit("background", None, "black")),
        ("去掉方块", Edit("remove", "square")),
        ("make the picture grey", Edit("grey")),
    ],
    "corner.png": [
        ("turn the circle purple", Edit("recolour", "circle", "purple")),
        ("把三角形变成蓝色", Edit("recolour", "triangle", "blue")),
        ("把背景改成绿色", Edit("background", None, "green")),
    ],
}


def centre(drawn):
    """A rectangle well inside a shape."""
    r = drawn.radius * (0.4 if drawn.kind != "triangle" else 0.3)
    y = drawn.y + (0.3 * drawn.radius if drawn.kind == "triangle" else 0)
    return [round(v, 3) for v in (drawn.x - r, y - r, drawn.x + r, y + r)]


def corners(scene):
    """Rectangles of background in the corners."""
    found = []
    for x in (0.03, 0.87):
        for y in (0.03, 0.87):
            near = [max(abs(x + 0.05 - s.x), abs(y + 0.05 - s.y)) - 1.1 * s.radius for s in scene.shapes]
            if min(near) > 0.08:
                found.append([x, y, round(x + 0.1, 2), round(y + 0.1, 2)])
    return found


def regions(scene, asked):
    """What must be true of the answer: (rectangle, colour, kept)."""
    for box in corners(scene):
        new = asked.kind == "background"
        yield box, PALETTE[asked.colour] if new else scene.background, not new
    for drawn in scene.shapes:
        hit = drawn.kind == asked.shape
        colour = drawn.colour
        if hit:
            colour = scene.background if asked.kind == "remove" else PALETTE[asked.colour]
        yield centre(drawn), colour, not hit


def expectations(scene, asked):
    rows = []
    for box, colour, kept in regions(scene, asked):
        if asked.kind == "grey":
            level = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
            colour, kept = (level,) * 3, False
        rows.append({"box": box, "colour": list(colour), "tolerance": TOLERANCE, "kept": kept})
    return rows


def mean_colour(picture, box):
    w, h = picture.size
    left, top, right, bottom = (round(v * n) for v, n in zip(box, (w, h, w, h)))
    return np.asarray(picture, dtype=float)[top:bottom, left:right].mean((0, 1))


def largest_gap(picture, rows, grey):
    """The largest part of what is allowed that a rectangle takes up."""
    worst = 0.0
    for row in rows:
        found = mean_colour(picture, row["box"])
        worst = max(worst, np.abs(found - row["colour"]).max() / row["tolerance"])
        if grey:
            worst = max(worst, (found.max() - found.min()) / GREY)
    return worst


def lines(expected):
    """The expectations as JSON with a line for each edit."""
    row = lambda entry: "  " + json.dumps(entry, ensure_ascii=False)
    pictures = [f" {json.dumps(name)}: [\n" + ",\n".join(map(row, rows)) + "\n ]" for name, rows in expected.items()]
    return "{\n" + ",\n".join(pictures) + "\n}\n"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3, help="seeds that every edit has to succeed with")
    args = options.parse_args()
    torch.set_num_threads(1)
    pipe, sizes = load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    expected, few = {}, []
    for name, scene in SCENES.items():
        draw(scene, (SIDE, SIDE), 3).quantize(64).save(args.out / name, optimize=True)
        with Image.open(args.out / name) as file:
            picture = file.convert("RGB")
        expected[name] = []
        for prompt, asked in ASKED[name]:
            rows = expectations(scene, asked)
            grey = asked.kind == "grey"
            gap = max(largest_gap(edit(pipe, sizes, picture, prompt, seed), rows, grey) for seed in range(args.seeds))
            print(f"{name} {prompt}: {gap:.2f} of what is allowed")
            if gap < 0.8:
                entry = {"prompt": prompt, "edit": asked.kind, "regions": rows}
                expected[name].append(entry | ({"largest_chroma": GREY} if grey else {}))
        if len(expected[name]) < 2:
            few.append(name)
    (args.out / "expected.json").write_text(lines(expected))
    sys.exit(f"too few edits succeed: {few}" if few else 0)


if __name__ == "__main__":
    main()
