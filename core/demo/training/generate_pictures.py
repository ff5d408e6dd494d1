"""Pictures for the demo model that generates, drawn from a seed: one or two flat
shapes on a plain background, in exactly the colours that their prompts name."""

import random
import zlib

from drawing import distance
from edit_pictures import PALETTE, Scene, Shape, draw
from edit_words import COLOURS, SHAPES

SIDE = 64
HELD_OUT = 10  # one of so many combinations of shapes and colours is never trained on
NAMES = {colour: name for name, colour in PALETTE.items()}


def combination(rng):
    """A background and one or two shapes with colours, as a prompt names them."""
    background, *colours = rng.sample(list(COLOURS), 3)
    if rng.random() < 0.2:
        colours[1] = colours[0]
    kinds = rng.sample(list(SHAPES), 2)
    return background, tuple(zip(kinds, colours))[: 2 if rng.random() < 0.6 else 1]


def is_held_out(background, shapes):
    """Whether a combination is kept for the evaluation, in whatever order it is named."""
    text = " ".join([background, *sorted(f"{kind}-{colour}" for kind, colour in shapes)])
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def wanted(seed, held_out, count=None):
    """The combination of this seed, out of those that are held out or the others; of
    so many shapes where it matters."""
    rng = random.Random(seed)
    while True:
        found = combination(rng)
        if is_held_out(*found) == held_out and count in (None, len(found[1])):
            return found


def placed(rng, background, shapes):
    """A scene of them, apart from each other and the edge."""
    while True:
        found = []
        for kind, colour in shapes:
            radius = rng.uniform(0.18, 0.32 if len(shapes) == 1 else 0.24)
            reach = radius * 1.12
            x, y = (rng.uniform(reach, 1 - reach) for _ in range(2))
            if any(distance((x, y), (s.x, s.y)) < (radius + s.radius) * 1.25 for s in found):
                break
            found.append(Shape(kind, PALETTE[colour], x, y, radius, rng.uniform(-6, 6)))
        else:
            return Scene(PALETTE[background], tuple(found))


def picture(seed):
    """A picture to train on and the combination that it shows."""
    background, shapes = wanted(seed, False)
    scene = placed(random.Random(f"place {seed}"), background, shapes)
    return draw(scene, (SIDE, SIDE), 3), background, shapes
