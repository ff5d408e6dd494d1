"""``tagbrush.EditPipeline``: pictures changed by instruction."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

from . import _core
from ._lora import Lora, lora_files
from ._options import (
    EditLoadOptions,
    EditOptions,
    Errors,
    ImageLike,
    OnPreview,
    Progress,
    StrPath,
    accepts,
)
from ._pipeline import Output, Pipeline, Work, batch, one_by_one
from .errors import TagbrushError

if TYPE_CHECKING:
    from typing import Self, Unpack


@dataclass(frozen=True, eq=False)
class EditRequest:
    """One edit: its pictures are references of one output. Many edits are a list of these."""

    images: ImageLike | Sequence[ImageLike]
    """One picture, or a list. The first models take exactly one; from Qwen-Image-Edit-2509 on several,
    of which the last gives an output its proportions."""
    prompt: str
    """The instruction."""
    negative_prompt: str | None = " "
    """What to move away from. The blank one is what the models' authors use; ``None`` switches guidance
    off, whatever its scale is."""
    seed: int | None = None
    """The seed of its first variant, in place of that of the call."""

    @classmethod
    def for_each(cls, images: Iterable[ImageLike], prompt: str, negative_prompt: str | None = " ") -> list[Self]:
        """The same edit of each of many pictures: one request for each."""
        return [cls(image, prompt, negative_prompt) for image in images]

    def _parts(self) -> _core._EditRequest:
        # What is in `images` is checked when it is read.
        images = list(self.images) if isinstance(self.images, (list, tuple)) else [self.images]
        return cast("list[ImageLike]", images), self.prompt, self.negative_prompt, self.seed


class Edited(Output):
    """A picture that an edit made. A notebook shows it beside what it was made from."""


class EditPipeline(Pipeline):
    """A loaded edit model.

    May be used from several threads; calls are answered one after the other, because a batch is how many
    edits are made at once. Runs without the interpreter's lock, and Ctrl-C stops it within a step.
    Pickling keeps the recipe (name, options and LoRAs), not the weights.
    """

    _core: _core.EditPipeline
    _loras: list[tuple[str, float]]

    @classmethod
    @accepts(EditLoadOptions)
    def load(cls, model: StrPath = "demo", /, **options: Unpack[EditLoadOptions]) -> Self:
        """Load an edit model.

        Args:
            model: ``"demo"`` (embedded, edits flat shapes only), a folder in the layout of diffusers, or the
                id or a known name of a published model (Qwen-Image-Edit and its successors), which is
                looked for in the local caches and then downloaded.
            options: see :class:`EditLoadOptions`.

        Raises:
            ModelNotFoundError: there is no such model, or a file of it is missing.
            ModelInvalidError: its files are damaged or do not fit each other.
            UnsupportedError: it is a model of another kind, or the device cannot compute in ``dtype``.
            OutOfMemoryError: it cannot run in ``max_memory``.
            DeviceUnavailableError, DownloadError: as :meth:`Tagger.load`.
        """
        self = cls.__new__(cls)
        self._recipe = (os.fspath(model), dict(options))
        self._core = _core.EditPipeline.load(*self._recipe)
        self._loras = []
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), *self._recipe, self._loras)

    @accepts(EditOptions)
    def edit(
        self,
        images: ImageLike | Sequence[ImageLike],
        prompt: str,
        /,
        *,
        negative_prompt: str | None = " ",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Edited]:
        """The variants of one edit: ``n`` pictures.

        Args:
            images: the picture to edit, or a list of references of this one edit. To edit each of many
                pictures, see :meth:`edit_batch` and :meth:`EditRequest.for_each`.
            prompt: the instruction.
            negative_prompt: see :class:`EditRequest`.
            progress: ``True`` for a bar of tqdm, or a function of (steps done, steps in all, seconds
                left) that cancels by giving ``False``.
            preview: a function of a :class:`Preview`, called after each step of each picture.
            options: see :class:`EditOptions`.

        Raises:
            InvalidInputError: an option means nothing.
            ImageDecodeError, ImageTooLargeError, InputOutputError: a picture cannot be read.
            OutOfMemoryError: there is not enough memory.
            CancelledError: a callback gave ``False``.
        """
        request = EditRequest(images, prompt, negative_prompt)
        return batch(self._work(self._core.edit_batch, [request], preview, options), "raise", progress)

    @overload
    def edit_batch(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Edited]: ...
    @overload
    def edit_batch(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Literal["return"],
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Edited | TagbrushError]: ...
    @accepts(EditOptions)
    def edit_batch(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Errors = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Edited] | list[Edited | TagbrushError]:
        """Many edits in one denoising run, whatever their sizes, numbers of references and prompts are.

        Each output is what its request would give alone. ``n`` outputs for each request, first all
        variants of the first request.

        Args:
            requests: see :class:`EditRequest`.
            errors: with ``"return"``, a request that fails has exception objects in its places and costs
                no other one its output, and after a cancel what was made is kept; with ``"raise"``, the
                first failure is raised once all requests were tried.
            progress, preview: as :meth:`edit`.
            options: see :class:`EditOptions`.
        """
        return batch(self._work(self._core.edit_batch, requests, preview, options), errors, progress)

    @overload
    def edit_iter(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> Iterator[Edited]: ...
    @overload
    def edit_iter(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Literal["return"],
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> Iterator[Edited | TagbrushError]: ...
    @accepts(EditOptions)
    def edit_iter(
        self,
        requests: Iterable[EditRequest],
        /,
        *,
        errors: Errors = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[EditOptions],
    ) -> Iterator[Edited] | Iterator[Edited | TagbrushError]:
        """The outputs of :meth:`edit_batch` one by one, each as soon as it and all before it are made.

        The work begins with this call and goes on while an output is used; closing the iterator cancels
        it. With a ``batch_size`` of :meth:`load`, so many edits are made at once.

        Args:
            requests: see :class:`EditRequest`.
            errors: with ``"return"``, exception objects stand in the places of outputs that failed; with
                ``"raise"``, the first of them is raised in its place and ends the work.
            progress, preview: as :meth:`edit`; called while an output is waited for, on the thread that
                waits.
            options: see :class:`EditOptions`.
        """
        return one_by_one(self._work(self._core.edit_iter, requests, preview, options), errors, progress)

    @accepts(EditOptions)
    def check(self, requests: Iterable[EditRequest], /, **options: Unpack[EditOptions]) -> None:
        """Raise what :meth:`edit_batch` would say of the options, or of a request, before any work.

        Pictures are counted and not looked at.

        Raises:
            InvalidInputError: the first option or request that means nothing. The number of the request
                is in its ``context``.
        """
        asked = [request._parts() for request in requests]
        self._core.check([(len(images), *words) for images, *words in asked], dict(options))

    def _work(
        self,
        start: Callable[..., Any],
        requests: Iterable[EditRequest],
        preview: OnPreview | None,
        options: EditOptions,
    ) -> Work[Edited]:
        asked = [request._parts() for request in requests]
        sources = [next(iter(images), None) for images, *_ in asked]
        return Work(Edited, lambda progress: start(asked, dict(options), progress, preview), sources)

    def set_loras(self, loras: Iterable[StrPath | Lora | tuple[StrPath, float]], /) -> None:
        """Apply LoRA files, in place of those that were applied before; none gives the model back.

        Args:
            loras: files, or pairs of a file and its scale.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelInvalidError, UnsupportedError: a key of it does not fit the model. What was applied
                before stays then.
        """
        files = lora_files(loras)
        self._core.set_loras(files)
        self._loras = files

    @property
    def default_steps(self) -> int:
        """Steps of denoising unless something else is asked for."""
        return self._core.default_steps

    @property
    def default_area(self) -> int:
        """Pixels of outputs unless a size is asked for."""
        return self._core.default_area

    @property
    def default_true_cfg_scale(self) -> float:
        """The scale of guidance unless something else is asked for."""
        return self._core.default_true_cfg_scale


def _load(
    cls: type[EditPipeline], name: str, recipe: dict[str, Any], loras: list[tuple[str, float]]
) -> EditPipeline:
    pipeline = cls.load(name, **recipe)
    if loras:
        pipeline.set_loras(loras)
    return pipeline
