"""``errors="raise"`` and ``errors="return"``: answers that are results or exceptions."""

from __future__ import annotations

from typing import TypeVar, cast

from ._options import Errors
from .errors import TagbrushError

T = TypeVar("T")


def check(errors: Errors) -> None:
    """Refuse anything but the two words."""
    if errors not in ("raise", "return"):
        raise ValueError(f"errors is 'raise' or 'return', not {errors!r}")


def raised(answers: list[T | TagbrushError]) -> list[T]:
    """The answers, if none of them is an exception."""
    for answer in answers:
        if isinstance(answer, TagbrushError):
            raise answer
    return cast("list[T]", answers)
