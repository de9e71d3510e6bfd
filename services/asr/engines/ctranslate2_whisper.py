"""Whisper on CTranslate2: int8 on a CPU, float16 on an NVIDIA GPU.

Windows that the encoder hears equally much of share a batch. How much that is depends on a window's
own length alone, so a batch equals its windows decoded one by one.

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022;
word times from cross-attention and dynamic time warping as in openai/whisper's ``timing.py``.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor

from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.engines.whisper_window import (
    TEXT_POSITIONS,
    Framing,
    align_mel_frames,
    max_tokens,
)
from services.asr.engines.whisper_words import timed_words
from services.asr.recognizer import Hypothesis, Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import samples
from services.common.words import Word

_FILES = ("model.bin", "tokenizer.json")


class CTranslate2Whisper:
    """A Whisper model in CTranslate2's format. Implements ``Recognizer``."""

    max_window_samples = samples(30)

    def __init__(
        self,
        model_dir: Path,
        *,
        device: str,
        compute_type: str,
        workers: int,
        threads: int,
        beam_size: int,
        framing: Framing,
    ) -> None:
        """Load a model.

        Args:
            model_dir: Folder with ``model.bin``, ``config.json`` and ``tokenizer.json``.
            device: ``cpu`` or ``cuda``.
            compute_type: CTranslate2's name, such as ``int8``.
            workers: Batches that run at once; each uses ``threads`` cores.
            threads: Cores per batch.
            beam_size: Hypotheses followed per window; 1 is greedy.
            framing: How much of each window the encoder hears.

        Raises:
            ModelError: The folder holds no Whisper model, or no tokenizer of one.
            DeviceError: The model is damaged, or the device is not there.

        """
        for name in _FILES:
            if not (model_dir / name).is_file():
                raise ModelError(f"{model_dir} has no {name}: no Whisper model for CTranslate2")
        try:
            self._model = ctranslate2.models.Whisper(
                str(model_dir),
                device=device,
                compute_type=compute_type,
                inter_threads=workers,
                intra_threads=threads,
            )
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"{model_dir} cannot be loaded on {device}: {error}") from error
        self.engine = f"ctranslate2/{device}/{self._model.compute_type}"
        self._beam_size = beam_size
        self._framing = framing
        self._features = FeatureExtractor(feature_size=self._model.n_mels)
        self._tokens = WhisperTokens(
            model_dir / "tokenizer.json", multilingual=self._model.is_multilingual
        )
        self.language_codes = self._tokens.language_codes
        self.tasks = self._tokens.tasks

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        return self._tokens.encode_text(text)

    def bucket(self, window: Window) -> Hashable:
        """Equal encoder positions, equal prompt lengths, equal ways of choosing tokens."""
        num_prompt = len(self._tokens.prompt(window.prompt))
        return self._framing.mel_frames(window), num_prompt, window.temperature

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """Decode windows of one bucket."""
        try:
            return self._recognize(windows)
        except RuntimeError as error:
            # CTranslate2 raises nothing else when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def _recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        mels = np.stack([self._mel(window) for window in windows])
        encoded = self._model.encode(ctranslate2.StorageView.from_array(mels))
        languages = self._languages(windows, encoded)
        starts = [
            self._tokens.start(code, window.task)
            for window, (code, _) in zip(windows, languages, strict=True)
        ]
        limits = [max_tokens(window) for window in windows]
        prompts = [
            [*self._tokens.prompt(window.prompt), *start]
            for window, start in zip(windows, starts, strict=True)
        ]
        temperature = windows[0].temperature
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=self._beam_size if temperature == 0 else 1,
            sampling_topk=0 if temperature > 0 else 1,
            sampling_temperature=temperature or 1.0,
            # CTranslate2 counts the prompt in, and stops at half of this without one.
            max_length=min(
                TEXT_POSITIONS,
                max(max(len(p) + n, 2 * n) for p, n in zip(prompts, limits, strict=True)),
            ),
            return_scores=True,
            return_no_speech_prob=True,
        )
        texts = [
            [token for token in result.sequences_ids[0] if token < self._tokens.eot][:limit]
            for result, limit in zip(results, limits, strict=True)
        ]
        words = self._words(windows, languages, starts, encoded, texts)
        return [
            Hypothesis(
                words=words[row],
                language_code=languages[row][0],
                language_probability=languages[row][1],
                no_speech_probability=results[row].no_speech_prob,
                avg_log_probability=_mean_log(words[row]),
            )
            for row in range(len(windows))
        ]

    def _mel(self, window: Window) -> FloatArray:
        mel: FloatArray = self._features(self._framing.padded(window))
        return mel[:, : self._framing.mel_frames(window)].astype(np.float32)

    def _languages(
        self, windows: Sequence[Window], encoded: ctranslate2.StorageView
    ) -> list[tuple[str, float]]:
        given = [(window.language_code, 1.0) for window in windows]
        if len(self.language_codes) == 1:
            return [(self.language_codes[0], 1.0)] * len(windows)
        if all(code for code, _ in given):
            return given
        detected = self._model.detect_language(encoded)
        return [
            known if known[0] else (ranked[0][0].strip("<|>"), ranked[0][1])
            for known, ranked in zip(given, detected, strict=True)
        ]

    def _words(
        self,
        windows: Sequence[Window],
        languages: Sequence[tuple[str, float]],
        starts: Sequence[list[int]],
        encoded: ctranslate2.StorageView,
        texts: Sequence[list[int]],
    ) -> list[tuple[Word, ...]]:
        """Cut each row's tokens into words with times."""
        found: list[tuple[Word, ...]] = [() for _ in windows]
        by_start: dict[tuple[int, ...], list[int]] = {}
        for row, start in enumerate(starts):
            if texts[row]:
                by_start.setdefault(tuple(start), []).append(row)
        states = np.asarray(encoded) if len(by_start) > 1 else None
        for begin, rows in by_start.items():
            part = encoded
            if len(rows) < len(windows):
                states = np.asarray(encoded) if states is None else states
                part = ctranslate2.StorageView.from_array(np.ascontiguousarray(states[rows]))
            aligned = self._model.align(
                part,
                list(begin[:-1]),  # it says itself that there are no times
                [texts[row] for row in rows],
                [align_mel_frames(windows[row]) for row in rows],
            )
            for row, alignment in zip(rows, aligned, strict=True):
                split = self._tokens.split(texts[row], languages[row][0])
                found[row] = _timed_words(windows[row], split, texts[row], alignment)
        return found


def _mean_log(words: Sequence[Word]) -> float:
    if not words:
        return 0.0
    logs = [np.log(max(word.probability, 1e-10)) * len(word.token_ids) for word in words]
    return float(sum(logs) / sum(len(word.token_ids) for word in words))


def _timed_words(
    window: Window,
    split: Sequence[tuple[str, int]],
    tokens: Sequence[int],
    alignment: "ctranslate2._ext.WhisperAlignmentResult",
) -> tuple[Word, ...]:
    """The words; each starts where attention first reaches its first token."""
    token_index, frame_index = np.array(alignment.alignments).T
    starts = frame_index[np.flatnonzero(np.diff(token_index, prepend=-1))]
    return timed_words(window, split, tokens, starts, alignment.text_token_probs)
