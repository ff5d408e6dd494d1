"""Published models: which go by a name, where they are kept, and downloading them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple, cast

from . import _core
from ._options import Progress, StrPath
from ._progress import reporting


class KnownModel(NamedTuple):
    """A model on the hub."""

    id: str
    """Its repository on the hub: the id under which it is loaded."""
    task: Literal["tag", "edit"]
    """What it is for."""
    aliases: list[str]
    """Shorter and older names of it."""
    recommended_threshold: float | None
    """Where a tagger's author measured precision and recall to be equal, if known."""
    unsupported: str | None
    """Why it cannot be loaded, for those that cannot."""


KNOWN_MODELS: tuple[KnownModel, ...] = tuple(KnownModel(*model) for model in _core.known_models())
"""Every known model."""


def find_known(name: str, /) -> KnownModel | None:
    """The known model of this id or alias; case does not matter."""
    found = _core.find_known(name)
    return KnownModel(*found) if found is not None else None


def pull(
    model: str,
    /,
    *,
    cache_dir: StrPath | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a model, so that it can be used offline.

    A download that was cut continues where it stopped, and every file is checked. Progress counts bytes.

    Args:
        model: an id on the hub (``owner/name``, ``@revision`` optional) or a known name.
        cache_dir: the folder for downloaded models; see :func:`cache_dir`.
        endpoint: another hub.

    Returns:
        The model's folder.

    Raises:
        ModelNotFoundError: the hub has no such model, or it has no files that can be read.
        DownloadError: the network failed, or a file is damaged.
        UnsupportedError: the model cannot be loaded anyway.
        CancelledError: the callback gave ``False``.
    """
    with reporting(progress, "bytes") as callback:
        folder = os.fspath(cache_dir) if cache_dir is not None else None
        return cast(Path, _core.pull(model, folder, endpoint, callback))


def cache_dir() -> Path:
    """The folder that downloaded models are kept in: the variable ``TAGBRUSH_CACHE``, or the user's."""
    return _core.cache_dir()
