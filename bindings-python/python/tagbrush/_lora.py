"""LoRA files, for pipelines that take them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from . import _core
from ._options import Performance, StrPath


class Lora(NamedTuple):
    """A LoRA file and how strongly it is applied."""

    file: StrPath
    """Safetensors, in the key formats of peft, kohya, diffusers or ComfyUI."""
    scale: float = 1.0
    """1 is as it was trained, 0 not at all; negative values turn it around."""


def lora_files(loras: Iterable[StrPath | Lora | tuple[StrPath, float]]) -> list[tuple[str, float]]:
    """The files as the core takes them."""
    if isinstance(loras, (str, bytes, os.PathLike)):
        raise TypeError("expected a list of LoRA files, got one")
    pairs = [Lora(*lora) if isinstance(lora, tuple) else Lora(lora) for lora in loras]
    return [(os.fspath(lora.file), float(lora.scale)) for lora in pairs]


def performance_lora(performance: Performance, /) -> Lora | None:
    """The LoRA file that a performance needs, by its name in Fooocus' folder of LoRA files, and its scale; none for
    the slow ones.

    Raises:
        InvalidInputError: there is no such performance.
    """
    found = _core.performance_lora(performance)
    return None if found is None else Lora(*found)
