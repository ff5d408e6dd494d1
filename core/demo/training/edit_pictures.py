"""Pictures for the demo edit model, drawn from a seed, before and after an edit.

A picture has one or two flat shapes on a plain background. It is drawn at any
size, smooth or not, and then scaled to the size that the model works at, as the
pipeline does it with the pictures of its user."""

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from drawing import COLOURS as SOFT
from drawing import Canvas, distance, jitter, mix, vivid
from edit_words import COLOURS, SHAPES, instruction
from shapes import OUTLINES

# What an edit's colours are exactly; the pictures it starts from vary.
PALETTE = {name: SOFT[name] for name in COLOURS}
PURE = {
    "red": (255, 0, 0),
    "orange": (255, 150, 0),
    "yellow": (255, 235, 0),
    "green": (0, 150, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
SQUARE, WIDE, TALL = (64, 64), (80, 48), (48, 80)  # sizes the model works at
HELD_OUT = 1_000_000_000  # first seed of the pictures that are never trained on
CLEAR = 100  # how far a shape's colour is from what it lies on


@dataclass(frozen=True)
class Shape:
    """A shape; position in parts of the picture, radius in parts of its short side."""

    kind: str
    colour: tuple
    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True)
class Scene:
    background: tuple
    shapes: tuple

    def shape(self, kind):
        return next(shape for shape in self.shapes if shape.kind == kind)


@dataclass(frozen=True)
class Edit:
    kind: str
    shape: str | None = None
    colour: str | None = None

    def applied(self, scene):
        """The scene behind the edit; `grey` is left to the picture."""
        if self.kind == "background":
            return replace(scene, background=PALETTE[self.colour])
        if self.kind == "remove":
            return replace(scene, shapes=tuple(s for s in scene.shapes if s.kind != self.shape))
        if self.kind == "recolour":
            new = PALETTE[self.colour]
            return replace(scene, shapes=tuple(replace(s, colour=new) if s.kind == self.shape else s for s in scene.shapes))
        return scene


@dataclass
class Pair:
    """A picture before and after an edit, at the size the model works at."""

    scene: Scene
    edit: Edit
    language: str
    prompt: str
    before: Image.Image
    after: Image.Image

    def cover(self, kind, shrink=1):
        """How much of each pixel, or square of pixels, a shape covers."""
        return coverage(self.scene, kind, self.before.size, shrink)


def any_colour(rng):
    if rng.random() < 0.2:
        return tuple(rng.randint(0, 255) for _ in range(3))
    name = rng.choice(list(PALETTE))
    pure = 0 if rng.random() < 0.4 else rng.random() ** 0.5
    return jitter(rng, mix(PALETTE[name], PURE[name], pure), 0 if rng.random() < 0.3 else 12)


def scene(rng, aspect=1.0):
    """One or two shapes of different kinds, apart from each other and the edge."""
    count = 2 if rng.random() < 0.6 else 1
    while True:
        background = any_colour(rng)
        kinds = rng.sample(list(SHAPES), count)
        shapes = []
        same = rng.random() < 0.25
        for kind in kinds:
            radius = rng.uniform(0.17, 0.34 if count == 1 else 0.24)
            reach = radius * 1.12
            wide, tall = max(aspect, 1), max(1 / aspect, 1)
            if 2 * reach > 0.96 * min(wide, tall):
                break
            x, y = rng.uniform(reach, wide - reach), rng.uniform(reach, tall - reach)
            if any(distance((x, y), (s.x * wide, s.y * tall)) < (radius + s.radius) * 1.22 for s in shapes):
                break
            colour = shapes[0].colour if same and shapes else any_colour(rng)
            if distance(colour, background) < CLEAR:
                break
            shapes.append(Shape(kind, colour, x / wide, y / tall, radius, rng.uniform(-8, 8)))
        if len(shapes) == count:
            return Scene(background, tuple(shapes))


def choose(rng, drawn, kind=None):
    """An edit that makes a difference and leaves the shapes visible, if found."""
    for _ in range(40):
        what = kind or rng.choices(["background", "recolour", "grey", "remove"], [0.3, 0.43, 0.07, 0.2])[0]
        shape = rng.choice(drawn.shapes)
        colour = rng.choice(list(PALETTE))
        new = PALETTE[colour]
        if what == "grey" and any(vivid(c) for c in (drawn.background, *(s.colour for s in drawn.shapes))):
            return Edit(what)
        if what == "remove":
            return Edit(what, shape.kind)
        if what == "background" and all(distance(new, s.colour) > CLEAR for s in drawn.shapes) and distance(new, drawn.background) > 60:
            return Edit(what, None, colour)
        if what == "recolour" and distance(new, drawn.background) > CLEAR and distance(new, shape.colour) > 60:
            return Edit(what, shape.kind, colour)
    return None


def draw(drawn, size, scale):
    """The scene as a picture of this size."""
    canvas = Canvas(*size, (*drawn.background, 255), scale)
    for shape in drawn.shapes:
        pen = canvas.pen(shape.x * size[0], shape.y * size[1], shape.radius * canvas.unit, shape.turn)
        pen.polygon(OUTLINES[shape.kind], shape.colour)
    return canvas.finish().convert("RGB")


def coverage(drawn, kind, size, shrink=1):
    """How much of each pixel a shape covers, from 0 to 1, rows by columns."""
    plain = Scene((0, 0, 0), tuple(replace(s, colour=(255,) * 3) for s in drawn.shapes if s.kind == kind))
    small = draw(plain, size, 2).getchannel("R").reduce(shrink)
    return np.asarray(small, dtype=np.float32) / 255


def fitted(image, size):
    return image.resize(size, Image.Resampling.LANCZOS)


def drawn_size(rng, size):
    """The size a picture is drawn at, before it is scaled to `size`, and its
    aspect; those within the limits are all scaled to `size`."""
    if size == SQUARE:
        aspect = 1.0 if rng.random() < 0.8 else rng.uniform(0.88, 1.14)
    else:
        aspect = rng.choice([5 / 3, 1.5, 4 / 3, rng.uniform(1.33, 1.75)])
        aspect = aspect if size == WIDE else 1 / aspect
    short = rng.choice([48, 64, 64, 96, 128, 160, 192, 256])
    return (round(short * max(aspect, 1)), round(short * max(1 / aspect, 1)))


def pair(seed, size=SQUARE, kind=None, language=None):
    """The pair of this seed."""
    rng = random.Random(seed)
    large = drawn_size(rng, size)
    edit = None
    while edit is None:
        drawn = scene(rng, large[0] / large[1])
        edit = choose(rng, drawn, kind)
    language = language or rng.choice(["en", "zh"])
    prompt = instruction(rng, language, edit.kind, edit.shape, edit.colour)
    scale = 1 if max(large) > 150 else rng.choice([1, 3, 3])
    before = fitted(draw(drawn, large, scale), size)
    if edit.kind == "grey":
        after = before.convert("L").convert("RGB")
    else:
        after = fitted(draw(edit.applied(drawn), large, scale), size)
    return Pair(drawn, edit, language, prompt, before, after)
