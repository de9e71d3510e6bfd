"""Whisper on a CPU, in int8: CTranslate2 encodes, ONNX Runtime decodes.

CTranslate2 has the faster encoder, but says a forced prefix token by token. A live window is mostly
what it was a second ago: here its last text is verified in one pass, as a draft, and only what
is new is said token by token; words get their times from the same passes.

The numbers that a row is computed with depend on it alone, but are rounded to int8 on the way, and
sums in the order of another batch may be rounded to the next step. So where two tokens are almost
equally probable, a window may say the other one beside other windows, or with another draft.

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022; drafts
are verified as in Leviathan et al., "Fast Inference from Transformers via Speculative Decoding",
2023, with the last decoding in the place of a second model.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from services.asr.engines.ctranslate2_format import load
from services.asr.engines.onnx_decoder import Decoder
from services.asr.engines.onnx_round import Row, decode, first_logits
from services.asr.engines.whisper_alignment import token_frames
from services.asr.engines.whisper_row import (
    hypothesis_of,
    languages_of,
    row_of,
    takes_few_passes,
    vocabulary_of,
)
from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.engines.whisper_window import Framing
from services.asr.recognizer import Hypothesis, Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.onnx_session import ERRORS
from services.common.timeline import samples

_ERRORS: tuple[type[Exception], ...] = (RuntimeError, *ERRORS)
"""What CTranslate2 and ONNX Runtime raise when memory is gone, and whenever else they fail."""


class OnnxWhisper:
    """A Whisper model from CTranslate2's format. Implements ``Recognizer``."""

    max_window_samples = samples(30)

    def __init__(self, model_dir: Path, *, workers: int, threads: int, framing: Framing) -> None:
        """Load a model.

        Args:
            model_dir: Folder with ``model.bin``, ``config.json`` and ``tokenizer.json``.
            workers: Batches that run at once.
            threads: Cores per batch.
            framing: How much of each window the encoder hears.

        Raises:
            ModelError: The folder holds no Whisper model, or a damaged one.
            DeviceError: A library does not take the model.

        """
        if not (model_dir / "model.bin").is_file():
            raise ModelError(f"{model_dir} has no model.bin: no Whisper model for CTranslate2")
        checkpoint = load(model_dir)
        shape = checkpoint.dimensions
        self._tokens = WhisperTokens(checkpoint.tokenizer, multilingual=shape.is_multilingual)
        self._vocabulary = vocabulary_of(self._tokens, shape.n_vocab)
        # One pool of threads helps all workers, each of which has its own thread already.
        self._decoder = Decoder(checkpoint, threads=1 + workers * (threads - 1))
        try:
            self._encoder = ctranslate2.models.Whisper(
                str(model_dir),
                device="cpu",
                compute_type="int8",
                inter_threads=workers,
                intra_threads=threads,
            )
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"{model_dir} cannot be loaded on cpu: {error}") from error
        self._features = FeatureExtractor(feature_size=shape.n_mels)
        self._framing = framing
        self.engine = "onnx/cpu/int8"
        self.language_codes = self._tokens.language_codes
        self.tasks = self._tokens.tasks

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        return self._tokens.encode_text(text)

    def bucket(self, window: Window) -> Hashable:
        """About equal numbers of passes, whatever the lengths."""
        return takes_few_passes(window, self._tokens)

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """Decode windows, of whatever lengths."""
        try:
            return self._recognize(windows)
        except _ERRORS as error:
            raise DeviceError(f"the model failed: {error}") from error

    def _recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        text = self._decoder.hear([self._states(window) for window in windows])
        languages = languages_of(
            windows,
            self._tokens,
            lambda rows: first_logits(self._decoder, self._tokens.sot, text.select(rows)),
        )
        rows: list[Row] = [
            row_of(window, code, self._tokens)
            for window, (code, _) in zip(windows, languages, strict=True)
        ]
        decode(self._decoder, self._vocabulary, rows, text)
        return [
            hypothesis_of(window, language, row, self._tokens, _token_frames)
            for window, language, row in zip(windows, languages, rows, strict=True)
        ]

    def _states(self, window: Window) -> FloatArray:
        """What the encoder makes of a window, (its frames, d)."""
        num_frames = self._framing.mel_frames(window)
        mel = self._features(self._framing.padded(window))[:, :num_frames].astype(np.float32)
        # One by one: the encoder gains nothing from a batch.
        encoded = self._encoder.encode(ctranslate2.StorageView.from_array(mel[None]))
        states: FloatArray = np.asarray(encoded)[0]
        return states


def _token_frames(scores: Sequence[FloatArray], num_before: int) -> NDArray[np.int64]:
    return token_frames(np.concatenate(scores, axis=1), num_before)
