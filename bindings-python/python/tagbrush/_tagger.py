"""``tagbrush.Tagger``: pictures to tags, scores and embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from . import _core
from ._core import Tags
from ._options import Errors, ImageLike, LoadOptions, Progress, StrPath, TagOptions, accepts
from ._progress import reporting
from ._results import check, raised
from .errors import TagbrushError

if TYPE_CHECKING:
    from typing import Self, TypeAlias, Unpack

    import numpy as np
    from numpy.typing import NDArray

    Rows: TypeAlias = NDArray[np.float32]


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
    ) -> list[Rows | TagbrushError]: ...
    def scores(
        self, images: Iterable[ImageLike], /, *, errors: Errors = "raise", progress: Progress | None = None
    ) -> Rows | list[Rows | TagbrushError]:
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
    ) -> list[Rows | TagbrushError]: ...
    def embed(
        self, images: Iterable[ImageLike], /, *, errors: Errors = "raise", progress: Progress | None = None
    ) -> Rows | list[Rows | TagbrushError]:
        """The features that the network's last layer sees: neighbours in them are similar pictures.

        Returns:
            As :meth:`scores`, with :attr:`embedding_length` columns.
        """
        return self._rows("embed", images, errors, progress)

    def _rows(
        self, wanted: str, images: Iterable[ImageLike], errors: Errors, progress: Progress | None
    ) -> Rows | list[Rows | TagbrushError]:
        import numpy as np

        check(errors)
        with reporting(progress, "images") as callback:
            if errors == "raise":
                return np.asarray(self._core.rows(wanted, images, callback))
            rows = self._core.row_list(wanted, images, callback)
        return [row if isinstance(row, TagbrushError) else np.asarray(row) for row in rows]

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
