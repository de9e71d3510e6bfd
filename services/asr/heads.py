"""``python -m services.asr.heads``: which cross-attention heads of a Whisper model follow speech.

No reference is needed. A model transcribes recordings; then each is cut off after ever more of it:
where a token becomes probable, and stays so, its sound has been heard. The heads that belong to
the alignment are those that look there when the token is said. It takes some minutes on a CPU.

OpenAI publishes such heads for its own models ("highly correlated to word-level timing",
openai/whisper, ``__init__.py``). Of those of tiny.en and base this finds most, and some others.
"""

import argparse
import json
import math
import os
import sys
import wave
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.asr.engines.alignment_heads import Head, dump_heads
from services.asr.engines.torch_whisper import TorchWhisper
from services.asr.engines.whisper_weights import load_checkpoint
from services.asr.engines.whisper_window import FRAME_SAMPLES, Framing
from services.asr.recognizer import Window
from services.common import models
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import SAMPLE_RATE_HZ, samples

_WINDOW_S = 15.0
_STEP_S = 0.1
_BATCH = 8
_HEARD_SHARE = 0.5
"""A token has been heard where it has this share of its probability with all of the sound."""
_LEAST_GAIN = 1.0
"""By how much it must have become more probable there: the logarithm of the ratio. Else the words
before it make it probable, and not the sound."""
_NEAR_S = 0.2
_SHARE_OF_BEST = 0.5

Scores = NDArray[np.float64]


def read_recording(path: Path) -> FloatArray:
    """Read a WAV file of 16-bit samples.  -> (num_samples,) at 16 kHz, one channel.

    Raises:
        ValueError: It is none.

    """
    try:
        with wave.open(str(path)) as source:
            if source.getsampwidth() != 2:
                raise ValueError(f"{path} does not have samples of 16 bits")
            pcm = np.frombuffer(source.readframes(source.getnframes()), "<i2")
            rate, channels = source.getframerate(), source.getnchannels()
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path} is no WAV file: {error}") from error
    sound = pcm.reshape(-1, channels).mean(1) / 32768
    num_samples = round(len(sound) * SAMPLE_RATE_HZ / rate)
    # Of a spectrum cut at the new bandwidth: exact, and once per file.
    spectrum = np.fft.rfft(sound)[: num_samples // 2 + 1]
    return np.asarray(
        np.fft.irfft(spectrum, num_samples) * (num_samples / max(1, len(sound))), np.float32
    )


def windows_of(sound: FloatArray, language_code: str) -> Iterator[Window]:
    """A recording in pieces that are worth transcribing."""
    size = samples(_WINDOW_S)
    for first in range(0, len(sound), size):
        piece = sound[first : first + size]
        if len(piece) >= samples(2.0):
            yield Window(piece, 0, language_code=language_code)


def heard_at(model: TorchWhisper, window: Window, tokens: Sequence[int]) -> dict[int, float]:
    """When tokens are heard, in seconds, by their index; without those that the sound decides not.

    A token is heard when it is half as probable as at the end, and stays so.
    """
    ends = [*range(samples(_STEP_S), len(window.samples), samples(_STEP_S)), len(window.samples)]
    rows: list[NDArray[np.float32]] = []
    for begin in range(0, len(ends), _BATCH):
        parts = [Window(window.samples[:end], 0) for end in ends[begin : begin + _BATCH]]
        rows.append(model.log_probabilities(parts, tokens, window.language_code).cpu().numpy())
    known = np.concatenate(rows)
    found: dict[int, float] = {}
    for index in range(len(tokens)):
        unheard = np.flatnonzero(known[:, index] < known[-1, index] + math.log(_HEARD_SHARE))
        if not len(unheard):
            continue
        step = int(unheard[-1]) + 1
        if known[step, index] - known[max(0, step - 3), index] >= _LEAST_GAIN:
            found[index] = ends[step] / SAMPLE_RATE_HZ
    return found


def head_scores(model: TorchWhisper, windows: Sequence[Window]) -> Scores:
    """How much of its attention each head has where the token being said is heard, 0 to 1.

    Raises:
        ValueError: Nothing is said in the windows.

    """
    shares: list[Scores] = []
    for window in windows:
        tokens, attention = model.attention(window)
        looks = attention.cpu().numpy()
        for index, time_s in heard_at(model, window, tokens).items() if tokens else ():
            middles = (np.arange(looks.shape[-1]) + 0.5) * FRAME_SAMPLES / SAMPLE_RATE_HZ
            shares.append(looks[:, index, np.abs(middles - time_s) <= _NEAR_S].sum(-1))
    if not shares:
        raise ValueError("nothing is said in these recordings")
    return np.asarray(np.mean(shares, 0), np.float64)


def choose(heads: Sequence[Head], scores: Scores) -> list[Head]:
    """The heads that are at least half as good as the best one."""
    least = _SHARE_OF_BEST * scores.max()
    return [head for head, score in zip(heads, scores, strict=True) if score >= least]


def find_heads(
    path: Path, sounds: Sequence[FloatArray], *, language_code: str, device: str
) -> tuple[list[Head], str]:
    """The heads of a model that follow the speech in recordings; also as OpenAI packs them.

    Raises:
        ModelError: There is no such model.
        DeviceError: The device is not there.
        ValueError: Nothing is said in the recordings.

    """
    checkpoint = load_checkpoint(path)
    shape = checkpoint.dimensions
    heads = list(product(range(shape.n_text_layer), range(shape.n_text_head)))
    model = TorchWhisper(
        checkpoint,
        device=device,
        compute_type="float32",
        threads=os.cpu_count() or 1,
        framing=Framing(pad_s=3.0, min_s=0.0, bucket_s=1.0),
        alignment_heads=json.dumps(heads),
    )
    windows = [window for sound in sounds for window in windows_of(sound, language_code)]
    found = choose(heads, head_scores(model, windows))
    return found, dump_heads(found, num_layers=shape.n_text_layer, num_heads=shape.n_text_head)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the heads in both forms.  -> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.asr.heads", description=__doc__)
    parser.add_argument("model", help="name in the catalogue, or a path")
    parser.add_argument("--audio", type=Path, action="append", required=True, help="WAV of speech")
    parser.add_argument("--language", default="en", help="ISO 639-1 code of what is spoken")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "mps"))
    chosen = parser.parse_args(arguments)
    try:
        sounds = [read_recording(path) for path in chosen.audio]
        heads, dump = find_heads(
            models.locate(chosen.model),
            sounds,
            language_code=chosen.language,
            device=chosen.device,
        )
    except (ModelError, DeviceError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{json.dumps(heads)}\n{dump}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
