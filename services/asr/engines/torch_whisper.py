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
from numpy.typing import NDArray

from services.asr.engines import whisper_row
from services.asr.engines.alignment_heads import parse_heads
from services.asr.engines.lora import merged
from services.asr.engines.torch_alignment import token_frames
from services.asr.engines.torch_decoder import Decoder
from services.asr.engines.torch_encoder import Encoder
from services.asr.engines.torch_mel import LogMel
from services.asr.engines.torch_model import build
from services.asr.engines.torch_round import Row, Vocabulary, decode, first_logits
from services.asr.engines.whisper_checkpoint import Checkpoint
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
from services.common.timeline import samples
from services.common.torch_numbers import dtype_of

_ALIKE_FRAMES = 100
"""Windows that differ by less are encoded together: two seconds of padding are cheaper than another
pass."""


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
        framing: Framing,
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
            framing: How much of each window the encoder hears.
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
        self._tokens = WhisperTokens(checkpoint.tokenizer, multilingual=shape.is_multilingual)
        dtype = dtype_of(compute_type, device, on_gpu=torch.float16)
        if lora is not None:
            checkpoint = merged(checkpoint, lora)
        if device == "cpu":
            torch.set_num_threads(threads)
        try:
            model = build(checkpoint, device=device, dtype=dtype)
            self._encode = Encoder(model, LogMel(shape.n_mels, device))
            self._decoder = Decoder(model, heads)
            self._vocabulary = _on(device, vocabulary_of(self._tokens, shape.n_vocab))
        except (RuntimeError, AssertionError) as error:
            # A torch without CUDA says so with an assertion.
            raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error
        self.engine = f"torch/{device}/{str(dtype).removeprefix('torch.')}"
        self.language_codes = self._tokens.language_codes
        self.tasks = self._tokens.tasks
        self._framing = framing

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text: the last of them, if there are too many."""
        return self._tokens.encode_text(text)

    def bucket(self, window: Window) -> Hashable:
        """About equal numbers of passes, whatever the lengths."""
        return takes_few_passes(window, self._tokens)

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
        return [
            hypothesis_of(window, language, row, self._tokens, _token_frames)
            for window, (row, language) in zip(windows, self._decode(windows), strict=True)
        ]

    def _decode(self, windows: Sequence[Window]) -> list[tuple[Row, tuple[str, float]]]:
        """Each window's text, and its language with the confidence in it."""
        sound = self._decoder.hear(self._states(windows))

        def first(rows: list[int]) -> FloatArray:
            heard = sound
            if len(rows) < len(windows):
                heard = sound.select(torch.tensor(rows, device=self._decoder.device))
            logits = first_logits(self._decoder, self._tokens.sot, heard, len(rows))
            found: FloatArray = logits.cpu().numpy()
            return found

        languages = languages_of(windows, self._tokens, first)
        rows: list[Row] = [
            row_of(window, code, self._tokens)
            for window, (code, _) in zip(windows, languages, strict=True)
        ]
        decode(self._decoder, self._vocabulary, rows, sound)
        return list(zip(rows, languages, strict=True))

    def _states(self, windows: Sequence[Window]) -> list[torch.Tensor]:
        """What the encoder makes of each window, (its frames, d)."""
        together: dict[int, list[int]] = {}
        frames = [self._framing.mel_frames(window) // 2 for window in windows]
        for row, num_frames in enumerate(frames):
            together.setdefault(num_frames // _ALIKE_FRAMES, []).append(row)
        states: dict[int, torch.Tensor] = {}
        for rows in together.values():
            heard = [self._framing.padded(windows[row]) for row in rows]
            states |= zip(rows, self._encode(heard, [frames[row] for row in rows]), strict=True)
        return [states[row] for row in range(len(windows))]


def _on(device: str, words: whisper_row.Vocabulary[FloatArray]) -> Vocabulary:
    barred, first = (
        torch.from_numpy(array).to(device) for array in (words.barred, words.barred_first)
    )
    return whisper_row.Vocabulary(words.eot, words.no_speech, barred, first)


def _token_frames(scores: Sequence[torch.Tensor], num_before: int) -> NDArray[np.int64]:
    return token_frames(torch.cat(list(scores), 1), num_before)
