"""What stands behind the objects of the demo pictures: plain and patterned
backgrounds, and outdoor scenes with sky, weather, land and sea. Every
function adds the tags of what it draws to the set it is given."""

import math

import numpy as np

from drawing import COLOURS, INK, distance, jitter, mix, oval
from shapes import star


def solid(rng, canvas, tags, names):
    """One colour; returns the colours used."""
    name = rng.choice(names)
    colour = jitter(rng, COLOURS[name], 3 if name in ("white", "black") else 12)
    canvas.paint(lambda x, y: np.array(colour))
    tags |= {f"{name}_background", "simple_background"}
    return [colour]


def _pair(rng, pale):
    """Two colours that differ well; pale ones leave room for objects."""
    names = [n for n in COLOURS if n not in ("black", "grey")]
    while True:
        a, b = (COLOURS[n] for n in rng.sample(names, 2))
        if pale:
            a, b = mix(a, (255, 255, 255), 0.45), mix(b, (255, 255, 255), rng.choice([0.45, 0.9]))
        if distance(a, b) > (75 if pale else 130):
            return jitter(rng, a), jitter(rng, b)


def _ramp(a, b, t):
    return np.array(a) + (np.array(b) - np.array(a)) * np.clip(t, 0, 1)[..., None]


def _towards(rng, canvas):
    """A direction and a function giving how far along it a point lies, 0 to 1."""
    angle = math.radians(rng.choice([0, 90, 90, 45, 135]) + rng.uniform(-8, 8))
    c, s = math.cos(angle), math.sin(angle)
    w, h = canvas.width / canvas.unit, canvas.height / canvas.unit
    ends = [u * c * w + v * s * h for u in (0, 1) for v in (0, 1)]
    return lambda x, y: (x * c + y * s - min(ends)) / (max(ends) - min(ends))


def gradient(rng, canvas, tags):
    a, b = _pair(rng, False)
    along = _towards(rng, canvas)
    canvas.paint(lambda x, y: _ramp(a, b, along(x, y)))
    tags.add("gradient_background")
    return [a, mix(a, b, 0.5), b]


def two_tone(rng, canvas, tags):
    a, b = _pair(rng, False)
    along, cut = _towards(rng, canvas), rng.uniform(0.4, 0.6)
    canvas.paint(lambda x, y: np.where((along(x, y) < cut)[..., None], np.array(a), np.array(b)))
    tags.add("two-tone_background")
    return [a, b]


def striped(rng, canvas, tags):
    a, b = _pair(rng, True)
    angle = math.radians(rng.choice([0, 90, 45, 135]))
    pitch = rng.uniform(0.13, 0.24) * max(canvas.width, canvas.height) / canvas.unit

    def shade(x, y):
        along = (x * math.cos(angle) + y * math.sin(angle)) / pitch
        return np.where((along % 1 < 0.5)[..., None], np.array(a), np.array(b))

    canvas.paint(shade)
    tags.add("striped_background")
    return [a, b]


def checkered(rng, canvas, tags):
    a, b = _pair(rng, True)
    pitch = rng.uniform(0.09, 0.15) * max(canvas.width, canvas.height) / canvas.unit
    canvas.paint(lambda x, y: np.where(((x // pitch + y // pitch) % 2 < 1)[..., None], np.array(a), np.array(b)))
    tags.add("checkered_background")
    return [a, b]


def polka_dot(rng, canvas, tags):
    a, b = _pair(rng, True)
    pitch = rng.uniform(0.13, 0.2) * max(canvas.width, canvas.height) / canvas.unit
    radius = pitch * rng.uniform(0.24, 0.33)

    def shade(x, y):
        row = np.floor(y / pitch)
        dx = (x + (row % 2) * pitch / 2) % pitch - pitch / 2
        dy = y % pitch - pitch / 2
        return np.where((dx * dx + dy * dy < radius * radius)[..., None], np.array(b), np.array(a))

    canvas.paint(shade)
    tags.add("polka_dot_background")
    return [a, b]


PATTERNS = [gradient, two_tone, striped, checkered, polka_dot]

# Hours of the day: tags, and the colours of the sky from top to horizon.
SKIES = {
    "day": ({"day", "blue_sky"}, (74, 150, 232), (196, 228, 250)),
    "sunset": ({"sunset"}, (116, 72, 150), (255, 168, 84)),
    "night": ({"night", "night_sky"}, (14, 18, 52), (48, 60, 116)),
}


class Scene:
    """An outdoor scene: `hour`, the height of the horizon in units of the
    short side, and how everything is dimmed at that hour. A scene that will
    be shown without its colours (`colourless`) has nothing that needs them."""

    def __init__(self, rng, canvas, tags, colourless=False):
        self.rng, self.canvas, self.tags = rng, canvas, tags
        self.page = canvas.page()
        self.w, self.h = canvas.width / canvas.unit, canvas.height / canvas.unit
        self.colourless = colourless
        self.hour = rng.choices(list(SKIES), [4, 0 if colourless else 2, 4])[0]
        self.horizon = self.h * rng.uniform(0.6, 0.7)
        found, top, low = SKIES[self.hour]
        top, low = jitter(rng, top, 12), jitter(rng, low, 8)
        canvas.paint(lambda x, y: _ramp(top, low, y / self.horizon) + 0 * x[..., None])
        tags |= {"outdoors", "sky"} | found

    def lit(self, colour):
        """A colour as it looks at this hour."""
        tone, amount = {"day": (colour, 0), "sunset": ((150, 70, 80), 0.3), "night": ((16, 22, 60), 0.58)}[self.hour]
        return mix(jitter(self.rng, colour, 8), tone, amount)

    def lights(self, side):
        """Sun or moon on the given side (-1 left, 1 right), stars, rainbow, clouds."""
        rng, page = self.rng, self.page
        r = rng.uniform(0.1, 0.14) * min(1.4, max(self.w, self.h))
        x = self.w / 2 + side * self.w * rng.uniform(0.2, 0.34)
        y = r * rng.uniform(1.35, 1.8)
        if self.hour == "night":
            if rng.random() < 0.55:
                self._stars(x, y, r)
            if rng.random() < 0.8:
                self._moon(x, y, r)
        else:
            if self.hour == "day" and not self.colourless and rng.random() < 0.25:
                self._rainbow()
            if rng.random() < 0.65:
                self._sun(x, y if self.hour == "day" else y + r, r)
            if rng.random() < 0.6:
                self._clouds(-side)

    def _stars(self, moon_x, moon_y, moon_r):
        rng = self.rng
        for _ in range(rng.randint(26, 40)):
            x, y = rng.uniform(0, self.w), rng.uniform(0.02, self.horizon * 0.92)
            if math.hypot(x - moon_x, y - moon_y) > moon_r * 1.4:
                size = rng.uniform(0.014, 0.028) * max(self.w, self.h)
                self.page.polygon(star(4, 0.4) * size + (x, y), (255, 252, 214))
        self.tags |= {"starry_sky", "star_(sky)"}

    def _moon(self, x, y, r):
        light = (252, 240, 178)
        if self.rng.random() < 0.5:
            self.page.ellipse(x, y, r, r, light)
            for dx, dy, s in ((-0.3, -0.25, 0.22), (0.35, 0.15, 0.16), (-0.1, 0.45, 0.14)):
                self.page.ellipse(x + dx * r, y + dy * r, s * r, s * r, mix(light, (190, 170, 110), 0.4))
            self.tags |= {"full_moon", "moon"}
        else:
            outer = oval(x, y, r * 1.1, r * 1.1, 40, 320, 32)
            inner = oval(x + 0.62 * r, y, r * 0.74, r * 0.74, 288, 72, 32)
            self.page.polygon(np.concatenate([outer, inner]), light)
            self.tags |= {"crescent_moon", "moon"}

    def _sun(self, x, y, r):
        glow = (255, 236, 150) if self.hour == "day" else (255, 214, 130)
        for k in range(12):
            a = math.radians(k * 30)
            c, s = math.cos(a), math.sin(a)
            self.page.stroke([(x + c * r * 1.18, y + s * r * 1.18), (x + c * r * 1.5, y + s * r * 1.5)], glow, r * 0.15)
        self.page.ellipse(x, y, r, r, (255, 206, 56) if self.hour == "day" else (255, 120, 60), glow, r * 0.12)
        self.tags.add("sun")

    def _rainbow(self):
        x, y = self.w * self.rng.uniform(0.4, 0.6), self.horizon
        radius = min(self.w * 0.55, self.horizon * 0.92)
        for k, name in enumerate(("red", "orange", "yellow", "green", "blue", "purple")):
            r = radius * (1 - k * 0.055)
            self.page.arc(x, y, r, r, 180, 360, mix(COLOURS[name], (255, 255, 255), 0.12), radius * 0.062)
        self.tags.add("rainbow")

    def _clouds(self, side):
        tone = (255, 255, 255) if self.hour == "day" else (255, 214, 200)
        for k in range(self.rng.randint(1, 2)):
            s = self.rng.uniform(0.1, 0.14) * min(1.3, max(self.w, self.h))
            x = self.w / 2 + side * self.w * (0.32 - 0.3 * k) + self.rng.uniform(-0.03, 0.03)
            y = s * self.rng.uniform(1.2, 2.0) + (k % 2) * s * 0.8
            for dx, dy, r in ((-1, 0.15, 0.55), (-0.3, -0.3, 0.75), (0.5, -0.1, 0.65), (1.1, 0.2, 0.45)):
                self.page.ellipse(x + dx * s, y + dy * s, r * s, r * s, tone)
            self.page.polygon([(x - s, y + 0.1 * s), (x + 1.1 * s, y + 0.1 * s), (x + 1.1 * s, y + 0.65 * s), (x - s, y + 0.7 * s)], tone)
        self.tags.add("cloud")

    def mountains(self):
        rock, snow = self.lit((120, 128, 158)), self.lit((244, 246, 252))
        count = self.rng.randint(2, 3)
        for k in range(count):
            x = self.w * (k + self.rng.uniform(0.3, 0.7)) / count
            tall = self.horizon * self.rng.uniform(0.42, 0.58)
            half = tall * self.rng.uniform(0.8, 1.0)
            y = self.horizon + 0.07
            self.page.polygon([(x, y - tall), (x + half, y), (x - half, y)], mix(rock, (255, 255, 255), 0.08 * k))
            a, b = half * 0.32, tall * 0.68
            self.page.polygon([(x, y - tall), (x + a, y - b), (x + a * 0.4, y - b - 0.05 * tall), (x, y - b + 0.05 * tall), (x - a * 0.45, y - b - 0.05 * tall), (x - a, y - b)], snow)
        self.tags.add("mountain")

    def meadow(self):
        green = self.lit((104, 182, 84))
        hill = [(x * self.w, self.horizon - 0.05 * math.sin(x * 5 + self.rng.uniform(0, 1))) for x in np.linspace(0, 1, 12)]
        self.page.polygon(hill + [(self.w, self.h), (0, self.h)], green)
        blade = mix(green, (20, 60, 30), 0.35)
        for _ in range(round(16 * self.w * self.h)):
            x, y = self.rng.uniform(0, self.w), self.rng.uniform(self.horizon + 0.06, self.h)
            for dx in (-0.018, 0, 0.018):
                self.page.stroke([(x, y), (x + dx, y - 0.045)], blade, 0.011)
        self.tags.add("grass")

    def sea(self):
        blue = self.lit((38, 108, 178))
        deep, far = mix(blue, (0, 20, 60), 0.25), mix(blue, (255, 255, 255), 0.18)
        rows = 14
        for k in range(rows):
            y = self.horizon + (self.h - self.horizon) * k / rows
            self.page.polygon([(0, y), (self.w, y), (self.w, self.h), (0, self.h)], mix(far, deep, k / rows))
        foam = mix(blue, (255, 255, 255), 0.55)
        for _ in range(round(13 * self.w * self.h)):
            x, y, s = self.rng.uniform(0, self.w), self.rng.uniform(self.horizon + 0.05, self.h - 0.02), self.rng.uniform(0.03, 0.05)
            for k in (-1, 1):
                self.page.arc(x + k * s, y, s, s * 0.6, 20, 160, foam, 0.013)
        self.tags.add("ocean")

    def boat(self, x):
        s, y = self.rng.uniform(0.15, 0.2), self.horizon + 0.1
        self.page.polygon([(x - s, y), (x + s, y), (x + 0.65 * s, y + 0.45 * s), (x - 0.65 * s, y + 0.45 * s)], self.lit((170, 84, 50)))
        self.page.stroke([(x, y), (x, y - 1.6 * s)], self.lit((90, 60, 50)), 0.016)
        self.page.polygon([(x + 0.06 * s, y - 1.6 * s), (x + 0.9 * s, y - 0.15 * s), (x + 0.06 * s, y - 0.15 * s)], self.lit((255, 250, 240)))
        self.page.polygon([(x - 0.1 * s, y - 1.3 * s), (x - 0.7 * s, y - 0.15 * s), (x - 0.1 * s, y - 0.15 * s)], self.lit((236, 90, 80)))
        self.tags.add("boat")

    def tree(self, x):
        s = self.rng.uniform(0.16, 0.21)
        y = self.horizon + self.rng.uniform(0.1, 0.16)
        self.page.polygon([(x - 0.22 * s, y), (x + 0.22 * s, y), (x + 0.14 * s, y - 1.4 * s), (x - 0.14 * s, y - 1.4 * s)], self.lit((122, 80, 52)))
        leaf = self.lit((44, 128, 62))
        if self.rng.random() < 0.5:
            for k in range(3):
                w, base = s * (1.05 - 0.22 * k), y - s * (0.6 + 0.62 * k)
                self.page.polygon([(x, base - 1.15 * s), (x + w, base), (x - w, base)], mix(leaf, (255, 255, 255), 0.07 * k))
        else:
            for dx, dy, r in ((-0.55, -1.3, 0.62), (0.55, -1.35, 0.62), (0, -1.9, 0.75), (0, -1.3, 0.7)):
                self.page.ellipse(x + dx * s, y + dy * s, r * s, r * s, leaf)
            self.page.ellipse(x - 0.2 * s, y - 2.05 * s, 0.3 * s, 0.25 * s, mix(leaf, (255, 255, 255), 0.18))
        self.tags.add("tree")

    def house(self, x):
        s, y = self.rng.uniform(0.16, 0.2), self.horizon + self.rng.uniform(0.1, 0.14)
        wall, roof = self.lit((246, 226, 196)), self.lit((196, 70, 60))
        glass = (255, 226, 120) if self.hour == "night" else self.lit((150, 206, 240))
        self.page.polygon([(x - s, y - 1.2 * s), (x + s, y - 1.2 * s), (x + s, y), (x - s, y)], wall)
        self.page.polygon([(x + 0.4 * s, y - 2.1 * s), (x + 0.7 * s, y - 2.1 * s), (x + 0.7 * s, y - 1.4 * s), (x + 0.4 * s, y - 1.4 * s)], mix(roof, INK, 0.3))
        self.page.polygon([(x, y - 2.25 * s), (x + 1.3 * s, y - 1.15 * s), (x - 1.3 * s, y - 1.15 * s)], roof)
        self.page.polygon([(x - 0.62 * s, y - 0.75 * s), (x - 0.12 * s, y - 0.75 * s), (x - 0.12 * s, y), (x - 0.62 * s, y)], self.lit((126, 78, 50)))
        self.page.polygon([(x + 0.2 * s, y - 0.85 * s), (x + 0.72 * s, y - 0.85 * s), (x + 0.72 * s, y - 0.35 * s), (x + 0.2 * s, y - 0.35 * s)], glass, self.lit((255, 255, 255)), 0.012)
        self.tags.add("house")

    def flowers(self):
        for k in range(self.rng.randint(3, 5)):
            x = self.w * (k + self.rng.uniform(0.25, 0.75)) / 5
            y = self.h - self.rng.uniform(0.1, 0.16)
            s = self.rng.uniform(0.05, 0.064)
            self.page.stroke([(x, y), (x, y + 0.14)], self.lit((40, 110, 50)), 0.018)
            petal = self.lit(COLOURS[self.rng.choice(["red", "pink", "white", "purple"])])
            for a in range(5):
                c, d = math.cos(math.radians(72 * a - 90)), math.sin(math.radians(72 * a - 90))
                self.page.ellipse(x + c * s * 0.7, y + d * s * 0.7, s * 0.55, s * 0.55, petal)
            self.page.ellipse(x, y, s * 0.45, s * 0.45, self.lit((250, 206, 60)))
        self.tags.add("flower")


def landscape(rng, canvas, tags, colourless=False):
    """A whole outdoor scene without anybody in it."""
    scene = Scene(rng, canvas, tags, colourless)
    tags.add("scenery")
    scene.lights(rng.choice([-1, 1]))
    if rng.random() < 0.4:
        scene.mountains()
    if rng.random() < 0.35:
        scene.sea()
        if rng.random() < 0.5:
            scene.boat(scene.w * rng.uniform(0.25, 0.75))
        return
    scene.meadow()
    spots = [scene.w * k for k in (0.2, 0.5, 0.8)]
    rng.shuffle(spots)
    if rng.random() < 0.45:
        scene.house(spots.pop())
    if rng.random() < 0.55:
        for x in spots[: rng.randint(1, 2)]:
            scene.tree(x)
    if rng.random() < 0.45:
        scene.flowers()
