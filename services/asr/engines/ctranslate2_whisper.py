"""Whisper on CTranslate2: int8 on a CPU, float16 on an NVIDIA GPU.

Windows are short. The encoder is given what was heard and a pad, rounded up so that windows of
similar length share a batch, instead of 30 s of mostly zeros: on a CPU that costs 8-13 times less.
The positions a window gets depend on its own length alone, so a batch equals its windows decoded
one by one.

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022;
word times from cross-attention and dynamic time warping as in openai/whisper's ``timing.py``.
"""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import Tokenizer
from tokenizers import Tokenizer as TextTokenizer

from services.asr.recognizer import Hypothesis, Task, Window
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import SAMPLE_RATE_HZ, samples
from services.common.words import Word

_FILES = ("model.bin", "tokenizer.json")
_HOP_SAMPLES = 160
"""One mel frame per 10 ms."""
_FRAME_SAMPLES = 2 * _HOP_SAMPLES
"""One encoder frame per 20 ms: the convolution's stride."""
_MAX_MEL_FRAMES = 3000
_TEXT_POSITIONS = 448
_TOKENS_PER_S = 11.25
"""Nobody speaks faster: more tokens than this are a loop."""
_MIN_TOKENS = 7
# Whisper's own lists: punctuation that is written before, and behind, a word.
_OPENING = tuple("\"'“¿([{-")
_CLOSING = (*"\"'.。,，!！?？:：;”)]}、…", "...")  # noqa: RUF001 -- full-width is meant
_HALF_CHARACTER = "\ufffd"
"""What a character becomes that the limit on tokens cut in two."""
# Half of the text positions, less the start token: what Whisper was trained with.
_MAX_PROMPT_TOKENS = _TEXT_POSITIONS // 2 - 1


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
        pad_s: float,
        bucket_s: float,
    ) -> None:
        """Load a model.

        Args:
            model_dir: Folder with ``model.bin``, ``config.json`` and ``tokenizer.json``.
            device: ``cpu`` or ``cuda``.
            compute_type: CTranslate2's name, such as ``int8``.
            workers: Batches that run at once; each uses ``threads`` cores.
            threads: Cores per batch.
            beam_size: Hypotheses followed per window; 1 is greedy.
            pad_s: Silence the encoder sees behind the audio, in seconds.
            bucket_s: Window lengths are rounded up to a multiple of this, in seconds.

        Raises:
            ModelError: The folder holds no Whisper model.
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
            self._text: TextTokenizer = TextTokenizer.from_file(str(model_dir / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more precise
            raise DeviceError(f"{model_dir} cannot be loaded on {device}: {error}") from error
        self.engine = f"ctranslate2/{device}/{self._model.compute_type}"
        self._beam_size = beam_size
        self._pad_frames = round(pad_s * 100)
        self._bucket_frames = max(2, round(bucket_s * 100) // 2 * 2)
        self._features = FeatureExtractor(feature_size=self._model.n_mels)
        multilingual = self._model.is_multilingual
        self.language_codes: tuple[str, ...] = (
            _language_codes(self._text) if multilingual else ("en",)
        )
        self._eot: int = _token(self._text, "<|endoftext|>")
        self.tasks: tuple[Task, ...] = (
            (Task.TRANSCRIBE, Task.TRANSLATE) if multilingual else (Task.TRANSCRIBE,)
        )
        self._tokenizers = {
            (code, task): Tokenizer(self._text, multilingual, task=task.value, language=code)
            for code in self.language_codes
            for task in self.tasks
        }

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        tokens: list[int] = self._text.encode(text, add_special_tokens=False).ids
        return tuple(tokens[-_MAX_PROMPT_TOKENS:])

    def bucket(self, window: Window) -> Hashable:
        """Equal encoder positions, equal prompt lengths, equal ways of choosing tokens."""
        return self._mel_frames(window), len(window.prompt), window.temperature

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """Decode windows of one bucket."""
        try:
            return self._recognize(windows)
        except RuntimeError as error:
            # CTranslate2 raises nothing else when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def _mel_frames(self, window: Window) -> int:
        heard = -(-len(window.samples) // _HOP_SAMPLES) + self._pad_frames
        rounded = -(-heard // self._bucket_frames) * self._bucket_frames
        return min(rounded, _MAX_MEL_FRAMES)

    def _recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        mel_frames = self._mel_frames(windows[0])
        mels = np.stack([self._mel(window.samples, mel_frames) for window in windows])
        encoded = self._model.encode(ctranslate2.StorageView.from_array(mels))
        languages = self._languages(windows, encoded)
        tokenizers = [
            self._tokenizers[code, window.task]
            for window, (code, _) in zip(windows, languages, strict=True)
        ]
        limits = [_max_tokens(window) for window in windows]
        prompts = [
            _prompt(window, tokenizer)
            for window, tokenizer in zip(windows, tokenizers, strict=True)
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
                _TEXT_POSITIONS,
                max(max(len(p) + n, 2 * n) for p, n in zip(prompts, limits, strict=True)),
            ),
            return_scores=True,
            return_no_speech_prob=True,
        )
        texts = [
            [token for token in result.sequences_ids[0] if token < self._eot][:limit]
            for result, limit in zip(results, limits, strict=True)
        ]
        words = self._words(windows, tokenizers, encoded, texts)
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

    def _mel(self, heard: FloatArray, mel_frames: int) -> FloatArray:
        mel: FloatArray = self._features(heard)[:, :mel_frames]
        return np.pad(mel, ((0, 0), (0, mel_frames - mel.shape[1]))).astype(np.float32)

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
        tokenizers: Sequence[Tokenizer],
        encoded: ctranslate2.StorageView,
        texts: Sequence[list[int]],
    ) -> list[tuple[Word, ...]]:
        """Cut each row's tokens into words with times."""
        found: list[tuple[Word, ...]] = [() for _ in windows]
        by_start: dict[tuple[int, ...], list[int]] = {}
        for row, tokenizer in enumerate(tokenizers):
            if texts[row]:
                by_start.setdefault(tuple(tokenizer.sot_sequence), []).append(row)
        states = np.asarray(encoded) if len(by_start) > 1 else None
        for start, rows in by_start.items():
            part = encoded
            if len(rows) < len(windows):
                states = np.asarray(encoded) if states is None else states
                part = ctranslate2.StorageView.from_array(np.ascontiguousarray(states[rows]))
            aligned = self._model.align(
                part,
                list(start),
                [texts[row] for row in rows],
                [_align_frames(windows[row]) for row in rows],
            )
            for row, alignment in zip(rows, aligned, strict=True):
                found[row] = _timed_words(windows[row], tokenizers[row], texts[row], alignment)
        return found


def _language_codes(text: TextTokenizer) -> tuple[str, ...]:
    """The languages that have a token: those between start-of-transcript and the tasks."""
    first, last = _token(text, "<|startoftranscript|>"), _token(text, "<|translate|>")
    return tuple(str(text.id_to_token(token)).strip("<|>") for token in range(first + 1, last))


def _token(text: TextTokenizer, name: str) -> int:
    token = text.token_to_id(name)
    if token is None:
        raise ModelError(f"the tokenizer has no {name}: no Whisper model")
    return int(token)


def _prompt(window: Window, tokenizer: Tokenizer) -> list[int]:
    before = [tokenizer.sot_prev, *window.prompt] if window.prompt else []
    return [*before, *tokenizer.sot_sequence, tokenizer.no_timestamps]


def _max_tokens(window: Window) -> int:
    """How many tokens the window can say."""
    return _MIN_TOKENS + int(len(window.samples) / SAMPLE_RATE_HZ * _TOKENS_PER_S)


def _align_frames(window: Window) -> int:
    """Mel frames in which its words may lie: at least one encoder frame."""
    return max(2, len(window.samples) // _HOP_SAMPLES)


def _mean_log(words: Sequence[Word]) -> float:
    if not words:
        return 0.0
    logs = [np.log(max(word.probability, 1e-10)) * len(word.token_ids) for word in words]
    return float(sum(logs) / sum(len(word.token_ids) for word in words))


def _timed_words(
    window: Window,
    tokenizer: Tokenizer,
    tokens: list[int],
    alignment: "ctranslate2._ext.WhisperAlignmentResult",
) -> tuple[Word, ...]:
    """The words; each starts where attention first reaches its first token."""
    texts, groups = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    token_index, frame_index = np.array(alignment.alignments).T
    # Before the first frame there is nothing, whatever a path through very few frames says.
    starts = np.maximum(0, frame_index[np.flatnonzero(np.diff(token_index, prepend=-1))])
    bounds = np.cumsum([0, *(len(group) for group in groups[:-1])])
    end = window.first_sample + len(window.samples)
    words: list[Word] = []
    for text, (begin, after) in _written_words(texts, bounds.tolist()):
        first = min(window.first_sample + int(starts[begin]) * _FRAME_SAMPLES, end - 1)
        last = window.first_sample + int(starts[min(after, len(starts) - 1)]) * _FRAME_SAMPLES
        words.append(
            Word(
                text=text,
                first_sample=first,
                end_sample=max(first + 1, min(last, end)),
                probability=float(np.mean(alignment.text_token_probs[begin:after])),
                token_ids=tuple(tokens[begin:after]),
            )
        )
    return tuple(words)


def _written_words(
    texts: Sequence[str], bounds: Sequence[int]
) -> list[tuple[str, tuple[int, int]]]:
    """Join punctuation to the word that it belongs to.  -> text, (first token, token after)."""
    joined: list[tuple[str, tuple[int, int]]] = []
    opening: tuple[str, int] | None = None
    for text, (begin, after) in zip(texts, pairwise(bounds), strict=False):
        if opening is not None:
            text, begin, opening = opening[0] + text, opening[1], None
        if text.strip() in _OPENING and text.startswith(" "):
            opening = text, begin
        elif joined and text in _CLOSING:
            before, (first, _) = joined[-1]
            joined[-1] = before + text, (first, after)
        elif text.strip() and _HALF_CHARACTER not in text:
            joined.append((text, (begin, after)))
    return joined
