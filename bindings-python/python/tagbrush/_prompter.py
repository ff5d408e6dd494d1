"""``tagbrush.Prompter``: what people write as a prompt, made into requests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from . import _core
from ._generate import GenerateRequest, Unstyled
from ._lora import Lora
from ._options import StrPath


class Prepared(NamedTuple):
    """Requests made of a prompt."""

    requests: list[GenerateRequest]
    """One for each picture, with its seed."""
    loras: list[Lora]
    """The LoRA files that the prompt names, which the model must have: see
    :meth:`GeneratePipeline.set_loras`."""


class Prompter:
    """Prepares prompts as Fooocus does, with what lies in the user's folders. No model is needed for it, and a seed
    always makes the same of a prompt.

    - Each line of a prompt is a text of its own; the first one is what styles are around.
    - ``<lora:name:0.8>`` in the first line is a LoRA file by its name.
    - ``__name__`` is a line of ``name.txt``.
    - ``[[red, green, blue]]`` is another one for each picture.
    """

    def __init__(
        self,
        *,
        styles: StrPath | None = None,
        wildcards: StrPath | None = None,
        loras: Iterable[StrPath] = (),
    ) -> None:
        """Reads the styles.

        Args:
            styles: a folder of styles, as ``sdxl_styles`` of Fooocus is one; a few of our own unless set.
            wildcards: the folder of wildcards.
            loras: folders of LoRA files that prompts may name.

        Raises:
            ModelNotFoundError: there is no such folder of styles.
            InvalidInputError: a file in it has no styles.
        """
        path = lambda folder: None if folder is None else os.fspath(folder)  # noqa: E731
        if isinstance(loras, (str, bytes, os.PathLike)):
            raise TypeError("expected a list of folders of LoRA files, got one")
        self._core = _core.Prompter(path(styles), path(wildcards), [os.fspath(folder) for folder in loras])

    @property
    def style_names(self) -> list[str]:
        """The names of all styles, and ``Random Style``."""
        return self._core.style_names

    def prepare(
        self,
        prompt: str,
        negative_prompt: str = "",
        /,
        *,
        n: int = 1,
        styles: Sequence[str] = (),
        seed: int | None = None,
        same_seed: bool = False,
        wildcards_in_order: bool = False,
    ) -> Prepared:
        """The requests for a prompt and what is not to be seen.

        Args:
            n: pictures. Each is a request of its own, as its wildcards and arrays may differ.
            styles: styles by their names, in order; ``Random Style`` stands for any of them.
            seed: of the first picture, below 2**63; drawn unless set.
            same_seed: all pictures have that seed, and not the next ones.
            wildcards_in_order: wildcards take the lines of their files in order, a line for a picture.

        Raises:
            InvalidInputError: an option means nothing, or there is no such style.
            ModelNotFoundError: there is no such LoRA file.
            UnsupportedError: the style ``Fooocus V2`` is another network.
            InputOutputError: a file of words cannot be read.
        """
        if isinstance(styles, str):
            raise TypeError("expected a list of styles, got one")
        options = {
            "n": n,
            "styles": list(styles),
            "seed": seed,
            "same_seed": same_seed,
            "wildcards_in_order": wildcards_in_order,
        }
        requests, loras = self._core.prepare(prompt, negative_prompt, options)
        made = [
            GenerateRequest(text, against, seed=seed, as_is=True, unstyled=Unstyled(*unstyled))
            for text, against, seed, unstyled in requests
        ]
        return Prepared(made, [Lora(file, scale) for file, scale in loras])
