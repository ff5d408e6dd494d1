"""What notebooks show: bars for tags, before and after for pictures that were made."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from ._core import Image, Tag, Tags
from .errors import TagbrushError

if TYPE_CHECKING:
    from ._options import ImageLike
    from ._pipeline import Output

ROWS = 40
"""Most bars of one list."""


def tags(found: Tags) -> str:
    """A bar for each tag, the most probable first."""
    lists = [("rating", found.ratings), ("characters", found.characters), ("tags", found.tags)]
    return "".join(_bars(title, tags) for title, tags in lists if tags)


def _bars(title: str, tags: Iterable[Tag]) -> str:
    ordered = sorted(tags, key=lambda tag: -tag.score)
    rows = "".join(
        f'<tr><td style="text-align:right">{escape(tag.name)}</td><td style="text-align:left">'
        f'<div style="display:inline-block;height:0.7em;width:{tag.score * 160:.0f}px;'
        f'background:#4c78a8"></div> {tag.score:.3f}</td></tr>'
        for tag in ordered[:ROWS]
    )
    more = len(ordered) - ROWS
    rest = f'<tr><td colspan="2">and {more} more</td></tr>' if more > 0 else ""
    return f"<table><caption>{title}</caption>{rows}{rest}</table>"


def output(made: Output) -> str:
    """The picture that was made, beside the one that it was made from."""
    before = _source(made.source)
    first = f"<td>{_picture(before)}</td><td>→</td>" if before is not None else ""
    return f"<table><tr>{first}<td>{_picture(made.image)}</td></tr></table>seed {made.seed}"


def _source(source: ImageLike | None) -> Image | None:
    """What a picture was made from, if it is still there to be shown."""
    if source is None:
        return None
    try:
        return Image(source)
    except (TagbrushError, TypeError):
        return None  # A file that is gone, or a stream that was read: the result can still be shown.


def _picture(image: Image) -> str:
    data = base64.b64encode(image.encode("png")).decode("ascii")
    return f'<img style="max-width:320px;max-height:320px" src="data:image/png;base64,{data}">'
