"""NLLB-200 on CTranslate2: 202 languages, from each to each, on CPUs and NVIDIA's GPUs.

A translation goes on behind a prefix, and attention says which words of the source it comes from.

Source: NLLB Team, "No Language Left Behind", 2022. The source is ``[language] text </s>``, the
target starts with its language.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import ctranslate2
from tokenizers import Tokenizer

from services.common.errors import DeviceError, InvalidRequestError
from services.common.models import ModelError
from services.translator.languages import LANGUAGES
from services.translator.translator import Job, Look, Pair, Translation

_COMPUTE_TYPES = {"cpu": "int8", "cuda": "float16"}
_END = "</s>"
_MAX_TOKENS = 256
"""What the model was trained on at most, and what a source that makes it loop runs to."""
_GROWTH = 3
"""A translation has no more tokens than so many times its source, and some."""


class Nllb:
    """NLLB-200. Implements ``Translator``."""

    forces_prefix = True

    def __init__(self, folder: Path, *, device: str, compute_type: str, workers: int) -> None:
        """Load a model.

        Args:
            folder: What CTranslate2's converter made, and the model's ``tokenizer.json``.
            device: ``cpu`` or ``cuda``.
            compute_type: Of CTranslate2, or ``auto``: int8 on a CPU, float16 on a GPU.
            workers: Batches at once, each on one core.

        Raises:
            ModelError: The folder holds no such model.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        for name in ("model.bin", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ModelError(f"{folder} holds no NLLB of CTranslate2: it has no {name}")
        if compute_type == "auto":
            compute_type = _COMPUTE_TYPES[device]
        # The tokenizer of Rust panics at a damaged file with an exception of no other kind.
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._vocabulary = self._tokenizer.get_vocab()
        self._languages = [one for one in LANGUAGES if one.code in self._vocabulary]
        if len(self._languages) < 2:
            raise ModelError(f"{folder} holds no NLLB: its tokenizer knows no two languages")
        try:
            self._model = ctranslate2.Translator(
                str(folder),
                device=device,
                compute_type=compute_type,
                inter_threads=workers,
                intra_threads=1,
            )
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error
        self.name = f"nllb-{folder.resolve().name}"
        self.example = Pair(*self._languages[:2])

    def check(self, pair: Pair) -> None:
        """See ``Translator``."""
        for language in (pair.source, pair.target):
            if language not in self._languages:
                known = ", ".join(known.tag for known in self._languages)
                raise InvalidRequestError(f"the model does not know {language.name}, only: {known}")

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: texts of about one length, so that little is padded."""
        return len(job.text) // 100

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        sources = [self._tokens(job.text) for job in jobs]
        prefixes = [self._tokens(job.prefix)[0] if job.prefix else [] for job in jobs]
        limits = [min(_MAX_TOKENS, _GROWTH * len(tokens) + 10) for tokens, _ in sources]
        try:
            results = self._model.translate_batch(
                [
                    [job.pair.source.code, *tokens, _END]
                    for job, (tokens, _) in zip(jobs, sources, strict=True)
                ],
                target_prefix=[
                    [job.pair.target.code, *prefix]
                    for job, prefix in zip(jobs, prefixes, strict=True)
                ],
                beam_size=1,
                max_decoding_length=max(limits),
                return_attention=True,
            )
        except RuntimeError as error:
            raise DeviceError(f"the model failed: {error}") from error
        return [
            # Whoever else is in the batch, a text that makes the model loop ends at its own limit.
            self._translation(result.hypotheses[0][1:limit], result.attention[0], places)
            for result, (_, places), limit in zip(results, sources, limits, strict=True)
        ]

    def _tokens(self, text: str) -> tuple[list[str], list[int]]:
        """The tokens of a text, and where each begins in it."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded.tokens[:_MAX_TOKENS], [begin for begin, _ in encoded.offsets][:_MAX_TOKENS]

    def _translation(
        self, tokens: Sequence[str], attention: Sequence[Sequence[float]], places: Sequence[int]
    ) -> Translation:
        ids = [self._vocabulary[token] for token in tokens]
        looks = []
        for number in range(len(tokens)):
            # The language comes before the text's tokens, the end behind them.
            weights = attention[number + 1][1 : len(places) + 1]
            best = max(range(len(places)), key=lambda place: weights[place], default=0)
            end = len(self._tokenizer.decode(ids[: number + 1]))
            looks.append(Look(end, places[best] if places else 0))
        return Translation(self._tokenizer.decode(ids), tuple(looks))
