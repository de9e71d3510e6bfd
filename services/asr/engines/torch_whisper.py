"""Whisper on torch: NVIDIA GPUs, Apple GPUs, CPUs. Batches are ragged: windows of any length.

transformers' modules, with a loop of our own around them: the encoder hears what was said and a
pad instead of 30 s, nobody attends to the padding behind another row, and attention is computed
apart for the alignment heads alone, so that words have times without a second pass.

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022;
openai/whisper; drafts are verified as in Leviathan et al., "Fast Inference from Transformers via
Speculative Decoding", 2023, with the last decoding in the place of a second model.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch

from services.asr.engines.alignment_heads import parse_heads
from services.asr.engines.lora import merged
from services.asr.engines.torch_alignment import token_frames
from services.asr.engines.torch_decoder import Decoder, Sound
from services.asr.engines.torch_encoder import Encoder
from services.asr.engines.torch_mel import LogMel
from services.asr.engines.torch_model import build
from services.asr.engines.torch_round import Row, Vocabulary, decode, first_logits
from services.asr.engines.whisper_checkpoint import Checkpoint
from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.engines.whisper_window import (
    MAX_MEL_FRAMES,
    TEXT_POSITIONS,
    align_mel_frames,
    heard_mel_frames,
    max_tokens,
)
from services.asr.engines.whisper_words import timed_words
from services.asr.recognizer import Hypothesis, Window
from services.common.errors import DeviceError
from services.common.timeline import samples
from services.common.words import Word

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MULTILINGUAL_VOCABULARY = 51_865
_SHORT_SAMPLES = samples(8.0)


class TorchWhisper:
    """A Whisper model on torch. Implements ``Recognizer``."""

    max_window_samples = samples(30)

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        compute_type: str,
        threads: int,
        pad_s: float,
        bucket_s: float,
        alignment_heads: str = "",
        lora: Path | None = None,
    ) -> None:
        """Put a model onto a device.

        Args:
            checkpoint: The model.
            device: ``cpu``, ``cuda`` or ``mps``.
            compute_type: ``float32``, ``float16``, ``bfloat16``, or ``auto``: float16 on a GPU; on
                a CPU bfloat16 if it multiplies matrices of them (AMX), else float32.
            threads: Cores per batch, on a CPU. For the whole process: torch knows no other way.
            pad_s: Silence the encoder sees behind the audio, in seconds.
            bucket_s: Windows whose lengths are equal, rounded up to a multiple of this, are encoded
                together, in seconds.
            alignment_heads: In any of the forms of ``parse_heads``; empty: the model's own.
            lora: Folder of an adapter that is merged into the weights.

        Raises:
            ModelError: The checkpoint or the adapter is not a Whisper model's.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        shape = checkpoint.dimensions
        heads = checkpoint.alignment_heads
        if alignment_heads:
            heads = parse_heads(
                alignment_heads, num_layers=shape.n_text_layer, num_heads=shape.n_text_head
            )
        self._tokens = WhisperTokens(
            checkpoint.tokenizer, multilingual=shape.n_vocab >= _MULTILINGUAL_VOCABULARY
        )
        dtype = _dtype(compute_type, device)
        if lora is not None:
            checkpoint = merged(checkpoint, lora)
        if device == "cpu":
            torch.set_num_threads(threads)
        try:
            model = build(checkpoint, device=device, dtype=dtype)
            self._encode = Encoder(model, LogMel(shape.n_mels, device))
            self._decoder = Decoder(model, heads)
            self._vocabulary = _vocabulary(self._tokens, shape.n_vocab, device)
        except (RuntimeError, AssertionError) as error:
            # A torch without CUDA says so with an assertion.
            raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error
        self.engine = f"torch/{device}/{str(dtype).removeprefix('torch.')}"
        self.language_codes = self._tokens.language_codes
        self.tasks = self._tokens.tasks
        self._pad_frames = round(pad_s * 50)
        self._bucket_frames = max(1, round(bucket_s * 50))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        return self._tokens.encode_text(text)

    def bucket(self, window: Window) -> Hashable:
        """About equal numbers of passes: a batch takes as many as its slowest row."""
        short = len(window.samples) <= _SHORT_SAMPLES
        return short or bool(self._draft(window))

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """Decode windows, of whatever lengths."""
        try:
            with torch.inference_mode():
                return self._recognize(windows)
        except RuntimeError as error:
            # Also what is raised when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def attention(self, window: Window) -> tuple[list[int], torch.Tensor]:
        """What a window says, and what the alignment heads look at meanwhile.

        Returns:
            The n tokens of its text; and (heads in order, n, encoder frames) float32, of which
            those of one head and token sum to 1.

        """
        with torch.inference_mode():
            [(row, _)] = self._decode([window])
            num_tokens = len(row.tokens)
            scores = torch.cat(row.scores, 1)[:, -num_tokens - 1 : -1] if num_tokens else None
            return row.tokens, torch.empty(0) if scores is None else scores.softmax(-1)

    def log_probabilities(
        self, windows: Sequence[Window], tokens: Sequence[int], language_code: str
    ) -> torch.Tensor:
        """How probable a text is for each of some windows.

        Returns:
            (windows, tokens) float32, each given those before it.

        """
        start = self._tokens.start(language_code, windows[0].task)
        with torch.inference_mode():
            sound = self._decoder.hear(self._states(windows))
            ids = torch.tensor([[*start, *tokens]] * len(windows), device=self._decoder.device)
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            text = self._decoder.begin(len(windows))
            states, _ = self._decoder(ids, positions, ids.shape[1], text, sound)
            index = torch.tensor(list(tokens), device=ids.device)[:, None]
            found = [
                self._decoder.logits(row[len(start) - 1 : -1]).log_softmax(-1).gather(1, index)
                for row in states
            ]
            return torch.cat(found, 1).T

    def _recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        decoded = self._decode(windows)
        return [
            self._hypothesis(window, language, row)
            for window, (row, language) in zip(windows, decoded, strict=True)
        ]

    def _decode(self, windows: Sequence[Window]) -> list[tuple[Row, tuple[str, float]]]:
        """Each window's text, and its language with the confidence in it."""
        sound = self._decoder.hear(self._states(windows))
        languages = self._languages(windows, sound)
        rows = [
            self._row(window, code) for window, (code, _) in zip(windows, languages, strict=True)
        ]
        decode(self._decoder, self._vocabulary, rows, sound)
        return list(zip(rows, languages, strict=True))

    def _states(self, windows: Sequence[Window]) -> list[torch.Tensor]:
        """What the encoder makes of each window, (its frames, d)."""
        together: dict[int, list[int]] = {}
        frames = [self._num_frames(window) for window in windows]
        for row, num_frames in enumerate(frames):
            together.setdefault(-(-num_frames // self._bucket_frames), []).append(row)
        states: dict[int, torch.Tensor] = {}
        for rows in together.values():
            heard = [windows[row].samples for row in rows]
            states |= zip(rows, self._encode(heard, [frames[row] for row in rows]), strict=True)
        return [states[row] for row in range(len(windows))]

    def _num_frames(self, window: Window) -> int:
        """Encoder frames: what was heard, and the pad."""
        return min(-(-heard_mel_frames(window) // 2) + self._pad_frames, MAX_MEL_FRAMES // 2)

    def _languages(self, windows: Sequence[Window], sound: Sound) -> list[tuple[str, float]]:
        tokens = self._tokens.languages
        if not tokens:
            return [("en", 1.0)] * len(windows)
        found = [(window.language_code, 1.0) for window in windows]
        unknown = [row for row, (code, _) in enumerate(found) if not code]
        if unknown:
            heard = sound
            if len(unknown) < len(windows):
                heard = sound.select(torch.tensor(unknown, device=self._decoder.device))
            logits = first_logits(self._decoder, self._tokens.sot, heard, len(unknown))
            ranked = logits[:, list(tokens.values())].softmax(-1).max(-1)
            for row, probability, index in zip(
                unknown, ranked.values.tolist(), ranked.indices.tolist(), strict=True
            ):
                found[row] = self.language_codes[index], probability
        return found

    def _row(self, window: Window, language_code: str) -> Row:
        before = self._tokens.prompt(window.prompt)
        start = [*before, *self._tokens.start(language_code, window.task)]
        limit = min(max_tokens(window), TEXT_POSITIONS - len(start))
        return Row(
            start=start,
            sot=len(before),
            draft=self._draft(window)[:limit],
            limit=limit,
            num_frames=align_mel_frames(window) // 2,
            temperature=window.temperature,
            # The same window says the same, whatever is decoded beside it.
            chance=np.random.default_rng((window.first_sample, len(window.samples))),
        )

    def _draft(self, window: Window) -> list[int]:
        """As much of the draft as is text; nothing where chance decides."""
        if window.temperature > 0:
            return []
        end = next(
            (n for n, token in enumerate(window.draft) if not 0 <= token < self._tokens.eot),
            len(window.draft),
        )
        return list(window.draft[:end])

    def _hypothesis(self, window: Window, language: tuple[str, float], row: Row) -> Hypothesis:
        return Hypothesis(
            words=self._words(window, language[0], row) if row.tokens else (),
            language_code=language[0],
            language_probability=language[1],
            no_speech_probability=row.no_speech_probability,
            avg_log_probability=float(np.mean(row.log_probabilities)) if row.tokens else 0.0,
        )

    def _words(self, window: Window, language_code: str, row: Row) -> tuple[Word, ...]:
        return timed_words(
            window,
            self._tokens.split(row.tokens, language_code),
            row.tokens,
            token_frames(torch.cat(row.scores, 1), len(row.start) - row.sot),
            np.exp(row.log_probabilities).tolist(),
        )


def _dtype(compute_type: str, device: str) -> torch.dtype:
    if compute_type == "auto":
        if device != "cpu":
            return torch.float16
        return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
    if compute_type not in _DTYPES or (device == "cpu" and compute_type == "float16"):
        raise DeviceError(f"torch does not run Whisper in {compute_type} on {device}")
    return _DTYPES[compute_type]


def _vocabulary(tokens: WhisperTokens, num_vocab: int, device: str) -> Vocabulary:
    barred = torch.zeros(num_vocab)
    # Above the end of a text there are languages, tasks and times: no text.
    barred[tokens.eot + 1 :] = float("-inf")
    barred[list(tokens.unspoken())] = float("-inf")
    first = torch.zeros(num_vocab)
    first[list(tokens.blank())] = float("-inf")
    return Vocabulary(tokens.eot, tokens.no_speech, barred.to(device), first.to(device))
