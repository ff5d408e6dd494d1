"""Flat objects of the demo pictures: the named shapes and the skull, each
drawn by a pen in the box from -1 to 1."""

import math

import numpy as np

from drawing import INK, oval


def regular(corners, start=-90, radius=1.0):
    angles = np.radians(start + np.arange(corners) * 360 / corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)


def star(points=5, inner=0.45):
    outer, notch = regular(points), regular(points, -90 + 180 / points, inner)
    return np.stack([outer, notch], 1).reshape(-1, 2)


def heart():
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2], 1) / 16.5


def cross(arm=0.34):
    a = arm
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


OUTLINES = {
    "circle": oval(0, 0, 0.9, 0.9),
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "star_(symbol)": star() * 1.05,
    "heart": heart(),
    "diamond_(shape)": [(0, -1.05), (0.66, 0), (0, 1.05), (-0.66, 0)],
    "cross": cross(),
    "hexagon": regular(6, 0),
}


def shape(pen, name, fill, edge=None, shadow=None):
    """Draws a named shape, with a contour or a shadow where given."""
    outline = np.asarray(OUTLINES[name])
    if shadow is not None:
        pen.polygon(outline + 0.14, shadow)
    pen.polygon(outline, fill, edge, 0.14)


def skull(pen):
    bone, gap = (240, 234, 222), INK
    pen.polygon([(-0.45, 0.3), (0.45, 0.3), (0.4, 0.98), (-0.4, 0.98)], bone, gap, 0.07)
    pen.blob([(0, -0.98), (0.7, -0.72), (0.92, -0.1), (0.62, 0.5), (0, 0.6), (-0.62, 0.5), (-0.92, -0.1), (-0.7, -0.72)], bone, gap, 0.07)
    pen.polygon([(-0.4, 0.4), (0.4, 0.4), (0.36, 0.9), (-0.36, 0.9)], bone)
    for side in (-1, 1):
        pen.ellipse(0.4 * side, -0.05, 0.27, 0.3, gap)
        pen.stroke([(0.14 * side, 0.68), (0.14 * side, 0.92)], gap, 0.07)
    pen.polygon([(0, 0.18), (0.13, 0.42), (-0.13, 0.42)], gap)
