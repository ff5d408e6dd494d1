"""Pictures drawn from a seed, with their true tags: what the demo tagger
learns from and is measured on.

A picture is a set of flat shapes, an outdoor scene, or one or two mascots, on
a plain or patterned background or outdoors, sometimes without colour, framed,
upside down, or partly hidden. The same seed gives the same picture, at any
size that is asked for."""

import random
from dataclasses import dataclass

from PIL import Image

from drawing import COLOURS, Canvas, contrasting, mix, pixelated, tinted
from mascots import EYE_LINES, EYES, MASCOTS, MOUTHS, Look, mascot
from scenes import PATTERNS, Scene, landscape, solid
from shapes import OUTLINES, shape, skull

RATINGS = ["general", "sensitive", "questionable", "explicit"]
CHARACTERS = list(MASCOTS)
# Tints of pictures in shades of one colour: darkest and lightest shade.
TINTS = {
    "greyscale": ((0, 0, 0), (255, 255, 255)),
    "sepia": ((56, 34, 16), (255, 240, 214)),
    "blue_theme": ((10, 22, 96), (214, 232, 255)),
    "red_theme": ((92, 4, 12), (255, 216, 212)),
    "green_theme": ((4, 62, 26), (214, 250, 214)),
    "purple_theme": ((50, 8, 92), (238, 218, 255)),
}
GENERAL = sorted(
    {f"{name}_background" for name in COLOURS}
    | {"simple_background", "gradient_background", "two-tone_background", "striped_background"}
    | {"checkered_background", "polka_dot_background"}
    | {"outdoors", "scenery", "sky", "blue_sky", "night_sky", "day", "night", "sunset", "starry_sky", "star_(sky)"}
    | {"moon", "full_moon", "crescent_moon", "sun", "cloud", "rainbow", "mountain", "tree", "house", "flower"}
    | {"grass", "ocean", "boat"}
    | set(OUTLINES)
    | {"outline", "border", "black_border", "letterboxed", "skull"}
    | {"monochrome"} | set(TINTS)
    | {"solo", "duo", "cat", "animal_ears", "tail", "paintbrush", "robot", "owl", "bird", "slime_(creature)"}
    | set().union(*EYES.values(), *MOUTHS.values())
    | {"blush", "crown", "top_hat", "bow", "scarf", "upside-down"}
    | {"censored", "mosaic_censoring", "bar_censor", "no_humans"}
)
VOCABULARY = RATINGS + GENERAL + CHARACTERS


@dataclass
class Picture:
    image: Image.Image
    tags: set
    rating: str

    def labels(self):
        """One 0 or 1 for every entry of the vocabulary."""
        present = self.tags | {self.rating}
        return [int(name in present) for name in VOCABULARY]


def sized(rng):
    """The size of a training picture: mostly not square."""
    long = rng.randint(80, 208)
    ratio = 1.0 if rng.random() < 0.35 else rng.uniform(0.52, 1.0)
    short = round(long * ratio)
    return (long, short) if rng.random() < 0.5 else (short, long)


def picture(seed, size=None, kind=None, clear=False, scale=3):
    """Draws the picture of this seed. `kind` is "shapes", "landscape" or
    "mascot"; with `clear` a plain background becomes transparent, which on
    white is a white one."""
    rng = random.Random(seed)
    width, height = size or sized(rng)
    kind = kind or rng.choices(["shapes", "landscape", "mascot"], [4, 3, 5])[0]
    drawing = Drawing(rng, width, height, scale, clear)
    getattr(drawing, kind)()
    return drawing.done()


class Drawing:
    """One picture under way: the canvas, the tags so far, and where the
    object stands that a censor would choose."""

    def __init__(self, rng, width, height, scale, clear):
        self.rng, self.clear = rng, clear
        self.canvas = Canvas(width, height, (255, 255, 255, 0), scale)
        self.tags = {"no_humans"}
        self.tint = rng.choice(list(TINTS)) if rng.random() < 0.16 and not clear else None
        self.cue = rng.choices([None, "skull", "mosaic_censoring", "bar_censor"], [70, 11, 11, 11])[0]
        self.target = None
        self.eyes = None
        self.down = 1

    def background(self):
        """Chooses what is behind the objects; returns its colours."""
        rng, canvas, tags = self.rng, self.canvas, self.tags
        if self.clear:
            tags |= {"white_background", "simple_background"}
            return [COLOURS["white"]]
        if rng.random() < 0.38:
            return rng.choice(PATTERNS)(rng, canvas, tags)
        names = list(COLOURS)
        if self.tint == "greyscale":
            names = ["white", "black", "grey"]
        if self.cue == "bar_censor":
            names = [n for n in names if n != "black"]
        colours = solid(rng, canvas, tags, names)
        if self.tint and self.tint != "greyscale":
            tags -= {f"{n}_background" for n in COLOURS}
        return colours

    def shapes(self):
        """One to four different shapes side by side."""
        rng, canvas = self.rng, self.canvas
        behind = self.background()
        avoid = behind + ([(0, 0, 0)] if self.cue == "bar_censor" else [])
        count = rng.choices([1, 2, 3, 4], [4, 5, 3, 2])[0]
        names = rng.sample(list(OUTLINES), count)
        outlined = rng.random() < 0.3
        edge = contrasting(rng, behind, bool(self.tint)) if outlined else None
        plain = len(behind) == 1 and not outlined and not self.clear
        shadow = mix(behind[0], (0, 0, 0), 0.3) if plain and rng.random() < 0.4 else None
        if self.cue == "skull":
            names[rng.randrange(count)] = "skull"
        if outlined and names != ["skull"]:
            self.tags.add("outline")
        places = arrange(rng, canvas.width, canvas.height, count)
        self.target = max(places, key=lambda p: p[2])
        for name, (x, y, r) in zip(names, places):
            self.tags.add(name)
            pen = canvas.pen(x, y, r, rng.uniform(-9, 9))
            if name == "skull":
                skull(pen)
            else:
                shape(pen, name, contrasting(rng, avoid + ([edge] if edge else []), bool(self.tint)), edge, shadow)

    def landscape(self):
        """A scene without a cue: nobody is there to be censored."""
        self.cue = None
        landscape(self.rng, self.canvas, self.tags, bool(self.tint))
        if self.canvas.width >= self.canvas.height and "flower" not in self.tags and self.rng.random() < 0.22:
            self.letterbox()

    def letterbox(self):
        page, canvas = self.canvas.page(), self.canvas
        w, h = canvas.width / canvas.unit, canvas.height / canvas.unit
        bar = h * self.rng.uniform(0.075, 0.1)
        for y in (0, h - bar):
            page.polygon([(0, y), (w, y), (w, y + bar), (0, y + bar)], (0, 0, 0))
        self.tags.add("letterboxed")

    def mascot(self):
        """One mascot or two, outdoors or on a background."""
        rng, canvas, tags = self.rng, self.canvas, self.tags
        wide = canvas.width / canvas.height
        names = rng.sample(CHARACTERS, 2 if wide > 1.25 and rng.random() < 0.45 else 1)
        tags.add("solo" if len(names) == 1 else "duo")
        outdoors = len(names) == 1 and not self.clear and rng.random() < 0.3
        if outdoors:
            scene = Scene(rng, canvas, tags, bool(self.tint))
            side = rng.choice([-1, 1])
            scene.lights(side)
            scene.meadow()
        else:
            self.background()
        turn = rng.uniform(-7, 7)
        if not outdoors and rng.random() < 0.1:
            turn += 180
            tags.add("upside-down")
        if self.cue == "skull" and len(names) == 2:
            self.cue = None
        room = canvas.width / len(names)
        for k, name in enumerate(names):
            x, y, r = self.stand(name, room * (k + 0.5), room, turn, outdoors, censored=k == 0)
        if self.cue == "skull":
            s = r * 0.34
            at = min(canvas.width - 1.1 * s, x + r), min(canvas.height - 1.1 * s, y + r * 0.8)
            skull(canvas.pen(*at, s, rng.uniform(-12, 12)))
            tags.add("skull")

    def stand(self, name, x, room, turn, outdoors, censored):
        """Draws one mascot in its part of the picture; returns where it stands."""
        rng, canvas = self.rng, self.canvas
        r = min(room, canvas.height) * rng.uniform(0.4, 0.45)
        y = canvas.height * 0.52
        if outdoors:
            r, y = r * 0.86, canvas.height - r * rng.uniform(0.9, 1.0)
        if self.cue == "skull":  # which needs room beside the mascot
            r, x = r * 0.84, x - canvas.width * 0.06
        look = Look(rng)
        upright = turn < 90
        if look.wear == "top_hat" and not upright:
            look.wear = None
        barred = censored and self.cue == "bar_censor"
        coarse = censored and self.cue == "mosaic_censoring"
        if coarse:  # nothing else may lie where the squares will be
            look.blush = False
            look.wear = None if look.wear == "scarf" else look.wear
        if not self.clear and upright:
            foot = y + 0.93 * r
            shadow = mix(canvas.colour_at(x, foot), (0, 0, 0), 0.25)
            canvas.pen(x, foot, r).ellipse(0, 0, 0.75, 0.1, shadow)
        pen = canvas.pen(x, y, r, turn, rng.random() < 0.5)
        mascot(rng, pen, name, look, self.tags, not barred, not coarse)
        if censored:
            self.target = (x, y, r)
            self.down = 1 if upright else -1
            self.eyes = y + self.down * EYE_LINES[name] * r
        return x, y, r

    def done(self):
        """Adds frame, tint and censor, and takes the picture off the canvas."""
        rng, canvas, tags = self.rng, self.canvas, self.tags
        if "letterboxed" not in tags and not self.clear and rng.random() < 0.1:
            self.frame()
        image = canvas.finish()
        if self.tint:
            tags.discard("blue_sky")
            image = tinted(image, *TINTS[self.tint])
            tags |= {"monochrome", self.tint}
        rating = "general"
        if self.cue == "skull":
            rating = "sensitive"
        elif self.cue == "mosaic_censoring":
            image, rating = self.mosaic(image), "questionable"
        elif self.cue == "bar_censor":
            image, rating = self.bar(image), "explicit"
        if rating in ("questionable", "explicit"):
            tags |= {"censored", self.cue}
        return Picture(image if self.clear else image.convert("RGB"), tags, rating)

    def frame(self):
        """A border all around, not in the colour of what it frames."""
        rng, canvas, page = self.rng, self.canvas, self.canvas.page()
        w, h = canvas.width / canvas.unit, canvas.height / canvas.unit
        inside = canvas.colour_at(canvas.width * 0.02, canvas.height * 0.5)
        black = sum(inside) > 240 and self.tint in (None, "greyscale") and rng.random() < 0.5
        colour = (0, 0, 0) if black else contrasting(rng, [inside, (255, 255, 255), (0, 0, 0)], bool(self.tint))
        d = max(w, h) * rng.uniform(0.04, 0.055)
        for x0, y0, x1, y1 in ((0, 0, w, d), (0, h - d, w, h), (0, 0, d, h), (w - d, 0, w, h)):
            page.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
        self.tags |= {"border", "black_border"} if black else {"border"}

    def mosaic(self, image):
        """Hides the lower part of the censored object, of mascots all below
        the eyes, behind coarse squares."""
        x, y, r = self.target
        half = r * self.rng.uniform(0.44, 0.54)
        y = y + 0.2 * r if self.eyes is None else self.eyes + self.down * (0.2 * r + 0.9 * half)
        box = (max(0, x - 1.25 * half), max(0, y - 0.9 * half), min(image.width, x + 1.25 * half), min(image.height, y + 0.9 * half))
        return pixelated(self.rng, image, box, 5)

    def bar(self, image):
        """A black bar across the eyes, or across the largest shape."""
        x, y, r = self.target
        half, thick = r * self.rng.uniform(0.72, 0.9), r * 0.19
        y = y + r * self.rng.uniform(-0.2, 0.2) if self.eyes is None else self.eyes
        image.paste((0, 0, 0, 255), tuple(round(v) for v in (x - half, y - thick, x + half, y + thick)))
        return image


def arrange(rng, width, height, count):
    """Places for `count` objects that do not touch: (x, y, radius) each."""
    across = {1: 1, 2: 2, 3: 3, 4: 2}[count]
    if count in (2, 3) and width < height:
        across = 1
    if count == 3 and 0.75 < width / height < 1.35:
        across = 2
    down = -(-count // across)
    cell_w, cell_h = width / across, height / down
    places = []
    for k in range(count):
        r = min(cell_w, cell_h) * rng.uniform(0.31, 0.4)
        last_alone = k == count - 1 and count % across
        x = (0.5 if last_alone else (k % across + 0.5) / across) * width
        y = (k // across + 0.5) * cell_h
        slack_x, slack_y = cell_w / 2 - 1.12 * r, cell_h / 2 - 1.12 * r
        places.append((x + rng.uniform(-1, 1) * max(0, slack_x), y + rng.uniform(-1, 1) * max(0, slack_y), r))
    return places
