"""Tags, edits and generates pictures, in batches, without torch.

>>> import tagbrush
>>> tagger = tagbrush.Tagger.load("demo")  # embedded: knows drawn shapes only
>>> tags = tagger.tag(tagbrush.Image.from_rgb8(1, 1, b"abc"))
>>> sorted(tags.to_dict())
['characters', 'ratings', 'tags']

- :class:`Tagger` gives :class:`Tags`, raw scores or embeddings, of single pictures, batches and streams.
- :class:`EditPipeline` changes pictures by instruction: :class:`EditRequest` in, :class:`Edited` out.
- :class:`GeneratePipeline` makes pictures of prompts: :class:`GenerateRequest` in, :class:`Generated` out.
- :class:`Image` is what comes out: numpy and Pillow read it. :data:`ImageLike` is what goes in.
- :mod:`tagbrush.errors` has the exceptions, :mod:`tagbrush.ray` tags datasets on many machines.
"""

from ._core import DEFAULT_THRESHOLD, Image, Preview, Tag, Tags, __version__, cpu_kernels, set_threads
from ._edit import Edited, EditPipeline, EditRequest
from ._generate import ASPECT_RATIOS, Generated, GeneratePipeline, GenerateRequest, Unstyled
from ._lora import Lora, performance_lora
from ._models import KNOWN_MODELS, KnownModel, cache_dir, find_known, pull
from ._options import (
    CaptionOptions,
    Dtype,
    EditLoadOptions,
    EditOptions,
    FreeU,
    GenerateLoadOptions,
    GenerateOptions,
    ImageLike,
    LoadOptions,
    MetadataScheme,
    Performance,
    Sampler,
    Scheduler,
    SizeGuidance,
    TagOptions,
)
from ._prompter import Prepared, Prompter
from ._tagger import Label, Summary, Tagger
from .errors import (
    CancelledError,
    DeviceUnavailableError,
    DownloadError,
    ImageDecodeError,
    ImageTooLargeError,
    InputOutputError,
    InternalError,
    InvalidInputError,
    ModelInvalidError,
    ModelNotFoundError,
    OutOfMemoryError,
    TagbrushError,
    UnsupportedError,
)

__all__ = [
    "ASPECT_RATIOS",
    "DEFAULT_THRESHOLD",
    "KNOWN_MODELS",
    "CancelledError",
    "CaptionOptions",
    "DeviceUnavailableError",
    "DownloadError",
    "Dtype",
    "EditLoadOptions",
    "EditOptions",
    "EditPipeline",
    "EditRequest",
    "Edited",
    "FreeU",
    "GenerateLoadOptions",
    "GenerateOptions",
    "GeneratePipeline",
    "GenerateRequest",
    "Generated",
    "Image",
    "ImageDecodeError",
    "ImageLike",
    "ImageTooLargeError",
    "InputOutputError",
    "InternalError",
    "InvalidInputError",
    "KnownModel",
    "Label",
    "LoadOptions",
    "Lora",
    "MetadataScheme",
    "ModelInvalidError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Performance",
    "Prepared",
    "Preview",
    "Prompter",
    "Sampler",
    "Scheduler",
    "SizeGuidance",
    "Summary",
    "Tag",
    "TagOptions",
    "TagbrushError",
    "Tagger",
    "Tags",
    "UnsupportedError",
    "Unstyled",
    "__version__",
    "cache_dir",
    "cpu_kernels",
    "find_known",
    "performance_lora",
    "pull",
    "set_threads",
]
