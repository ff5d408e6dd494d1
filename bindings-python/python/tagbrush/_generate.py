"""``tagbrush.GeneratePipeline``: pictures out of prompts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from . import _core
from ._lora import Lora, lora_files
from ._options import (
    GENERATE_DEFAULTS,
    Errors,
    GenerateLoadOptions,
    GenerateOptions,
    ImageLike,
    MetadataScheme,
    OnPreview,
    Progress,
    StrPath,
    accepts,
)
from ._pipeline import Output, Pipeline, Work, batch, one_by_one
from .errors import InvalidInputError, TagbrushError

if TYPE_CHECKING:
    from typing import Self, Unpack


ASPECT_RATIOS: tuple[tuple[int, int], ...] = tuple(_core.aspect_ratios())
"""Width and height of pictures that SDXL was trained with, from tall to wide, as Fooocus lists them."""


class Unstyled(NamedTuple):
    """Prompts without the styles around them."""

    prompt: str
    """What is to be seen."""
    negative_prompt: str = ""
    """What is not to be seen."""
    styles: Sequence[str] = ()
    """The names of the styles."""


@dataclass(frozen=True, eq=False)
class GenerateRequest:
    """One prompt, with what belongs to it alone."""

    prompt: str
    """What is to be seen. Each line is a text of its own; parts may have weights: ``(text:1.3)``."""
    negative_prompt: str = ""
    """What is not to be seen, in the same notation."""
    image: ImageLike | None = None
    """A picture to start from, stretched to the size of the output. How much of it stays is up to
    ``denoise``."""
    seed: int | None = None
    """The seed of its first variant, in place of that of the call."""
    as_is: bool = False
    """Lines of both prompts are texts as they are. Otherwise commas and points at their ends and spaces beside spaces
    are left out, as Fooocus does with what people write, but not with its styles."""

    mask: ImageLike | None = None
    """What of the picture is made anew: white pixels of a picture of its size. All else stays to the bit, and the
    output has the picture's size, with what ``outpaint`` adds."""
    outpaint: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels that are added on the left, above, on the right and below."""
    unstyled: Unstyled | None = None
    """What both prompts are without styles, where they have some: for metadata only. :class:`Prompter` sets it."""
    upscale: float | str | None = None
    """How much larger the picture is made, 1 to 5, with details made anew; or a name of Fooocus, such as ``"Upscale (1.5x)"``
    or ``"fast 2"``, which makes nothing anew. The output has the size that this gives. With ``upscaler`` of
    :meth:`GeneratePipeline.load` a network does it, else ``notes`` of the output say that it was resampled."""

    def _parts(self) -> _core._GenerateRequest:
        return (
            self.prompt,
            self.negative_prompt,
            self.image,
            self.seed,
            self.as_is,
            self.mask,
            self.outpaint,
            self._unstyled(),
            self.upscale,
        )

    def _unstyled(self) -> _core._Unstyled | None:
        if self.unstyled is None:
            return None
        prompt, negative_prompt, styles = self.unstyled
        if isinstance(styles, str):
            raise TypeError("expected a list of styles, got one")
        return prompt, negative_prompt, list(styles)


class Generated(Output):
    """A picture that was generated. A notebook shows it, beside what it was made from if there is such.

    Files of it may say how it was made. That is known in the process that made it: of a picture that was pickled only
    the picture arrives.
    """

    _origin: _core.Origin | None = None

    def metadata(self, scheme: MetadataScheme = "fooocus") -> str:
        """What a file says of how this picture was made: prompts, options, and the names and hashes of the model and of
        LoRA files, but not a picture that it was made from.

        A hash is the first ten digits of the file's SHA-256, for which the whole file is read when it is asked for the
        first time: some seconds for a large model. Models in folders, which are many files, have none.

        Args:
            scheme: ``"fooocus"`` for JSON as Fooocus writes it, ``"a1111"`` for lines as the web UI of AUTOMATIC1111
                writes them.

        Raises:
            InvalidInputError: there is no such scheme, or the picture comes from another process.
            InputOutputError: a file of the model cannot be read any more.
        """
        return self._known().metadata(scheme)

    def encode(
        self,
        format: Literal["png", "jpeg", "jpg", "webp"] = "png",
        *,
        quality: int | None = None,
        metadata: MetadataScheme | None = None,
    ) -> bytes:
        """The bytes of a file of this format, as :meth:`Image.encode` gives them, which may say how the picture was made:
        in PNG as texts ``parameters`` and ``fooocus_scheme``, in JPEG and WebP as EXIF.

        Args:
            format, quality: see :meth:`Image.encode`.
            metadata: a scheme of :meth:`metadata`; nothing is said unless set.

        Raises:
            InvalidInputError: as :meth:`metadata`, or they are beyond the 64 KiB that a JPEG can have.
        """
        if metadata is None:
            return self.image.encode(format, quality=quality)
        return self._known().encode(format, quality, metadata)

    def save(self, path: StrPath, /, *, metadata: MetadataScheme | None = None) -> None:
        """Write the picture to a file, as :meth:`Image.save` does; ``metadata`` as for :meth:`encode`."""
        if metadata is None:
            self.image.save(path)
        else:
            self._known().save(path, metadata)

    def _known(self) -> _core.Origin:
        if self._origin is None:
            message = "how the picture was made is known only in the process that made it, and of that picture"
            raise InvalidInputError(message, {"field": "metadata"})
        return self._origin


class GeneratePipeline(Pipeline):
    """A loaded model that generates: SDXL, sampled as Fooocus does.

    May be used from several threads; calls are answered one after the other, because a batch is how many
    pictures are made at once. Runs without the interpreter's lock, and Ctrl-C stops it within a step.
    Pickling keeps the recipe (name, options and LoRAs), not the weights.
    """

    _core: _core.GeneratePipeline
    _loras: list[tuple[str, float]]

    @classmethod
    @accepts(GenerateLoadOptions)
    def load(cls, model: StrPath = "demo", /, **options: Unpack[GenerateLoadOptions]) -> Self:
        """Load a model that generates.

        Args:
            model: ``"demo"`` (embedded, draws flat shapes only), a folder as diffusers publishes SDXL, or a
                checkpoint of SDXL in one safetensors file. Models that generate are not downloaded.
            options: see :class:`GenerateLoadOptions`.

        Raises:
            ModelNotFoundError: there is no such file or folder, or a file of it is missing.
            ModelInvalidError: its files are damaged or do not fit each other.
            UnsupportedError: it is a model of another kind, or it cannot run in ``dtype``.
            DeviceUnavailableError: as :meth:`Tagger.load`.
        """
        self = cls.__new__(cls)
        self._recipe = (os.fspath(model), dict(options))
        self._core = _core.GeneratePipeline.load(*self._recipe)
        self._loras = []
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), *self._recipe, self._loras)

    @accepts(GenerateOptions, GENERATE_DEFAULTS)
    def generate(
        self,
        prompt: str,
        /,
        *,
        negative_prompt: str = "",
        image: ImageLike | None = None,
        mask: ImageLike | None = None,
        outpaint: tuple[int, int, int, int] = (0, 0, 0, 0),
        upscale: float | str | None = None,
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Generated]:
        """The variants of one prompt: ``n`` pictures.

        Args:
            prompt, negative_prompt, image, mask, outpaint, upscale: see :class:`GenerateRequest`.
            progress: ``True`` for a bar of tqdm, or a function of (steps done, steps in all, seconds
                left) that cancels by giving ``False``.
            preview: a function of a :class:`Preview`, called after each step of each picture.
            options: see :class:`GenerateOptions`.

        Raises:
            InvalidInputError: an option means nothing, or a prompt cannot be read.
            ImageDecodeError, ImageTooLargeError, InputOutputError: the picture cannot be read.
            OutOfMemoryError: there is not enough memory.
            CancelledError: a callback gave ``False``.
        """
        request = GenerateRequest(prompt, negative_prompt, image, mask=mask, outpaint=outpaint, upscale=upscale)
        return batch(_work(self._core.generate_batch, [request], preview, options), "raise", progress)

    @overload
    def generate_batch(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Generated]: ...
    @overload
    def generate_batch(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Literal["return"],
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Generated | TagbrushError]: ...
    @accepts(GenerateOptions, GENERATE_DEFAULTS)
    def generate_batch(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Errors = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Generated] | list[Generated | TagbrushError]:
        """Many prompts in one denoising run.

        Each output is what its request would give alone. ``n`` outputs for each request, first all
        variants of the first request.

        Args:
            requests: prompts, or see :class:`GenerateRequest`.
            errors: with ``"return"``, a request that fails has exception objects in its places and costs
                no other one its output, and after a cancel what was made is kept; with ``"raise"``, the
                first failure is raised once all requests were tried.
            progress, preview: as :meth:`generate`.
            options: see :class:`GenerateOptions`.
        """
        return batch(_work(self._core.generate_batch, requests, preview, options), errors, progress)

    @overload
    def generate_iter(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Literal["raise"] = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Generated]: ...
    @overload
    def generate_iter(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Literal["return"],
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Generated | TagbrushError]: ...
    @accepts(GenerateOptions, GENERATE_DEFAULTS)
    def generate_iter(
        self,
        requests: Iterable[str | GenerateRequest],
        /,
        *,
        errors: Errors = "raise",
        progress: Progress | None = None,
        preview: OnPreview | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Generated] | Iterator[Generated | TagbrushError]:
        """The outputs of :meth:`generate_batch` one by one, each as soon as it and all before it are made.

        The work begins with this call and goes on while an output is used; closing the iterator cancels
        it. With a ``batch_size`` of :meth:`load`, so many pictures are made at once.

        Args:
            requests: prompts, or see :class:`GenerateRequest`.
            errors: with ``"return"``, exception objects stand in the places of outputs that failed; with
                ``"raise"``, the first of them is raised in its place and ends the work.
            progress, preview: as :meth:`generate`; called while an output is waited for, on the thread that
                waits.
            options: see :class:`GenerateOptions`.
        """
        return one_by_one(_work(self._core.generate_iter, requests, preview, options), errors, progress)

    def set_loras(self, loras: Iterable[StrPath | Lora | tuple[StrPath, float]], /) -> None:
        """Apply LoRA files, in place of those that were applied before; none gives the model back, to the
        last bit.

        Files for the denoising network, either text encoder and several of them are read: LoRA, LoCon, LoHa
        and LoKr in the keys of kohya, peft, diffusers, ComfyUI and latent diffusion. A refiner takes the files
        that fit it: those of the model where it is another SDXL.

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
    def default_size(self) -> tuple[int, int]:
        """Width and height of pictures whose size is not asked for."""
        return self._core.default_size

    @property
    def default_styles(self) -> list[str] | None:
        """The styles that go with the model unless others are named, where it has some of its own: the demo model has
        none, as it knows no such words. ``None`` leaves it to the user, who may want those that Fooocus takes."""
        return self._core.default_styles

    @property
    def needs_performance_loras(self) -> bool:
        """Whether fast ways of sampling need the LoRA file that :func:`performance_lora` names: not where the model itself
        makes pictures in few steps, as the demo model does."""
        return self._core.needs_performance_loras

    def set_inpaint_engine(self, files: tuple[StrPath, StrPath] | None, /) -> None:
        """Take Fooocus' inpaint engine, its head and its patch, in place of the one before, or ``None`` for none.

        Parts of pictures are made anew with it; without, the network sees the picture around the mask only.

        Args:
            files: ``fooocus_inpaint_head.pth`` and ``inpaint_v26.fooocus.patch``, or the patch of another version.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelInvalidError, UnsupportedError: it does not fit the model. What was there before stays then.
        """
        engine = None
        if files is not None:
            head, patch = files
            engine = (os.fspath(head), os.fspath(patch))
        self._core.set_inpaint_engine(engine)
        name, options = self._recipe
        kept = {key: value for key, value in options.items() if key not in ("inpaint_head", "inpaint_patch")}
        if engine is not None:
            kept["inpaint_head"], kept["inpaint_patch"] = engine
        self._recipe = (name, kept)

    @property
    def has_inpaint_engine(self) -> bool:
        """Whether there is an inpaint engine."""
        return self._core.has_inpaint_engine

    @property
    def has_upscaler(self) -> bool:
        """Whether there is a network that makes pictures larger; without one they are resampled."""
        return self._core.has_upscaler


def _work(
    start: Callable[..., Any],
    requests: Iterable[str | GenerateRequest],
    preview: OnPreview | None,
    options: GenerateOptions,
) -> Work[Generated]:
    if isinstance(requests, str):
        raise TypeError("expected a list of prompts, got one")
    given = [_request(request) for request in requests]
    asked = [request._parts() for request in given]
    sources = [request.image for request in given]
    return Work(Generated, lambda progress: start(asked, dict(options), progress, preview), sources)


def _request(given: str | GenerateRequest) -> GenerateRequest:
    if isinstance(given, str):
        return GenerateRequest(given)
    if not isinstance(given, GenerateRequest):
        raise TypeError(f"a request is a prompt or a GenerateRequest, not {type(given).__name__}")
    return given


def _load(
    cls: type[GeneratePipeline], name: str, recipe: dict[str, Any], loras: list[tuple[str, float]]
) -> GeneratePipeline:
    pipeline = cls.load(name, **recipe)
    if loras:
        pipeline.set_loras(loras)
    return pipeline
