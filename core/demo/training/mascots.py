"""The mascots of the demo pictures, invented for this project, with their
expressions and the things they wear. A mascot is drawn by a pen in the box
from -1 to 1 and adds the tags of what it shows to the set it is given."""

from drawing import INK, jitter, mix, oval, rounded

EYES = {
    "open": set(),
    "^_^": {"^_^", "closed_eyes"},
    ">_<": {">_<", "closed_eyes"},
    "x_x": {"x_x"},
    "wink": {"one_eye_closed"},
}
MOUTHS = {
    "smile": {"smile", "closed_mouth"},
    ":d": {":d", "smile", "open_mouth"},
    ":o": {":o", "open_mouth"},
    ":|": {":|", "closed_mouth"},
}


class Look:
    """What a mascot shows this time."""

    def __init__(self, rng):
        self.eyes = rng.choices(list(EYES), [5, 3, 3, 2, 2])[0]
        self.mouth = rng.choices(list(MOUTHS), [3, 3, 2, 2])[0]
        self.blush = rng.random() < 0.3
        self.wear = rng.choices([None, "crown", "top_hat", "bow", "scarf"], [5, 2, 2, 2, 2])[0]

    def tags(self, eyes=True, mouth=True):
        found = set()
        if eyes:
            found |= EYES[self.eyes]
        if mouth:
            found |= MOUTHS[self.mouth]
        if self.blush:
            found.add("blush")
        if self.wear:
            found.add(self.wear)
        return found


def face(pen, x, y, s, look, ink=INK, mouth=True):
    """Eyes, mouth and cheeks; `s` is half the distance between the eyes."""
    if look.blush:
        for side in (-1, 1):
            pen.ellipse(x + 1.42 * s * side, y + 0.62 * s, 0.4 * s, 0.24 * s, (250, 110, 132))
    for side in (-1, 1):
        eye(pen, x + s * side, y, 0.48 * s, side, "^_^" if look.eyes == "wink" and side > 0 else look.eyes, ink)
    if mouth:
        lips(pen, x, y + 0.9 * s, 1.1 * s, look.mouth, ink)


def eye(pen, x, y, r, side, kind, ink):
    line = 0.5 * r
    if kind == "^_^":
        pen.stroke([(x - r, y + 0.45 * r), (x, y - 0.65 * r), (x + r, y + 0.45 * r)], ink, line)
    elif kind == ">_<":
        pen.stroke([(x + r * side, y - 0.9 * r), (x - r * side, y), (x + r * side, y + 0.9 * r)], ink, line)
    elif kind == "x_x":
        for d in (-1, 1):
            pen.stroke([(x - 0.8 * r, y - 0.8 * r * d), (x + 0.8 * r, y + 0.8 * r * d)], ink, line)
    else:
        pen.ellipse(x, y, 0.8 * r, 1.1 * r, ink)
        pen.ellipse(x - 0.22 * r, y - 0.4 * r, 0.28 * r, 0.32 * r, mix(ink, (255, 255, 255), 0.95) if sum(ink) < 400 else (20, 40, 60))


def lips(pen, x, y, s, kind, ink):
    inside, tongue = (150, 44, 56), (244, 122, 132)
    if kind == ":d":
        pen.polygon([(x - 0.62 * s, y - 0.22 * s), *oval(x, y - 0.22 * s, 0.62 * s, 0.85 * s, 0, 180, 14)], inside, ink, 0.14 * s)
        pen.ellipse(x, y + 0.36 * s, 0.3 * s, 0.18 * s, tongue)
    elif kind == ":o":
        pen.ellipse(x, y + 0.12 * s, 0.26 * s, 0.36 * s, inside, ink, 0.14 * s)
    elif kind == ":|":
        pen.stroke([(x - 0.42 * s, y), (x + 0.42 * s, y)], ink, 0.19 * s)
    else:
        pen.arc(x, y - 0.3 * s, 0.55 * s, 0.5 * s, 20, 160, ink, 0.19 * s)


def crown(pen, x, y, w):
    gold = (250, 200, 50)
    points = [(-1, 0.1), (-1.1, -0.95), (-0.5, -0.45), (0, -1.15), (0.5, -0.45), (1.1, -0.95), (1, 0.1)]
    pen.polygon([(x + a * w, y + b * w) for a, b in points], gold, (150, 100, 20), 0.16 * w)
    for k, gem in enumerate(((220, 50, 60), (60, 120, 220), (220, 50, 60))):
        pen.ellipse(x + (k - 1) * 0.55 * w, y - 0.14 * w, 0.15 * w, 0.15 * w, gem)


def top_hat(pen, x, y, w):
    felt, band = (44, 40, 56), (214, 60, 70)
    pen.polygon([(x - 0.8 * w, y), (x - 0.88 * w, y - 1.6 * w), (x + 0.88 * w, y - 1.6 * w), (x + 0.8 * w, y)], felt, (120, 116, 136), 0.09 * w)
    pen.polygon([(x - 0.8 * w, y - 0.12 * w), (x - 0.82 * w, y - 0.5 * w), (x + 0.82 * w, y - 0.5 * w), (x + 0.8 * w, y - 0.12 * w)], band)
    pen.ellipse(x, y + 0.04 * w, 1.4 * w, 0.24 * w, felt, (120, 116, 136), 0.09 * w)


def bow(pen, x, y, w):
    red, edge = (236, 62, 96), (130, 24, 50)
    for side in (-1, 1):
        pen.blob([(x, y), (x + 1.1 * w * side, y - 0.75 * w), (x + 1.3 * w * side, y), (x + 1.1 * w * side, y + 0.75 * w)], red, edge, 0.12 * w)
    pen.ellipse(x, y, 0.34 * w, 0.38 * w, mix(red, (255, 255, 255), 0.15), edge, 0.12 * w)


def scarf(pen, x, y, w):
    wool, edge = (46, 150, 136), (20, 84, 80)
    pen.polygon(rounded(x + 0.25 * w, y - 0.05, x + 0.55 * w, y + 0.5, 0.06), wool, edge, 0.045)
    pen.polygon(rounded(x - w, y - 0.13, x + w, y + 0.13, 0.12), wool, edge, 0.045)
    for k in (-0.6, -0.2, 0.2, 0.6):
        pen.stroke([(x + k * w - 0.03, y - 0.08), (x + k * w + 0.03, y + 0.08)], (250, 240, 210), 0.05)


def dress(pen, look, head, neck):
    """Puts on what is worn: `head` and `neck` are (x, y, half width)."""
    if look.wear == "crown":
        crown(pen, *head)
    elif look.wear == "top_hat":
        top_hat(pen, *head)
    elif look.wear == "bow":
        x, y, w = head
        bow(pen, x + 0.75 * w, y + 0.35 * w, 0.85 * w)
    elif look.wear == "scarf":
        scarf(pen, *neck)


def mochi(rng, pen, look):
    """A cat-eared dumpling."""
    fur, edge, pink = jitter(rng, (255, 244, 230), 5), (92, 66, 60), (250, 172, 180)
    pen.stroke([(0.72, 0.62), (0.98, 0.45), (0.94, 0.1)], edge, 0.24)
    pen.stroke([(0.72, 0.62), (0.98, 0.45), (0.94, 0.1)], fur, 0.14)
    for side in (-1, 1):
        pen.polygon([(0.2 * side, -0.5), (0.66 * side, -0.98), (0.82 * side, -0.2)], fur, edge, 0.07)
        pen.polygon([(0.38 * side, -0.5), (0.62 * side, -0.8), (0.7 * side, -0.35)], pink)
    pen.blob([(0, -0.58), (0.6, -0.42), (0.88, 0.2), (0.7, 0.78), (0, 0.88), (-0.7, 0.78), (-0.88, 0.2), (-0.6, -0.42)], fur, edge, 0.07)
    for side in (-1, 1):
        pen.ellipse(0.34 * side, 0.82, 0.2, 0.12, fur, edge, 0.06)
        for d in (-0.07, 0.07):
            pen.stroke([(0.66 * side, 0.2 + d), (0.98 * side, 0.16 + 2.2 * d)], edge, 0.035)
    face(pen, 0, 0.02, 0.34, look)
    dress(pen, look, (0, -0.5, 0.3), (0, 0.6, 0.74))
    return {"cat", "animal_ears", "tail"}, True


def brushy(rng, pen, look):
    """A stout paint brush standing on its bristles."""
    wood, edge, steel = jitter(rng, (244, 190, 92), 8), (106, 62, 34), (190, 198, 210)
    paint = jitter(rng, rng.choice([(222, 60, 70), (56, 130, 226), (70, 176, 100), (150, 86, 200)]))
    pen.polygon([(-0.5, 0.52), (0.5, 0.52), (0.44, 0.78), (0.16, 0.98), (-0.12, 0.84), (-0.4, 0.96)], paint, edge, 0.06)
    for x in (-0.25, 0, 0.25):
        pen.stroke([(x, 0.56), (x * 0.9, 0.74)], mix(paint, (0, 0, 0), 0.3), 0.045)
    pen.polygon([(-0.46, 0.3), (0.46, 0.3), (0.54, 0.58), (-0.54, 0.58)], steel, edge, 0.06)
    pen.stroke([(-0.44, 0.44), (0.44, 0.44)], (128, 136, 152), 0.05)
    pen.blob([(0, -0.98), (0.26, -0.86), (0.5, -0.4), (0.6, -0.05), (0.44, 0.3), (-0.44, 0.3), (-0.6, -0.05), (-0.5, -0.4), (-0.26, -0.86)], wood, edge, 0.06)
    pen.ellipse(0, -0.8, 0.08, 0.08, mix(edge, (0, 0, 0), 0.2))
    pen.stroke([(-0.4, -0.36), (-0.26, -0.66)], mix(wood, (255, 255, 255), 0.6), 0.07)
    face(pen, 0, -0.22, 0.28, look)
    dress(pen, look, (0, -0.72, 0.27), (0, 0.36, 0.54))
    return {"paintbrush"}, True


def pixel(rng, pen, look):
    """A robot with a screen for a face."""
    shell, edge, glow = jitter(rng, (132, 190, 204), 8), (40, 62, 84), (120, 250, 236)
    pen.stroke([(0, -0.6), (0, -0.88)], edge, 0.08)
    pen.ellipse(0, -0.88, 0.1, 0.1, (250, 90, 80), edge, 0.05)
    for side in (-1, 1):
        pen.polygon(rounded(0.82 * side - 0.12, -0.36, 0.82 * side + 0.12, 0.06, 0.06), (250, 190, 70), edge, 0.06)
        pen.stroke([(0.5 * side, 0.5), (0.84 * side, 0.7)], edge, 0.16)
        pen.polygon(rounded(0.24 * side - 0.14, 0.8, 0.24 * side + 0.14, 0.98, 0.05), shell, edge, 0.06)
    pen.polygon(rounded(-0.48, 0.34, 0.48, 0.86, 0.12), shell, edge, 0.06)
    pen.polygon(rounded(-0.8, -0.64, 0.8, 0.38, 0.2), shell, edge, 0.06)
    pen.polygon(rounded(-0.66, -0.5, 0.66, 0.26, 0.14), (22, 34, 58))
    pen.ellipse(-0.16, 0.62, 0.09, 0.09, (250, 90, 80))
    pen.ellipse(0.16, 0.62, 0.09, 0.09, (250, 210, 80))
    face(pen, 0, -0.22, 0.32, look, glow)
    dress(pen, look, (0, -0.58, 0.3), (0, 0.44, 0.56))
    return {"robot"}, True


def hoot(rng, pen, look):
    """An owl; its beak hides the mouth."""
    plume, edge, cream = jitter(rng, (158, 112, 82), 8), (72, 46, 40), (248, 226, 190)
    for side in (-1, 1):
        pen.polygon([(0.22 * side, -0.7), (0.7 * side, -0.98), (0.76 * side, -0.4)], plume, edge, 0.06)
        pen.ellipse(0.28 * side, 0.9, 0.18, 0.1, (246, 170, 60), edge, 0.05)
    pen.blob([(0, -0.8), (0.62, -0.62), (0.8, 0), (0.7, 0.62), (0, 0.9), (-0.7, 0.62), (-0.8, 0), (-0.62, -0.62)], plume, edge, 0.06)
    pen.ellipse(0, 0.42, 0.46, 0.42, cream)
    for row, count in ((0.24, 3), (0.42, 2), (0.58, 3)):
        for k in range(count):
            x = (k - (count - 1) / 2) * 0.26
            pen.arc(x, row, 0.09, 0.08, 0, 180, plume, 0.045)
    for side in (-1, 1):
        pen.blob([(0.68 * side, -0.1), (0.98 * side, 0.3), (0.72 * side, 0.66), (0.56 * side, 0.3)], mix(plume, (0, 0, 0), 0.25), edge, 0.05)
        pen.ellipse(0.34 * side, -0.26, 0.36, 0.36, cream, edge, 0.05)
    face(pen, 0, -0.26, 0.34, look, mouth=False)
    pen.polygon([(-0.14, -0.14), (0.14, -0.14), (0, 0.16)], (246, 170, 60), edge, 0.05)
    dress(pen, look, (0, -0.68, 0.3), (0, 0.2, 0.68))
    return {"owl", "bird"}, False


def inky(rng, pen, look):
    """A drop of ink."""
    blue, edge = jitter(rng, (78, 104, 216), 8), (28, 32, 96)
    pen.blob([(0.1, -0.98), (0.24, -0.62), (0.66, -0.1), (0.82, 0.36), (0.56, 0.82), (0, 0.94), (-0.56, 0.82), (-0.82, 0.36), (-0.66, -0.1), (-0.16, -0.62)], blue, edge, 0.07)
    pen.arc(0, 0.3, 0.64, 0.56, 150, 215, mix(blue, (255, 255, 255), 0.65), 0.09)
    pen.ellipse(-0.3, -0.3, 0.07, 0.09, mix(blue, (255, 255, 255), 0.65))
    face(pen, 0, 0.18, 0.32, look, (250, 250, 255))
    dress(pen, look, (0.02, -0.56, 0.27), (0, 0.68, 0.68))
    return {"slime_(creature)"}, True


MASCOTS = {
    "mochi_(tagbrush)": mochi,
    "brushy_(tagbrush)": brushy,
    "pixel_(tagbrush)": pixel,
    "hoot_(tagbrush)": hoot,
    "inky_(tagbrush)": inky,
}

# How high the eyes of each sit.
EYE_LINES = {
    "mochi_(tagbrush)": 0.02,
    "brushy_(tagbrush)": -0.22,
    "pixel_(tagbrush)": -0.22,
    "hoot_(tagbrush)": -0.26,
    "inky_(tagbrush)": 0.18,
}


def mascot(rng, pen, name, look, tags, eyes_shown=True, mouth_shown=True):
    """Draws the named mascot and adds its tags; eyes or a mouth that will be
    covered later are not tagged."""
    kind, has_mouth = MASCOTS[name](rng, pen, look)
    tags |= {name} | kind | look.tags(eyes_shown, mouth_shown and has_mouth)
