"""What pipelines have in common: their outputs, in a list or one by one, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from . import _core
from ._core import Image
from ._options import Errors, ImageLike, Progress, StrPath
from ._progress import Callback, reporting
from ._results import check, raised
from .errors import TagbrushError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Output:
    """A picture that a pipeline made."""

    image: Image
    """The picture."""
    seed: int
    """The seed that gives this picture again, as the first variant."""
    request: int
    """The number of the request that it belongs to."""
    variant: int
    """Which of the request's variants it is."""
    values: NDArray[np.float32] | None = field(default=None, repr=False)
    """Its values before they were rounded to 8 bits: read-only ``float32`` of shape (height, width, 3),
    0 to 1. Only with ``keep_values=True``."""
    source: ImageLike | None = field(default=None, repr=False)
    """The first picture of the request, as it was given, if it has one."""
    notes: tuple[str, ...] = ()
    """What a user should know about how it was made, where it was made in another way than may be expected: without a
    network that would be needed, or without denoising. Mostly empty."""

    def save(self, path: StrPath, /) -> None:
        """Write the picture to a file; see :meth:`Image.save`."""
        self.image.save(path)

    def _repr_html_(self) -> str:
        from . import _html

        return _html.output(self)


O = TypeVar("O", bound=Output)


class Pipeline:
    """A loaded model that makes pictures."""

    def __init__(self) -> None:
        raise TypeError(f"load a model with {type(self).__name__}.load(...)")

    _core: Any
    _recipe: tuple[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """What was given to ``load``."""
        return self._recipe[0]

    @property
    def device(self) -> str:
        """Where the model runs; never ``"auto"``."""
        device: str = self._core.device
        return device

    @property
    def dtype(self) -> Literal["f32", "bf16", "f16"]:
        """In which number format it runs; never ``"auto"``."""
        dtype: Literal["f32", "bf16", "f16"] = self._core.dtype
        return dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, device={self.device!r}, dtype={self.dtype!r})"


class Work(NamedTuple, Generic[O]):
    """A batch that can be started."""

    kind: type[O]
    """What its outputs are."""
    start: Callable[[Callback | None], Any]
    """The call of the compiled half, which takes what is called with progress."""
    sources: Sequence[ImageLike | None]
    """The first picture of each request."""

    def made(self, output: _core._Output | TagbrushError) -> O | TagbrushError:
        """An output of the compiled half as people see it."""
        if isinstance(output, TagbrushError):
            return output
        image, seed, request, variant, values, origin, notes = output
        array = None
        if values is not None:
            import numpy as np

            array = np.asarray(values)
        made = self.kind(image, seed, request, variant, array, self.sources[request], tuple(notes))
        if origin is not None:
            # No field: `dataclasses.replace` with another picture must not take it along.
            object.__setattr__(made, "_origin", origin)
        return made


# Warnings of the compiled half point at the caller of a public method that calls one of these two.


def batch(work: Work[O], errors: Errors, progress: Progress | None) -> list[Any]:
    """All outputs, or the first exception among them."""
    check(errors)
    with reporting(progress, "steps") as callback:
        outputs = work.start(callback)
    made = [work.made(output) for output in outputs]
    return made if errors == "return" else raised(made)


def one_by_one(work: Work[O], errors: Errors, progress: Progress | None) -> Iterator[Any]:
    """The outputs as they are made. The work begins with this call."""
    check(errors)
    with ExitStack() as stack:
        callback = stack.enter_context(reporting(progress, "steps"))
        stream = work.start(callback)
        stack.callback(stream.close)
        return _stream(work, stream, errors, stack.pop_all())


def _stream(
    work: Work[O], stream: _core.OutputStream, errors: Errors, stack: ExitStack
) -> Iterator[O | TagbrushError]:
    with stack:
        for output in stream:
            if errors == "raise" and isinstance(output, TagbrushError):
                raise output
            yield work.made(output)
