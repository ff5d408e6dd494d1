"""The keyword arguments of the package, each kind of them once, for type checkers and for people.

Functions take them as ``**options: Unpack[...]``. ``accepts`` shows the names and defaults to ``help``
and notebooks too, which would only see ``**options``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict, TypeVar

from . import _core

if TYPE_CHECKING:
    from ._core import Preview

__all__ = [
    "CaptionOptions",
    "Dtype",
    "EditOptions",
    "FreeU",
    "GenerateLoadOptions",
    "GenerateOptions",
    "ImageLike",
    "LoadOptions",
    "MetadataScheme",
    "Performance",
    "Sampler",
    "Scheduler",
    "SizeGuidance",
    "TagOptions",
]

StrPath: TypeAlias = str | os.PathLike[str]


class HasArrayInterface(Protocol):
    """Pillow images and arrays of numpy, among others."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageLike: TypeAlias = (
    "StrPath | bytes | bytearray | memoryview | IO[bytes] | HasArrayInterface | _core.Image"
)
"""What is taken for a picture.

- a path, as ``str`` or :class:`os.PathLike`: a JPEG, PNG, WebP, BMP or GIF file,
- the bytes of such a file, or a file object opened in binary mode,
- a Pillow image, in a mode with 8 bits for a channel,
- an array of ``uint8`` of shape (height, width), or (height, width, channels) with 1, 3 (RGB) or 4
  (RGBA) channels; nothing else is guessed,
- an :class:`Image`.

Pixels of arrays and Pillow images are copied when the call begins.
"""

Dtype: TypeAlias = Literal["auto", "f32", "bf16", "f16"]
"""Number formats; which of them a device can compute is checked when a model is loaded."""

Sampler: TypeAlias = Literal[
    "euler",
    "euler_ancestral",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "tcd",
    "restart",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
"""How steps of denoising are made."""

Scheduler: TypeAlias = Literal[
    "normal",
    "karras",
    "exponential",
    "sgm_uniform",
    "simple",
    "ddim_uniform",
    "lcm",
    "turbo",
    "align_your_steps",
    "tcd",
    "edm_playground_v2.5",
]
"""Which noise levels steps of denoising go through."""

Performance: TypeAlias = Literal["Quality", "Speed", "Extreme Speed", "Lightning", "Hyper-SD"]
"""Ways of sampling by their speed. The last three need a LoRA file, which :func:`performance_lora` names."""

MetadataScheme: TypeAlias = Literal["fooocus", "a1111"]
"""How a file says what its picture was made with: JSON as Fooocus has it, or lines as the web UI of AUTOMATIC1111 has
them. Both are read by Fooocus."""

Errors: TypeAlias = Literal["raise", "return"]
"""Whether a failed item raises its exception, or has the exception object in its place."""

FolderFormat: TypeAlias = Literal["sidecar", "json", "jsonl", "csv"]
"""How a folder run writes tags."""

Existing: TypeAlias = Literal["overwrite", "skip", "append"]
"""What a folder run does with tags that are there already."""

Progress: TypeAlias = bool | Callable[[int, int | None, float | None], object]
"""``True`` for a bar of tqdm, or a function of what is done, what there is in all if that is known, and
the seconds left if that can be told. If the function gives ``False``, the work is cancelled; what it
raises comes out of the call, once the work has stopped. It runs on the thread that made the call."""

OnPreview: TypeAlias = "Callable[[Preview], object]"
"""A function that is given a :class:`Preview` after each step of each picture. Cancels as above."""


class LoadOptions(TypedDict, total=False):
    """How a model is loaded."""

    device: str
    """``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"metal"``. A device that is named is never
    replaced by another one."""
    dtype: Dtype
    offline: bool
    """Never use the network: an id must be in a local cache already."""
    cache_dir: StrPath | None
    """Where downloaded models are kept; the user's cache folder unless set."""
    batch_size: int | None
    """Pictures in one batch; chosen by the size of the input unless set."""
    max_pixels: int | None
    """Refuse pictures of more pixels; 128,000,000 unless set."""
    max_side: int | None
    """Refuse pictures with a longer side; 65,535 unless set."""
    max_encoded_bytes: int | None
    """Refuse longer files; 256 MiB unless set."""
    tolerate_truncated: bool
    """Accept JPEG files whose end is missing, as far as they go."""
    apply_orientation: bool | None
    """Turn pictures as their EXIF orientation says. Unless set, pictures to edit or to start from are
    turned and pictures to tag are not, as in the taggers' reference. Never done to Pillow images and
    arrays."""


class EditLoadOptions(LoadOptions, total=False):
    """How an edit model is loaded."""

    max_memory: int | None
    """Most bytes of memory that the model may take. What does not fit is read again in every step."""
    transformer: StrPath | None
    """Another file for the denoising transformer: safetensors (diffusers, ComfyUI) or GGUF."""
    text_encoder: StrPath | None
    """Another file for the text encoder: safetensors."""
    vae: StrPath | None
    """Another file for the autoencoder: safetensors."""


class GenerateLoadOptions(LoadOptions, total=False):
    """How a model that generates is loaded."""

    max_memory: int | None
    """Most bytes of memory that the model may take. What does not fit is read again in every step."""
    refiner: StrPath | None
    """A second model that goes on where the first one stops: SDXL's refiner, or another SDXL."""
    vae: StrPath | None
    """A file with another autoencoder, in place of the model's own: safetensors in the names of diffusers or of Stability's
    code, or a whole checkpoint."""
    upscaler: StrPath | None
    """A network that makes pictures larger (ESRGAN's RRDBNet): safetensors, or a checkpoint of PyTorch, which is read
    without running it."""
    inpaint_head: StrPath | None
    """The head of Fooocus' inpaint engine (``fooocus_inpaint_head.pth``); with ``inpaint_patch`` only."""
    inpaint_patch: StrPath | None
    """The patch of Fooocus' inpaint engine (``inpaint_v26.fooocus.patch``, or of another version); with ``inpaint_head``
    only."""


class TagOptions(TypedDict, total=False):
    """Which tags of a picture are kept: those with a probability **greater** than their threshold."""

    threshold: float
    """The general threshold, 0 to 1; more than 1 keeps nothing."""
    character_threshold: float | None
    """The threshold of characters; the general one unless set."""
    category_thresholds: Mapping[str | int, float] | None
    """Thresholds of categories: ``{"general": 0.3, 4: 0.8}``."""
    tag_thresholds: Mapping[str, float] | None
    """Thresholds of single tags; spaces, underscores and case do not matter."""
    best_thresholds: bool
    """Use the thresholds that the model's author recommends, where the model has them."""
    mcut: bool
    """Find the threshold of each category in the scores: the middle of their largest gap."""
    top_k: int | None
    """Keep at most so many characters, and at most so many other tags."""
    exclude: Sequence[str]
    """Tags that are never given."""
    drop_redundant: bool
    """Drop tags that say less than another one that is there."""
    implications: Sequence[tuple[str, str]]
    """Which tags imply others, as pairs (``very_long_hair``, ``long_hair``), for ``drop_redundant``."""
    order: Literal["labels", "score", "name"]
    """The order of each list."""


class CaptionOptions(TypedDict, total=False):
    """How tags are written as one line."""

    separator: str
    keep_underscores: bool
    """Keep underscores; otherwise they become spaces, except in smileys such as ``>_<``."""
    escape: bool
    """Put a backslash before parentheses and backslashes, as prompts want it."""
    weights: bool
    """Write ``(tag:0.997)``."""
    rating: Literal["none", "first", "last"]
    """Whether and where the most probable rating stands."""
    characters_last: bool
    always_first: Sequence[str]
    """Tags that stand first when they are there, in this order."""
    replace: Mapping[str, str] | None
    """Tags that are written as something else; an empty text leaves the tag out."""
    prepend: Sequence[str]
    append: Sequence[str]


class EditOptions(TypedDict, total=False):
    """How edits are made."""

    n: int
    """Variants of every request, 1 to 10."""
    size: Literal["auto"] | str | tuple[int, int]
    """``"auto"``, ``"1024x768"`` or ``(1024, 768)``: width and height."""
    seed: int | None
    """The seed of the first variant; variant ``j`` has ``seed + j``. A seed gives the same noise as
    ``torch.Generator("cpu").manual_seed(seed)``. Drawn unless set."""
    num_inference_steps: int | None
    """Steps of denoising, 1 to 1000; the model's own number unless set."""
    true_cfg_scale: float | None
    """Scale of guidance; the model's own unless set. 1 or less switches it off, which halves the time."""
    guidance_scale: float | None
    """Accepted, and of no effect on these models: gives a ``UserWarning``."""
    max_sequence_length: int
    """Accepted, and of no effect on these models: gives a ``UserWarning``."""
    reference_area: int | None
    """Pixels of each reference picture for the model, and of outputs of automatic size."""
    reference_multiple: int | None
    """What sides of references and automatic outputs are multiples of; itself a multiple of 16."""
    preset: Literal["lightning-4", "lightning-8"] | None
    """A step-distilled way to use a model; its LoRA must be loaded too."""
    keep_values: bool
    """Keep the values of outputs before they are rounded to 8 bits, as ``Edited.values``."""


class SizeGuidance(NamedTuple):
    """Other sizes than the real one, which the network is told of the picture while most of it is noise: a
    large one for what is asked for and a small one for what is not sharpen it."""

    positive: float = 1.5
    """The size that goes with the prompt is so many times the real one."""
    negative: float = 0.8
    """As ``positive``, for the negative prompt."""
    end: float = 0.3
    """The part of the way after which the real size is told."""


class FreeU(NamedTuple):
    """How the network's parts are weighed on its way up; 1 changes nothing. The defaults are those of Fooocus."""

    b1: float = 1.01
    """How much the strong parts of what comes from below count where there are four times as many channels as at the
    largest size."""
    b2: float = 1.02
    """As ``b1``, where there are twice as many."""
    s1: float = 0.99
    """How much the coarse parts of what is kept from the way down count, in the places of ``b1``."""
    s2: float = 0.95
    """As ``s1``, in the places of ``b2``."""


class GenerateOptions(TypedDict, total=False):
    """How pictures are generated. The defaults are those of Fooocus' "Speed"."""

    n: int
    """Variants of every request, 1 to 1024."""
    size: str | tuple[int, int] | None
    """``(1152, 896)`` or ``"1152x896"``: width and height, multiples of 8. The model's own unless set, which for
    published ones is this."""
    performance: Performance | None
    """60, 30, 8, 4 and 4 steps; with the last three also their sampler and scheduler and no guidance. What is
    set beside it is as it is set. The LoRA file that it needs must be applied."""
    steps: int
    """Steps of denoising, 1 to 1000."""
    guidance_scale: float
    """How far to go away from the negative prompt. At 1 it is not looked at, and a step takes half of the
    time."""
    sampler: Sampler
    scheduler: Scheduler
    clip_skip: int
    """The layer of the text encoders whose states are used, counted from the end: 1 is the last."""
    seed: int | None
    """The seed of the first variant of every request; the next variants have the next seeds. A seed gives
    the same noise as ``torch.Generator("cpu").manual_seed(seed)``. Drawn unless set."""
    size_guidance: SizeGuidance | tuple[float, float, float] | None
    """Which sizes the network is told; see :class:`SizeGuidance`. ``None`` for the real one always."""
    adaptive_guidance: float
    """Where guidance is stronger than this, it starts from here and grows to its scale as the noise goes."""
    sharpness: float
    """How much of its grain a picture keeps that the network would smooth, 0 to 30; only with guidance."""
    refiner_switch: float
    """The part of the steps after which a refiner goes on; only where the model was loaded with one."""
    refiner_swap: Literal["joint", "separate"]
    """Whether samplers know of the steps before the refiner, or begin anew with it."""
    freeu: FreeU | tuple[float, float, float, float] | None
    """How the network's parts are weighed; not at all unless set."""
    denoise: float
    """How much of a request's picture is made anew, above 0 and up to 1. Of no effect on requests without a
    picture."""
    upscale_strength: float
    """As ``denoise``, for pictures that are made larger."""
    inpaint_strength: float
    """As ``denoise``, for the parts of pictures that are made anew; 1 forgets what was there."""
    inpaint_field: float
    """How much of a picture the network sees at least beside the part that is made anew: 0 for little, 1 for the
    whole picture, which it always sees with ``outpaint``."""
    mask_growth: int
    """Pixels that masks are made wider by, or narrower below 0; -64 to 64."""
    keep_values: bool
    """Keep the values of outputs before they are rounded to 8 bits, as ``Generated.values``."""


# What the core has unless something is set. `None` stands for "not set".
DEFAULTS: dict[str, object] = {
    "device": "auto",
    "dtype": "auto",
    "offline": False,
    "tolerate_truncated": False,
    "threshold": _core.DEFAULT_THRESHOLD,
    "best_thresholds": False,
    "mcut": False,
    "exclude": (),
    "drop_redundant": False,
    "implications": (),
    "order": "labels",
    "separator": ", ",
    "keep_underscores": False,
    "escape": False,
    "weights": False,
    "rating": "none",
    "characters_last": False,
    "always_first": (),
    "prepend": (),
    "append": (),
    "n": 1,
    "size": "auto",
    "max_sequence_length": 512,
    "keep_values": False,
}

# What is another thing, or has another default, where pictures are generated.
GENERATE_DEFAULTS: dict[str, object] = {
    **DEFAULTS,
    "size": None,
    "steps": 30,
    "guidance_scale": 4.0,
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "clip_skip": 2,
    "size_guidance": SizeGuidance(),
    "adaptive_guidance": 7.0,
    "sharpness": 2.0,
    "refiner_switch": 0.5,
    "refiner_swap": "joint",
    "denoise": 0.5,
    "upscale_strength": 0.382,
    "inpaint_strength": 1.0,
    "inpaint_field": 0.618,
    "mask_growth": 0,
}

F = TypeVar("F", bound=Callable[..., Any])


def accepts(options: type, defaults: Mapping[str, object] = DEFAULTS) -> Callable[[F], F]:
    """Shows the names in ``options`` in the signature of a function that takes ``**options``."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name),
                annotation=getattr(type_, "__forward_arg__", type_),
            )
            for name, type_ in options.__annotations__.items()
        ]
        function.__signature__ = signature.replace(parameters=[*kept, *named])  # type: ignore[attr-defined]
        return function

    return shown
