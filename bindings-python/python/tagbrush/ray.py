"""Tagging datasets on many machines: a class for ``map_batches`` of Ray Data, and for Spark's
``mapInPandas``. Needs neither of them to be imported.

    import ray, tagbrush.ray

    photos = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)
    tagged = photos.map_batches(
        tagbrush.ray.TagImages,
        fn_constructor_kwargs={"model": "wd-vit-tagger-v3", "keep": ["path"]},
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=4),
    )
    tagged.write_parquet("tags")

A row is two short arrays, not a dict of ten thousand names: the numbers of the labels that were kept and
their scores. ``labels(model)`` says what the numbers mean. A picture that fails has a text in the column
``error`` and costs no other one its tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from . import _core
from ._options import ImageLike, LoadOptions, StrPath, TagOptions
from ._tagger import Label, Tagger
from .errors import InvalidInputError, TagbrushError

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["TagImages", "labels"]


class _Options(LoadOptions, TagOptions, total=False):
    """All options of loading and of tagging."""


class Columns(TypedDict):
    """What :class:`TagImages` adds to a batch; all of one length."""

    tag_index: np.ndarray
    """For each picture the numbers of its characters and tags: an array of ``int32``."""
    tag_score: np.ndarray
    """Their probabilities: an array of ``float32`` for each picture."""
    rating: np.ndarray
    """The most probable rating; empty if there is none."""
    error: np.ndarray
    """``"code: message"`` of the picture that failed; empty for all others. Texts throughout, so that each
    part of a dataset has the same types, also one without a failure."""


class TagImages:
    """Tags the pictures of a column of a batch.

    The model is loaded once, by the worker that makes the object.

    Args:
        model: as :meth:`Tagger.load`.
        column: the column with the pictures: bytes of files, paths, or arrays; see :data:`ImageLike`.
        keep: the columns of the batch that go into the answer as they are.
        options: of :class:`LoadOptions` and :class:`TagOptions`.
    """

    def __init__(
        self,
        model: StrPath = "demo",
        *,
        column: str = "bytes",
        keep: Sequence[str] = (),
        **options: Unpack[_Options],
    ) -> None:
        if isinstance(keep, str):
            raise TypeError("keep is a list of names of columns")
        added = set(Columns.__annotations__).intersection(keep)
        if added:
            raise InvalidInputError(f"the columns {sorted(added)} are made here and cannot be kept")
        self.column: str = column
        self.keep: list[str] = list(keep)
        of_loading = LoadOptions.__annotations__.keys()
        load: dict[str, Any] = {key: value for key, value in options.items() if key in of_loading}
        self._options: dict[str, Any] = {key: value for key, value in options.items() if key not in load}
        self._tagger = Tagger.load(model, **load)
        # A wrong option is found here, and not in every row.
        self._tagger.tag_batch([], **self._options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The kept columns and :class:`Columns` for a batch of columns (``batch_format="numpy"``)."""
        try:
            images = batch[self.column]
        except KeyError:
            message = f"the batch has no column {self.column!r}; it has {sorted(batch)}"
            raise InvalidInputError(message, {"field": "column"}) from None
        return {name: batch[name] for name in self.keep} | dict(self._tag(images))

    def _tag(self, images: Iterable[ImageLike | None]) -> Columns:
        rows = list(images)
        # A row without a picture is a fault of the row; an object that is no picture is one too, here.
        answers: list[_core.Tags | TagbrushError] = [_missing(row) for row in rows]
        there = [i for i, row in enumerate(rows) if row is not None]
        found = self._tagger.tag_batch([rows[i] for i in there], errors="return", **self._options)
        for i, answer in zip(there, found, strict=True):
            answers[i] = answer
        columns = {name: np.empty(len(rows), dtype=object) for name in Columns.__annotations__}
        for i, answer in enumerate(answers):
            kept: list[_core.Tag] = []
            columns["rating"][i] = columns["error"][i] = ""
            if isinstance(answer, TagbrushError):
                columns["error"][i] = f"{answer.code}: {answer}"
            else:
                kept = [*answer.characters, *answer.tags]
                columns["rating"][i] = answer.rating.name if answer.rating else ""
            columns["tag_index"][i] = np.array([tag.index for tag in kept], dtype=np.int32)
            columns["tag_score"][i] = np.array([tag.score for tag in kept], dtype=np.float32)
        return columns  # type: ignore[return-value]  # exactly its names


def _missing(_row: object) -> TagbrushError:
    return InvalidInputError("the row has no picture", {"field": "image"})


def labels(model: StrPath = "demo", /, **options: Unpack[LoadOptions]) -> list[Label]:
    """What the numbers in ``tag_index`` mean."""
    return Tagger.load(model, **options).labels
