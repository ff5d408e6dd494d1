"""What can go wrong, as classes.

Every exception of this package is a :class:`TagbrushError`, and also the builtin that people expect:
``except FileNotFoundError`` catches a model that is not there. ``str(error)`` is one line;
``error.code`` is a stable name for programs, the same as in the command line's JSON and over HTTP; and
``error.context`` says where it happened, such as ``{"file": "a.png"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "CancelledError",
    "DeviceUnavailableError",
    "DownloadError",
    "ImageDecodeError",
    "ImageTooLargeError",
    "InputOutputError",
    "InternalError",
    "InvalidInputError",
    "ModelInvalidError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "TagbrushError",
    "UnsupportedError",
]


class TagbrushError(Exception):
    """The base of all exceptions of this package."""

    code: ClassVar[str] = "error"
    """A stable name of the kind of error."""

    context: dict[str, str]
    """Where it went wrong: names such as ``file``, ``field`` or ``tensor``, and their values."""

    def __init__(self, message: str = "", context: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.context = dict(context or {})


class InvalidInputError(TagbrushError, ValueError):
    """An option, argument or field has a value that cannot be used."""

    code = "invalid_input"


class ImageDecodeError(TagbrushError, ValueError):
    """The bytes are not an image that can be decoded."""

    code = "image_decode"


class ImageTooLargeError(TagbrushError, ValueError):
    """The image is larger than the limits in force."""

    code = "image_too_large"


class ModelNotFoundError(TagbrushError, FileNotFoundError):
    """No model of that name, or its files are missing."""

    code = "model_not_found"


class ModelInvalidError(TagbrushError, ValueError):
    """The model's files contradict each other, are damaged, or are not of a known form."""

    code = "model_invalid"


class DownloadError(TagbrushError, OSError):
    """A download failed."""

    code = "download"


class UnsupportedError(TagbrushError, NotImplementedError):
    """The request is valid but not supported by this build, model or device."""

    code = "unsupported"


class DeviceUnavailableError(TagbrushError, RuntimeError):
    """The device that was asked for cannot be used."""

    code = "device_unavailable"


class OutOfMemoryError(TagbrushError, MemoryError):
    """The device or the machine has not enough memory."""

    code = "out_of_memory"


class CancelledError(TagbrushError):
    """The work was cancelled by a callback that gave ``False``."""

    code = "cancelled"


class InputOutputError(TagbrushError, OSError):
    """A file could not be read or written."""

    code = "io"


class InternalError(TagbrushError, RuntimeError):
    """A fault of this package."""

    code = "internal"
