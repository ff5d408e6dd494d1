"""Whether a picture shows what its prompt asks for: the background, and exactly the
shapes with their colours, wherever they are."""

from functools import lru_cache

import numpy as np

from edit_judge import is_colour, shrunk
from edit_pictures import PALETTE, Scene, Shape, coverage
from edit_words import SHAPES

SMALLEST = 40  # pixels of a 64 x 64 picture that are a shape and no speck
SPECK = 8  # more pixels than this that are no shape are an error
LIKE = 0.8  # how much of the union of a shape and its ideal both have
TURNS = (-6, -3, 0, 3, 6)


def parts(mask):
    """The connected parts of a mask, the largest first."""
    left, found = mask.copy(), []
    while left.any():
        part = np.zeros_like(left)
        part[tuple(np.argwhere(left)[0])] = True
        while True:
            grown = part.copy()
            grown[1:] |= part[:-1]
            grown[:-1] |= part[1:]
            grown[:, 1:] |= part[:, :-1]
            grown[:, :-1] |= part[:, 1:]
            grown &= left
            if (grown == part).all():
                break
            part = grown
        found.append(part)
        left &= ~part
    return sorted(found, key=lambda part: -part.sum())


@lru_cache(maxsize=None)
def ideal(kind, turn, area):
    """A shape of about this area in the middle of a picture of 128 x 128."""
    radius = 0.25
    for _ in range(3):
        shape = Shape(kind, (255,) * 3, 0.5, 0.5, radius, turn)
        mask = coverage(Scene((0, 0, 0), (shape,)), kind, (128, 128)) > 0.5
        radius *= (area / mask.sum()) ** 0.5
    return centred(mask)


def centred(mask):
    """The mask with its centre of gravity in the middle of 128 x 128."""
    at = np.argwhere(mask)
    at = at + np.round(63.5 - at.mean(0)).astype(int)
    out = np.zeros((128, 128), dtype=bool)
    at = at[((at >= 0) & (at < 128)).all(1)]
    out[at[:, 0], at[:, 1]] = True
    return out


def kind_of(mask):
    """The shape that a mask is most like, if it is like one."""
    found, area = centred(mask), int(mask.sum())
    best = 0.0, None
    for kind in SHAPES:
        for turn in TURNS:
            true = ideal(kind, turn, area)
            best = max(best, ((found & true).sum() / (found | true).sum(), kind))
    return best[1] if best[0] >= LIKE else None


def judge(picture, background, shapes):
    """(background, count, shapes, colours): what is right of a 64 x 64 picture."""
    pixels = np.asarray(picture, dtype=float)
    ground = np.array(PALETTE[background], dtype=float)
    far = np.linalg.norm(pixels - ground, axis=-1)
    # Half of the way to the nearest colour of a shape, as the rim of a shape is.
    reach = min(np.linalg.norm(ground - PALETTE[colour]) for _, colour in shapes) / 2
    found = parts(far > reach)
    large = [part for part in found if part.sum() >= SMALLEST]
    specks = sum(part.sum() for part in found if part.sum() < SMALLEST)
    free = shrunk(far <= reach, 2)
    right_ground = bool(free.any() and is_colour(pixels[free].mean(0), background))
    count = len(large) == len(shapes) and specks <= SPECK
    kinds = [kind_of(part) for part in large]
    right_kinds = count and sorted(map(str, kinds)) == sorted(kind for kind, _ in shapes)
    asked, right_colours = dict(shapes), right_kinds
    if right_kinds:
        for part, kind in zip(large, kinds):
            inside = shrunk(part, 2) if shrunk(part, 2).any() else part
            right_colours &= bool(is_colour(pixels[inside].mean(0), asked[kind]))
    return right_ground, bool(count), bool(right_kinds), bool(right_colours)


def is_right(picture, background, shapes):
    return all(judge(picture, background, shapes))
