"""NLLB-200 on CTranslate2: CPUs in int8, and NVIDIA's GPUs."""

from collections.abc import Sequence
from pathlib import Path

import ctranslate2
from tokenizers import Tokenizer

from services.common.errors import DeviceError
from services.common.models import ModelError
from services.translator.engines.nllb import Ask, Said

_COMPUTE_TYPES = {"cpu": "int8", "cuda": "float16"}


class CTranslate2Nllb:
    """The network. Implements ``Network``."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, *, device: str, compute_type: str, workers: int
    ) -> None:
        """Load it.

        Args:
            folder: What CTranslate2's converter made.
            tokenizer: The model's; CTranslate2 wants to be told tokens, not their numbers.
            device: ``cpu`` or ``cuda``.
            compute_type: Of CTranslate2, or ``auto``: int8 on a CPU, float16 on a GPU.
            workers: Batches at once, each on one core.

        Raises:
            ModelError: The folder holds no such model.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        if not (folder / "model.bin").is_file():
            raise ModelError(f"{folder} holds no NLLB of CTranslate2: it has no model.bin")
        if compute_type == "auto":
            compute_type = _COMPUTE_TYPES[device]
        self._ids = tokenizer.get_vocab()
        self._texts = {number: text for text, number in self._ids.items()}
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

    def decode(self, asks: Sequence[Ask]) -> list[Said]:
        """See ``Network``."""
        try:
            results = self._model.translate_batch(
                [self._tokens(ask.source) for ask in asks],
                # It starts with the end by itself.
                target_prefix=[self._tokens(ask.begin[1:]) for ask in asks],
                beam_size=1,
                max_decoding_length=max(ask.limit for ask in asks),
                return_attention=True,
            )
        except RuntimeError as error:
            raise DeviceError(f"the model failed: {error}") from error
        return [
            self._said(result.hypotheses[0], result.attention[0], ask)
            for result, ask in zip(results, asks, strict=True)
        ]

    def _tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._texts[number] for number in ids]

    def _said(self, tokens: Sequence[str], attention: Sequence[Sequence[float]], ask: Ask) -> Said:
        # Whoever else is in the batch, a text that makes the model loop ends at its own limit.
        ids = [self._ids[token] for token in tokens[1 : ask.limit]]
        # The language comes before the text's tokens, the end behind them.
        text = range(1, len(ask.source) - 1)
        looks = [
            max(text, key=weights.__getitem__, default=1) - 1
            for weights in attention[1 : len(ids) + 1]
        ]
        return Said(ids, looks)
