"""``tagbrush.Tagger``: pictures to tags, scores and embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from . import _core
from ._core import Tags
from ._options import (
    CaptionOptions,
    Errors,
    Existing,
    FolderFormat,
    ImageLike,
    LoadOptions,
    Progress,
    StrPath,
    TagOptions,
    accepts,
)
from ._progress import reporting
from ._results import check, raised
from .errors import CancelledError, TagbrushError

if TYPE_CHECKING:
    from typing import Self, TypeAlias, Unpack

    import numpy as np

    Row: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]
    Rows: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Label(NamedTuple):
    """One label of a model."""

    name: str
    """The tag as the model's author wrote it, with underscores."""
    category: int
    """What kind of tag it is: Danbooru's number, 0 for general tags, 4 for characters, 9 for ratings."""
    count: int | None
    """How many pictures had it in training, if the model says so."""
    best_threshold: float | None
    """The threshold that the model's author found best for it, if the model says so."""


class Summary(NamedTuple):
    """What a folder run did."""

    tagged: int
    """Pictures whose tags were written."""
    skipped: int
    """Pictures that had tags already and were left alone."""
    failures: list[tuple[Path, TagbrushError]]
    """Pictures that failed, in order, with the reason."""
    cancelled: bool
    """Whether the run was cancelled before its end."""


class Tagger:
    """A loaded tagger.

    All methods may be called from several threads at once, and run without the interpreter's lock.
    Pickling keeps the recipe (name and options), not the weights: they are loaded again where it is
    unpickled.

    >>> tagger = Tagger.load()
    >>> tagger.tag("owl.png").caption()  # doctest: +SKIP
    """

    def __init__(self) -> None:
        raise TypeError("load a model with Tagger.load(...)")

    _core: _core.Tagger
    _recipe: tuple[str, dict[str, Any]]

    @classmethod
    @accepts(LoadOptions)
    def load(cls, model: StrPath = "demo", /, **options: Unpack[LoadOptions]) -> Self:
        """Load a tagger.

        Args:
            model: ``"demo"`` (embedded, knows drawn shapes only), a folder, or the id or a known name
                of a published model, which is looked for in the local caches and then downloaded.
            options: see :class:`LoadOptions`.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelInvalidError: its files do not fit each other.
            UnsupportedError: its network is of another kind, or the device cannot compute in ``dtype``.
            DeviceUnavailableError: the device is not part of this build or machine.
            DownloadError: it could not be downloaded.
        """
        name, recipe = os.fspath(model), dict(options)
        return cls._of(_core.Tagger.load(name, recipe), name, recipe)

    @classmethod
    def _of(cls, tagger: _core.Tagger, name: str, recipe: dict[str, Any]) -> Self:
        self = cls.__new__(cls)
        self._core = tagger
        self._recipe = (name, recipe)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), *self._recipe)

    @accepts(TagOptions)
    def tag(self, image: ImageLike, /, **options: Unpack[TagOptions]) -> Tags:
        """The tags of one picture.

        Args:
            image: see :data:`ImageLike`.
            options: see :class:`TagOptions`.

        Raises:
            InvalidInputError: an option means nothing, or an array is not of ``uint8`` pixels.
            ImageDecodeError, ImageTooLargeError, InputOutputError: the picture cannot be read.
        """
        return self._core.tag(image, dict(options))

    @overload
    def tag_batch(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
        **options: Unpack[TagOptions],
    ) -> list[Tags]: ...
    @overload
    def tag_batch(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Literal["return"],
        progress: Progress | None = None,
        **options: Unpack[TagOptions],
    ) -> list[Tags | TagbrushError]: ...
    @accepts(TagOptions)
    def tag_batch(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Errors = "raise",
        progress: Progress | None = None,
        **options: Unpack[TagOptions],
    ) -> list[Tags] | list[Tags | TagbrushError]:
        """The tags of many pictures, in order. A batch of N gives what N single calls give.

        Args:
            images: any number of pictures; for more than fit into memory see :meth:`tag_iter`.
            errors: with ``"return"``, a picture that fails has its exception object in its place and
                costs no other one its answer; with ``"raise"``, the first failure is raised once all
                pictures were tried.
            progress: ``True`` for a bar of tqdm, or a function; see :data:`Progress`.
            options: see :class:`TagOptions`.
        """
        check(errors)
        with reporting(progress, "images") as callback:
            answers = self._core.tag_batch(images, dict(options), callback)
        return answers if errors == "return" else raised(answers)

    @overload
    def tag_iter(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Literal["raise"] = "raise",
        **options: Unpack[TagOptions],
    ) -> Iterator[Tags]: ...
    @overload
    def tag_iter(
        self, images: Iterable[ImageLike], /, *, errors: Literal["return"], **options: Unpack[TagOptions]
    ) -> Iterator[Tags | TagbrushError]: ...
    @accepts(TagOptions)
    def tag_iter(
        self, images: Iterable[ImageLike], /, *, errors: Errors = "raise", **options: Unpack[TagOptions]
    ) -> Iterator[Tags] | Iterator[Tags | TagbrushError]:
        """The tags of a stream of pictures of any length, in order, in bounded memory.

        Pictures are pulled from ``images`` on the calling thread, two batches ahead at most, and are
        decoded while the network runs. With ``errors="raise"`` the stream ends with the first failure.
        What ``images`` itself raises comes out after the answers for everything before it.
        """
        check(errors)
        return _stream(self._core.tag_iter(images, dict(options)), errors)

    @overload
    def scores(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
    ) -> Rows: ...
    @overload
    def scores(
        self, images: Iterable[ImageLike], /, *, errors: Literal["return"], progress: Progress | None = None
    ) -> list[Row | TagbrushError]: ...
    def scores(
        self, images: Iterable[ImageLike], /, *, errors: Errors = "raise", progress: Progress | None = None
    ) -> Rows | list[Row | TagbrushError]:
        """The probabilities of all labels, in the order of :attr:`labels`.

        Returns:
            ``float32`` of shape (images, labels), which numpy takes over without a copy. With
            ``errors="return"`` a list: for each picture an array of shape (labels,), or the exception.
        """
        return self._rows("scores", images, errors, progress)

    @overload
    def embed(
        self,
        images: Iterable[ImageLike],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
    ) -> Rows: ...
    @overload
    def embed(
        self, images: Iterable[ImageLike], /, *, errors: Literal["return"], progress: Progress | None = None
    ) -> list[Row | TagbrushError]: ...
    def embed(
        self, images: Iterable[ImageLike], /, *, errors: Errors = "raise", progress: Progress | None = None
    ) -> Rows | list[Row | TagbrushError]:
        """The features that the network's last layer sees: neighbours in them are similar pictures.

        Returns:
            As :meth:`scores`, with :attr:`embedding_length` columns.
        """
        return self._rows("embed", images, errors, progress)

    def _rows(
        self, wanted: str, images: Iterable[ImageLike], errors: Errors, progress: Progress | None
    ) -> Rows | list[Row | TagbrushError]:
        import numpy as np

        check(errors)
        with reporting(progress, "images") as callback:
            if errors == "raise":
                return np.asarray(self._core.rows(wanted, images, callback))
            rows = self._core.row_list(wanted, images, callback)
        return [row if isinstance(row, TagbrushError) else np.asarray(row) for row in rows]

    @overload
    def select(self, scores: Row | Sequence[float], /, **options: Unpack[TagOptions]) -> Tags: ...
    @overload
    def select(
        self, scores: Rows | Sequence[Row] | Sequence[Sequence[float]], /, **options: Unpack[TagOptions]
    ) -> list[Tags]: ...
    @accepts(TagOptions)
    def select(
        self,
        scores: Row | Rows | Sequence[float] | Sequence[Row] | Sequence[Sequence[float]],
        /,
        **options: Unpack[TagOptions],
    ) -> Tags | list[Tags]:
        """The tags that :meth:`scores` give, to try options without running the network again.

        Args:
            scores: those of one picture, or rows of them.
            options: see :class:`TagOptions`.

        Returns:
            The tags of the one picture, or a list with those of each row.

        Raises:
            InvalidInputError: an option means nothing, or there is not one score for each label.
        """
        import numpy as np

        rows = np.asarray(scores).astype(np.float32, order="C", casting="same_kind", copy=False)
        if rows.ndim < 2:
            return self._core.select(np.atleast_2d(rows), dict(options))[0]
        return self._core.select(rows, dict(options))

    @accepts(TagOptions)
    def tag_folder(
        self,
        paths: StrPath | Iterable[StrPath],
        /,
        *,
        format: FolderFormat,
        output: StrPath | None = None,
        recursive: bool = False,
        existing: Existing = "overwrite",
        full_names: bool = False,
        caption: CaptionOptions | None = None,
        errors: Errors = "raise",
        progress: Progress | None = None,
        **options: Unpack[TagOptions],
    ) -> Summary:
        """Tag the pictures of folders and write the tags to files: what ``tagbrush tag`` does.

        Runs in bounded memory, and writes each answer at once. Every output is checked before the first
        picture is read. A run that was stopped, killed or cancelled goes on with ``existing="skip"``.

        Args:
            paths: a folder or a picture, or several.
            format: ``"sidecar"`` for a .txt with the caption beside every picture, ``"json"`` for a .json
                with all scores there, ``"jsonl"`` or ``"csv"`` for one file, ``tags.jsonl`` or ``tags.csv``.
            output: the folder to write into, where files beside pictures mirror the tree; needed for
                ``"jsonl"`` and ``"csv"``.
            recursive: go into folders below.
            existing: what to do with tags that are there already. With ``"skip"`` their pictures are left
                alone, and those that failed are tried again; with ``"append"`` a .txt gets the new ones.
            full_names: name files beside pictures ``a.png.txt`` rather than ``a.txt``.
            caption: see :class:`CaptionOptions`; for ``"sidecar"`` and ``"csv"``.
            errors: with ``"raise"``, the first failure of a picture is raised at the end, or that the run
                was cancelled; with ``"return"``, the summary tells. What was written is the same.
            progress: ``True`` for a bar of tqdm, or a function; see :data:`Progress`.
            options: see :class:`TagOptions`.

        Raises:
            InvalidInputError: two pictures would be written to the same file, or an option means nothing.
            InputOutputError: a folder cannot be read, or an output cannot be written.
        """
        check(errors)
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        folder = {
            "format": format,
            "output": output,
            "recursive": recursive,
            "existing": existing,
            "full_names": full_names,
        }
        with reporting(progress, "images") as callback:
            summary = Summary(
                *self._core.tag_folder(
                    [os.fspath(path) for path in several], folder, dict(options), dict(caption or {}), callback
                )
            )
        if errors == "raise" and summary.failures:
            raise summary.failures[0][1]
        if errors == "raise" and summary.cancelled:
            raise CancelledError("cancelled")
        return summary

    def with_batch_size(self, pictures: int, /) -> Self:
        """The same tagger, sharing the model, with another number of pictures in one batch."""
        name, recipe = self._recipe
        tagger = self._core.with_batch_size(pictures)
        return self._of(tagger, name, {**recipe, "batch_size": pictures})

    @property
    def name(self) -> str:
        """What the model is called: its id on the hub, or what was given to :meth:`load`."""
        return self._core.name

    @cached_property
    def labels(self) -> list[Label]:
        """What the columns of :meth:`scores` mean."""
        return [Label(*label) for label in self._core.labels]

    @property
    def category_thresholds(self) -> dict[int, float]:
        """The thresholds by category that the model's author recommends, if the model has them."""
        return dict(self._core.category_thresholds)

    @property
    def recommended_threshold(self) -> float | None:
        """Where the author of a known model measured precision and recall to be equal."""
        return self._core.recommended_threshold

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return self._core.input_size

    @property
    def embedding_length(self) -> int:
        """The number of columns of :meth:`embed`."""
        return self._core.embedding_length

    @property
    def batch_size(self) -> int:
        """The number of pictures in one batch."""
        return self._core.batch_size

    @property
    def device(self) -> str:
        """Where the model runs; never ``"auto"``."""
        return self._core.device

    @property
    def dtype(self) -> Literal["f32", "bf16", "f16"]:
        """In which number format it runs; never ``"auto"``."""
        return self._core.dtype

    def __repr__(self) -> str:
        return f"Tagger({self.name!r}, device={self.device!r}, dtype={self.dtype!r}, labels={len(self.labels)})"


def _load(cls: type[Tagger], name: str, recipe: dict[str, Any]) -> Tagger:
    return cls.load(name, **recipe)


def _stream(stream: _core.TagStream, errors: Errors) -> Iterator[Tags | TagbrushError]:
    try:
        for answer in stream:
            if errors == "raise" and isinstance(answer, TagbrushError):
                raise answer
            yield answer
    finally:
        stream.close()
