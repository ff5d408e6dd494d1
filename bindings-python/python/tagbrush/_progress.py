"""``progress=True``: a bar of tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._options import Progress

Callback = Callable[[int, "int | None", "float | None"], object]


@contextmanager
def reporting(progress: Progress | None, unit: str) -> Iterator[Callback | None]:
    """What the core calls, for what a user gave as ``progress``."""
    if progress is None or progress is False:
        yield None
        return
    if progress is not True:
        if not callable(progress):
            raise TypeError(f"progress is True, False or a function, not {type(progress).__name__}")
        yield progress
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        message = "progress=True needs tqdm (pip install tqdm); a function works without it"
        raise ImportError(message) from error

    with tqdm(unit=f" {unit}") as bar:

        def show(done: int, total: int | None, _left: float | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
        bar.refresh()
