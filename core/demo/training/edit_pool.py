"""Draws the pairs that the demo edit model is trained on.

    python core/demo/training/edit_pool.py --work WORK

writes WORK/pool-WIDTHxHEIGHT.npz for every size: both pictures of each pair, its
instruction, and how much of each square of 8 x 8 pixels each shape covers."""

import argparse
import multiprocessing
import os
from pathlib import Path

import numpy as np

from edit_pictures import SQUARE, TALL, WIDE, pair
from edit_words import EDITS, SHAPES

PAIRS = {SQUARE: 60_000, WIDE: 5_000, TALL: 5_000}
CELL = 8
# A column of `asked`: what the instruction says, as numbers; -1 for nothing.
EDIT, SHAPE, COLOUR = range(3)


def asked(edit, colours):
    shape = list(SHAPES).index(edit.shape) if edit.shape else -1
    return EDITS.index(edit.kind), shape, colours.index(edit.colour) if edit.colour else -1


def sample(job):
    from edit_words import COLOURS

    seed, size = job
    drawn = pair(seed, size)
    cover = np.stack([drawn.cover(kind, CELL) for kind in SHAPES])
    pictures = np.stack([np.asarray(drawn.before), np.asarray(drawn.after)])
    return pictures, (cover * 255).round().astype(np.uint8), asked(drawn.edit, list(COLOURS)), drawn.prompt


def draw_pool(size, count, first, workers):
    width, height = size
    pictures = np.empty((count, 2, height, width, 3), dtype=np.uint8)
    cover = np.empty((count, len(SHAPES), height // CELL, width // CELL), dtype=np.uint8)
    what, prompts = np.empty((count, 3), dtype=np.int8), []
    jobs = ((first + k, size) for k in range(count))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for k, (pictures[k], cover[k], what[k], prompt) in enumerate(pool.imap(sample, jobs, chunksize=128)):
            prompts.append(prompt)
    return {"pictures": pictures, "cover": cover, "asked": what, "prompts": np.array(prompts)}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--workers", type=int, default=os.cpu_count())
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    first = 0
    for size, count in PAIRS.items():
        np.savez(args.work / "pool-{}x{}.npz".format(*size), **draw_pool(size, count, first, args.workers))
        first += count


if __name__ == "__main__":
    main()
