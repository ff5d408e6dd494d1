"""Antialiased drawing for the demo pictures: a supersampled canvas, pens with
their own coordinates, named colours, and the filters that work on whole
pictures. Everything is measured relative to the picture, so the same drawing
can be made at any size."""

import math

import numpy as np
from PIL import Image, ImageDraw

# The colours that backgrounds are named after.
COLOURS = {
    "white": (252, 252, 252),
    "black": (18, 18, 22),
    "grey": (142, 144, 150),
    "red": (216, 52, 56),
    "orange": (242, 140, 44),
    "yellow": (250, 214, 72),
    "green": (72, 172, 96),
    "blue": (58, 122, 222),
    "purple": (128, 78, 182),
    "pink": (248, 164, 196),
}
INK = (58, 44, 52)


def jitter(rng, colour, amount=10):
    """The colour, moved a little."""
    return tuple(min(255, max(0, round(c + rng.uniform(-amount, amount)))) for c in colour)


def mix(a, b, t):
    """The colour at `t` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * t) for x, y in zip(a, b))


def luminance(colour):
    r, g, b = colour
    return 0.299 * r + 0.587 * g + 0.114 * b


def distance(a, b):
    return math.dist(a, b)


def vivid(colour):
    return max(colour) - min(colour) > 40


def contrasting(rng, avoid, by_light=False):
    """A random colour that stands out from every colour in `avoid`. With
    `by_light` it also stands out once the hues are gone; without, it has a
    hue where nothing else has one, so that the picture is not greyscale."""
    hueless = {"grey"} if by_light or any(map(vivid, avoid)) else {"grey", "white", "black"}
    names = [n for n in COLOURS if n not in hueless]
    rng.shuffle(names)

    def clearance(name):
        colour = COLOURS[name]
        gap = min((distance(colour, a) for a in avoid), default=999)
        if by_light:
            gap = min([gap] + [1.6 * abs(luminance(colour) - luminance(a)) for a in avoid])
        return gap

    clear = [n for n in names if clearance(n) > 115]
    return jitter(rng, COLOURS[clear[0] if clear else max(names, key=clearance)])


class Canvas:
    """A picture under way, `scale` times as large as it will come out."""

    def __init__(self, width, height, fill=(255, 255, 255, 255), scale=3):
        self.width, self.height, self.scale = width, height, scale
        self.unit = min(width, height)
        self._set(Image.new("RGBA", (width * scale, height * scale), fill))

    def _set(self, image):
        self.image = image
        self.draw = ImageDraw.Draw(image)

    def paint(self, shade):
        """Colours every pixel: `shade(x, y)` gets coordinates in units of the
        short side and returns an array of RGB values."""
        h, w = self.image.height, self.image.width
        step = 1 / (self.unit * self.scale)
        x = (np.arange(w, dtype=np.float32)[None, :] + 0.5) * step
        y = (np.arange(h, dtype=np.float32)[:, None] + 0.5) * step
        rgb = np.broadcast_to(shade(x, y), (h, w, 3))
        self._set(Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).convert("RGBA"))

    def pen(self, x, y, radius, turn=0.0, mirror=False):
        """A pen whose origin is at (x, y) and whose unit is `radius`, all in
        pixels of the finished picture; `turn` is in degrees, clockwise."""
        return Pen(self, x, y, radius, turn, mirror)

    def page(self):
        """A pen in units of the short side with its origin at the top left."""
        return Pen(self, 0, 0, self.unit, 0, False)

    def colour_at(self, x, y):
        """The colour drawn so far at a point of the finished picture."""
        at = (min(max(x, 0), self.width - 1) * self.scale, min(max(y, 0), self.height - 1) * self.scale)
        return self.image.getpixel(tuple(map(round, at)))[:3]

    def finish(self):
        return self.image.resize((self.width, self.height), Image.Resampling.BOX)


class Pen:
    """Draws in coordinates of its own."""

    def __init__(self, canvas, x, y, radius, turn, mirror):
        self.canvas = canvas
        self.size = radius * canvas.scale
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        flip = -1 if mirror else 1
        self.matrix = np.array([[c * flip, s * flip], [-s, c]]) * self.size
        self.origin = np.array([x, y]) * canvas.scale

    def _place(self, points):
        return [tuple(p) for p in np.asarray(points, dtype=float) @ self.matrix + self.origin]

    def polygon(self, points, fill, edge=None, width=0.05):
        """A filled polygon, with a rounded contour where `edge` is given."""
        if fill is not None:
            self.canvas.draw.polygon(self._place(points), fill=fill)
        if edge is not None:
            points = list(map(tuple, points))
            self.stroke(points + points[:2], edge, width)

    def ellipse(self, x, y, rx, ry=None, fill=None, edge=None, width=0.05):
        self.polygon(oval(x, y, rx, rx if ry is None else ry), fill, edge, width)

    def blob(self, points, fill, edge=None, width=0.05):
        """A smooth closed shape through the points."""
        self.polygon(smooth(points), fill, edge, width)

    def stroke(self, points, fill, width):
        """A line of the given width with round joints and ends."""
        placed = self._place(points)
        pixels = max(1, round(width * self.size))
        self.canvas.draw.line(placed, fill=fill, width=pixels, joint="curve")
        r = pixels / 2
        for x, y in (placed[0], placed[-1]):
            self.canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def arc(self, x, y, rx, ry, start, end, fill, width):
        """Part of an oval; degrees run clockwise from the right."""
        self.stroke(oval(x, y, rx, ry, start, end, 16), fill, width)


def oval(x, y, rx, ry, start=0, end=360, steps=40):
    whole = end - start == 360
    angles = np.radians(np.linspace(start, end, steps, endpoint=not whole))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], 1)


def smooth(points, steps=8):
    """A closed Catmull-Rom curve through the points."""
    p = np.asarray(points, dtype=float)
    a, b, c, d = (np.roll(p, k, 0)[:, None] for k in (1, 0, -1, -2))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2)


def rounded(x0, y0, x1, y1, r):
    """The outline of a box with round corners."""
    corners = [(x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180), (x1 - r, y0 + r, 270)]
    return np.concatenate([oval(x, y, r, r, a, a + 90, 7) for x, y, a in corners])


def tinted(image, dark, light):
    """The picture in shades from `dark` to `light`; transparency stays."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    rgb = np.array(dark) * (1 - grey) + np.array(light) * grey
    out = Image.fromarray(rgb.round().astype(np.uint8)).convert("RGBA")
    out.putalpha(image.getchannel("A"))
    return out


def pixelated(rng, image, box, blocks):
    """The picture with the box replaced by coarse squares that differ a little
    in lightness, so that they show on plain colours too."""
    box = tuple(round(v) for v in box)
    patch = image.crop(box)
    across = blocks
    down = max(2, round(blocks * patch.height / patch.width))
    small = np.asarray(patch.resize((across, down), Image.Resampling.BOX), dtype=np.float32).copy()
    for row in range(down):
        for column in range(across):
            sign = 1 if (row + column) % 2 else -1
            small[row, column, :3] += sign * rng.uniform(12, 40)
    small[..., 3] = 255
    coarse = Image.fromarray(small.clip(0, 255).astype(np.uint8))
    out = image.copy()
    out.paste(coarse.resize(patch.size, Image.Resampling.NEAREST), box[:2])
    return out
