"""NLLB-200 through nllw, the translator of WhisperLiveKit: one text at a time, always afresh.

Of nllw only the translation of a whole text is used. What it does with a growing one, a stream and
its policy do here: nllw keeps one session's state, and prints what was said.

Source: the package nllw, 0.1.6.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import torch
from nllw.core import TranslationBackend
from transformers import NllbTokenizer

from services.common.errors import DeviceError
from services.translator.engines.nllb import (
    MAX_TOKENS,
    check_known,
    languages_of,
    limit,
    load_tokenizer,
)
from services.translator.engines.nllb_transformers import load_modules
from services.translator.translator import Job, Pair, Translation

_MAX_PAIRS = 64
"""Pairs whose tables are kept: each is some megabytes, and takes nllw seconds to make."""

_AROUND = 2
"""Tokens of a source that are none of its text: its language, the end."""

Backend: TypeAlias = Any
"""``TranslationBackend``, without types in nllw."""


class Nllw:
    """NLLB-200. Implements ``Translator``."""

    forces_prefix = False

    def __init__(self, folder: Path, *, device: str, compute_type: str, threads: int) -> None:
        """Load it; the arguments are those of ``TransformersNllb``.

        Raises:
            ModelError: The folder holds no such model.
            DeviceError: The device is not there, does not compute with such numbers, or is a CPU
                beside a GPU, which nllw would take.

        """
        if device == "cpu" and torch.cuda.is_available():
            raise DeviceError("nllw takes the GPU where there is one: set TRANSLATOR_DEVICE=cuda")
        self.name = f"nllw-{folder.resolve().name}"
        self._languages = languages_of(folder.name, load_tokenizer(folder))
        self.example = Pair(*self._languages[:2])
        self._folder = folder
        self._model = load_modules(folder, device, compute_type, threads)
        self._making = Lock()
        self._kept = lru_cache(_MAX_PAIRS)(self._make)

    def check(self, pair: Pair) -> None:
        """See ``Translator``."""
        check_known(pair, self._languages)

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: a call takes its texts one after the other."""
        return None

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        return [self._translate(job) for job in jobs]

    def _translate(self, job: Job) -> Translation:
        with self._making:
            backend = self._kept(job.pair)
        heard = backend.tokenizer(
            job.text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS + _AROUND
        ).to(backend.device)
        longest = limit(heard["input_ids"].shape[1] - _AROUND)
        try:
            with torch.inference_mode():
                states = self._model.model.encoder(**heard)
            # The end comes before the language.
            [said] = backend.generate(states, heard["attention_mask"], max_length=longest + 1)
        except RuntimeError as error:
            raise DeviceError(f"the model failed: {error}") from error
        return Translation(backend.tokenizer.decode(said, skip_special_tokens=True))

    def _make(self, pair: Pair) -> Backend:
        tokenizer: Any = NllbTokenizer.from_pretrained(self._folder, src_lang=pair.source.code)
        return TranslationBackend(
            pair.source.code, pair.target.code, model=self._model, tokenizer=tokenizer
        )
