"""Draws the pictures that the demo model that generates is trained on.

    python core/demo/training/generate_pool.py --work WORK

writes WORK/generate-pool.npz: pictures, and what they show as numbers."""

import argparse
import multiprocessing
import os
from pathlib import Path

import numpy as np

from edit_words import COLOURS, SHAPES
from generate_pictures import SIDE, picture

PICTURES = 60_000
# The columns of what a picture shows; the last two are -1 where there is one shape.
BACKGROUND, SHAPE, COLOUR, SHAPE_2, COLOUR_2 = range(5)


def numbers(background, shapes):
    colours, kinds = list(COLOURS), list(SHAPES)
    row = [colours.index(background)]
    for kind, colour in shapes:
        row += [kinds.index(kind), colours.index(colour)]
    return row + [-1] * (5 - len(row))


def names(row):
    """The inverse of `numbers`."""
    colours, kinds = list(COLOURS), list(SHAPES)
    pairs = [(row[SHAPE], row[COLOUR]), (row[SHAPE_2], row[COLOUR_2])]
    return colours[row[BACKGROUND]], tuple((kinds[s], colours[c]) for s, c in pairs if s >= 0)


def sample(seed):
    image, background, shapes = picture(seed)
    return np.asarray(image), numbers(background, shapes)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--workers", type=int, default=os.cpu_count())
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pictures = np.empty((PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
    shown = np.empty((PICTURES, 5), dtype=np.int8)
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for k, (pictures[k], shown[k]) in enumerate(pool.imap(sample, range(PICTURES), chunksize=128)):
            pass
    np.savez(args.work / "generate-pool.npz", pictures=pictures, shown=shown)


if __name__ == "__main__":
    main()
