"""The compiled half of the package. Public names of it are those that ``tagbrush`` has too."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, Unpack, final

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image as PilImage

from ._options import CaptionOptions, ImageLike
from .errors import TagbrushError

__all__ = [
    "DEFAULT_THRESHOLD",
    "EditPipeline",
    "Floats",
    "GeneratePipeline",
    "Image",
    "Origin",
    "OutputStream",
    "Preview",
    "Prompter",
    "Tag",
    "TagStream",
    "Tagger",
    "Tags",
    "__version__",
    "aspect_ratios",
    "cache_dir",
    "cpu_kernels",
    "error_classes",
    "find_known",
    "known_models",
    "main",
    "performance_lora",
    "pull",
    "set_threads",
]

__version__: Final[str]
DEFAULT_THRESHOLD: Final[float]
"""The general threshold unless another one is set."""

_Path: TypeAlias = str | os.PathLike[str]
_Callback: TypeAlias = Callable[[int, int | None, float | None], object] | None
_Label: TypeAlias = tuple[str, int, int | None, float | None]
_Known: TypeAlias = tuple[str, Literal["tag", "edit"], list[str], float | None, str | None]
_EditRequest: TypeAlias = tuple[list[ImageLike], str, str | None, int | None]
_Unstyled: TypeAlias = tuple[str, str, list[str]]
_GenerateRequest: TypeAlias = tuple[
    str,
    str,
    ImageLike | None,
    int | None,
    bool,
    ImageLike | None,
    tuple[int, int, int, int],
    _Unstyled | None,
    float | str | None,
]
_Output: TypeAlias = tuple[Image, int, int, int, Floats | None, Origin | None, list[str]]

@final
class Image:
    """An 8-bit RGB or RGBA picture. Never changes; ``numpy.asarray(image)`` shows its pixels without a
    copy, and ``PIL.Image.fromarray(image)`` takes it too."""

    def __new__(cls, source: ImageLike, /) -> Image:
        """A picture out of anything that the package takes as one, decoded now.

        Raises:
            ImageDecodeError, ImageTooLargeError, InputOutputError, UnsupportedError: it cannot be read.
            InvalidInputError: an array is not of ``uint8`` pixels.
        """
    @staticmethod
    def open(path: _Path, /) -> Image:
        """Reads and decodes a file; its format is told by its bytes, not its name."""
    @staticmethod
    def decode(data: bytes | bytearray, /) -> Image:
        """Decodes the bytes of a JPEG, PNG, WebP, BMP or GIF file (of animations the first frame)."""
    @staticmethod
    def from_rgb8(width: int, height: int, pixels: bytes | bytearray, /) -> Image:
        """A picture of ``width * height`` pixels of three bytes, row by row."""
    @staticmethod
    def from_rgba8(width: int, height: int, pixels: bytes | bytearray, /) -> Image:
        """A picture of ``width * height`` pixels of four bytes, row by row, alpha not premultiplied."""
    @property
    def width(self) -> int:
        """The width in pixels."""
    @property
    def height(self) -> int:
        """The height in pixels."""
    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow has it."""
    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels, as numpy has it."""
    @property
    def mode(self) -> Literal["RGB", "RGBA"]:
        """``"RGB"`` or ``"RGBA"``."""
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
        def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def tobytes(self) -> bytes:
        """The pixels as bytes, row by row."""
    def to_pil(self) -> PilImage:
        """The picture as a Pillow image, which copies the pixels. Needs Pillow."""
    def to_numpy(self) -> NDArray[np.uint8]:
        """The pixels as a read-only array of shape (height, width, 3 or 4), not copied."""
    def save(self, path: _Path, /) -> None:
        """Writes a file in the format that its name ends with: .png, .jpg, .jpeg or .webp. It appears
        under its name only when it is whole.

        Raises:
            InvalidInputError: the name ends with something else.
            InputOutputError: the file cannot be written.
        """
    def encode(
        self, format: Literal["png", "jpeg", "jpg", "webp"] = "png", *, quality: int | None = None
    ) -> bytes:
        """The bytes of a file of this format. PNG and WebP are lossless; ``quality`` is that of JPEG, 1
        to 100, 95 unless set. JPEG has no alpha: it is laid over white."""
    def _repr_png_(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: Any  # None: pictures are compared by their pixels
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Tag:
    """One tag and how sure the model is of it."""

    def __new__(cls, name: str, score: float, category: int = 0, index: int = 0) -> Tag: ...
    @property
    def name(self) -> str:
        """The tag as the model's author wrote it, with underscores."""
    @property
    def score(self) -> float:
        """The model's probability, 0 to 1."""
    @property
    def category(self) -> int:
        """What kind of tag it is: Danbooru's number, 0 for general tags, 4 for characters, 9 for
        ratings."""
    @property
    def index(self) -> int:
        """Its place among the model's labels."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[str, float, int, int]: ...

@final
class Tags:
    """The tags of one picture. Iterating gives the characters, then the other tags; a notebook shows
    bars."""

    def __new__(
        cls, ratings: Sequence[Tag] = ..., characters: Sequence[Tag] = ..., tags: Sequence[Tag] = ...
    ) -> Tags: ...
    @property
    def ratings(self) -> list[Tag]:
        """All content ratings of the model, whatever their probability."""
    @property
    def characters(self) -> list[Tag]:
        """The characters above the threshold."""
    @property
    def tags(self) -> list[Tag]:
        """All other tags above the threshold."""
    @property
    def rating(self) -> Tag | None:
        """The most probable rating; ``None`` if the model has no ratings."""
    def caption(self, **options: Unpack[CaptionOptions]) -> str:
        """The tags as one line; see :class:`CaptionOptions`."""
    def to_dict(self) -> dict[Literal["ratings", "characters", "tags"], dict[str, float]]:
        """Three dicts from names to probabilities: ``ratings``, ``characters`` and ``tags``."""
    def to_json(self) -> str:
        """The same as one line of JSON."""
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tag]: ...
    def __contains__(self, name: str, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: Any
    def __getnewargs__(self) -> tuple[list[Tag], list[Tag], list[Tag]]: ...

@final
class Preview:
    """A picture in the making, as given to ``preview`` callbacks."""

    @property
    def output(self) -> int:
        """The number of the output, as results count them."""
    @property
    def step(self) -> int:
        """Steps that it has made."""
    @property
    def steps(self) -> int:
        """Steps that it will make."""
    @property
    def image(self) -> Image:
        """A coarse picture, an eighth of the output's size in published models."""

@final
class Floats:
    """Numbers of type ``f32`` in C order, for numpy through the buffer protocol."""

    @property
    def shape(self) -> list[int]: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class TagStream:
    """Answers in order: tags, or exception objects."""

    def __iter__(self) -> TagStream: ...
    def __next__(self) -> Tags | TagbrushError: ...
    def close(self) -> None:
        """Stops the work; what was not answered is dropped."""

@final
class Tagger:
    @staticmethod
    def load(model: str, options: Mapping[str, Any]) -> Tagger: ...
    def tag(self, image: ImageLike, options: Mapping[str, Any]) -> Tags: ...
    def tag_batch(
        self, images: Iterable[ImageLike], options: Mapping[str, Any], progress: _Callback
    ) -> list[Tags | TagbrushError]: ...
    def tag_iter(self, images: Iterable[ImageLike], options: Mapping[str, Any]) -> TagStream: ...
    def tag_folder(
        self,
        paths: Sequence[str],
        folder: Mapping[str, Any],
        tags: Mapping[str, Any],
        caption: Mapping[str, Any],
        progress: _Callback,
    ) -> tuple[int, int, list[tuple[Path, TagbrushError]], bool]: ...
    def select(self, scores: NDArray[np.float32], options: Mapping[str, Any]) -> list[Tags]: ...
    def rows(self, wanted: str, images: Iterable[ImageLike], progress: _Callback) -> Floats: ...
    def row_list(
        self, wanted: str, images: Iterable[ImageLike], progress: _Callback
    ) -> list[Floats | TagbrushError]: ...
    def with_batch_size(self, pictures: int) -> Tagger: ...
    @property
    def labels(self) -> list[_Label]: ...
    @property
    def category_thresholds(self) -> list[tuple[int, float]]: ...
    @property
    def name(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def input_size(self) -> tuple[int, int]: ...
    @property
    def embedding_length(self) -> int: ...
    @property
    def recommended_threshold(self) -> float | None: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> Literal["f32", "bf16", "f16"]: ...

@final
class OutputStream:
    """Outputs in order: tuples as of a batch, or exception objects."""

    def __iter__(self) -> OutputStream: ...
    def __next__(self) -> _Output | TagbrushError: ...
    def close(self) -> None:
        """Stops the work; what was not given is dropped."""

@final
class Origin:
    """How a picture was generated."""

    def metadata(self, scheme: str) -> str: ...
    def encode(self, format: str, quality: int | None, metadata: str) -> bytes: ...
    def save(self, path: _Path, metadata: str) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __deepcopy__(self, _memo: Any) -> Origin: ...

@final
class EditPipeline:
    @staticmethod
    def load(model: str, options: Mapping[str, Any]) -> EditPipeline: ...
    def edit_batch(
        self,
        requests: Sequence[_EditRequest],
        options: Mapping[str, Any],
        progress: _Callback,
        preview: Callable[[Preview], object] | None,
    ) -> list[_Output | TagbrushError]: ...
    def edit_iter(
        self,
        requests: Sequence[_EditRequest],
        options: Mapping[str, Any],
        progress: _Callback,
        preview: Callable[[Preview], object] | None,
    ) -> OutputStream: ...
    def check(
        self, requests: Sequence[tuple[int, str, str | None, int | None]], options: Mapping[str, Any]
    ) -> None: ...
    def set_loras(self, files: Sequence[tuple[str, float]]) -> None: ...
    @property
    def default_steps(self) -> int: ...
    @property
    def default_area(self) -> int: ...
    @property
    def default_true_cfg_scale(self) -> float: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> Literal["f32", "bf16", "f16"]: ...

@final
class GeneratePipeline:
    @staticmethod
    def load(model: str, options: Mapping[str, Any]) -> GeneratePipeline: ...
    def generate_batch(
        self,
        requests: Sequence[_GenerateRequest],
        options: Mapping[str, Any],
        progress: _Callback,
        preview: Callable[[Preview], object] | None,
    ) -> list[_Output | TagbrushError]: ...
    def generate_iter(
        self,
        requests: Sequence[_GenerateRequest],
        options: Mapping[str, Any],
        progress: _Callback,
        preview: Callable[[Preview], object] | None,
    ) -> OutputStream: ...
    def set_loras(self, files: Sequence[tuple[str, float]]) -> None: ...
    @property
    def default_size(self) -> tuple[int, int]: ...
    @property
    def default_styles(self) -> list[str] | None: ...
    @property
    def needs_performance_loras(self) -> bool: ...
    @property
    def has_inpaint_engine(self) -> bool: ...
    @property
    def has_upscaler(self) -> bool: ...
    def set_inpaint_engine(self, files: tuple[str, str] | None) -> None: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> Literal["f32", "bf16", "f16"]: ...

@final
class Prompter:
    def __new__(cls, styles: str | None, wildcards: str | None, loras: Sequence[str]) -> Prompter: ...
    @property
    def style_names(self) -> list[str]: ...
    def prepare(
        self, prompt: str, negative_prompt: str, options: Mapping[str, Any]
    ) -> tuple[list[tuple[str, str, int, _Unstyled]], list[tuple[Path, float]]]: ...

def aspect_ratios() -> list[tuple[int, int]]: ...
def cache_dir() -> Path: ...
def cpu_kernels() -> str:
    """Which kernels compute on this machine's CPU; the variable ``TAGBRUSH_ISA`` caps the choice."""

def error_classes() -> list[tuple[str, str]]: ...
def find_known(name: str) -> _Known | None: ...
def known_models() -> list[_Known]: ...
def main(arguments: Sequence[str]) -> int: ...
def performance_lora(performance: str) -> tuple[Path, float] | None: ...
def pull(model: str, cache_dir: str | None, endpoint: str | None, progress: _Callback) -> Path: ...
def set_threads(threads: int) -> None:
    """Sets how many threads the whole process uses for pictures and networks. Can be called once, before
    any work; the variable ``RAYON_NUM_THREADS`` does the same.

    Raises:
        InvalidInputError: it is 0, or the threads run already.
    """
