"""Recordings with reference texts: one JSON object a line, as in ``../shared/data``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel, decode_audio

from services.common.audio import BYTES_PER_SAMPLE, float_to_pcm
from services.common.models import locate
from services.common.timeline import SAMPLE_RATE_HZ

BYTES_PER_S = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE

_TWO_CITIES = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age"
    " of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the"
    " season of Light, it was the season of Darkness, it was the spring of hope, it was the winter"
    " of despair, we had everything before us, we had nothing before us, we were all going direct"
    " to Heaven, we were all going direct the other way - in short, the period was so far like the"
    " present period, that some of its noisiest authorities insisted on its being received, for"
    " good or for evil, in the superlative degree of comparison only."
)
"""Charles Dickens, A Tale of Two Cities (1859), its opening."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and when it is said."""

    text: str
    start_s: float
    end_s: float

    def later(self, delay_s: float) -> "TimedWord":
        """The same word, said so much later."""
        return TimedWord(self.text, self.start_s + delay_s, self.end_s + delay_s)


@dataclass(frozen=True, slots=True)
class Clip:
    """What a bench plays: s16le samples at 16 kHz, mono, and what is said in them."""

    id: str
    pcm: bytes = field(repr=False)
    text: str
    language_code: str
    words: tuple[TimedWord, ...] = ()
    """The words of the text; empty: nobody knows when they are said."""

    @property
    def audio_s(self) -> float:
        """How long it lasts, in seconds."""
        return len(self.pcm) / BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Recording:
    """A file and what is said in it."""

    id: str
    path: Path
    text: str
    """The reference."""
    language_code: str
    words: tuple[TimedWord, ...] = ()
    speaker: str = ""
    label: str = ""
    """What is heard in it, where nobody speaks."""
    low_level: bool = False
    """Too quiet for 16-bit samples."""

    def clip(self) -> Clip:
        """The recording, decoded."""
        return Clip(self.id, _pcm(self.path), self.text, self.language_code, self.words)


@cache
def _pcm(path: Path) -> bytes:
    return float_to_pcm(decode_audio(str(path)))


def recordings(manifest: Path) -> list[Recording]:
    """The recordings of a manifest, whose paths are relative to the folder above its own."""
    root = manifest.resolve().parents[1]
    return [
        Recording(
            id=row["id"],
            path=root / row["path"],
            text=row["text"],
            language_code=row["lang"],
            words=tuple(TimedWord(*word) for word in row.get("words", ())),
            speaker=row.get("speaker", ""),
            label=row.get("label", ""),
            low_level=row.get("low_level", False),
        )
        for row in map(json.loads, manifest.read_text().splitlines())
    ]


def two_cities(*, timed_by: str = "") -> Recording:
    """What every machine has: 44 s of read English from the ``speech`` model.

    Args:
        timed_by: Model that says when the words are said; empty: nobody does. Its text then stands
            for the reference wherever words are timed.

    Raises:
        ModelMissingError: A model is not installed.

    """
    path = locate("speech") / "two_cities.wav"
    words: tuple[TimedWord, ...] = ()
    if timed_by:
        whisper = WhisperModel(str(locate(timed_by)), device="cpu", compute_type="int8")
        segments, _ = whisper.transcribe(
            str(path), language="en", beam_size=1, word_timestamps=True
        )
        words = tuple(
            TimedWord(word.word.strip(), word.start, word.end)
            for segment in segments
            for word in segment.words
        )
    return Recording("two_cities", path, _TWO_CITIES, "en", words)


def join(
    name: str, clips: Sequence[Clip], pauses_s: Sequence[float], *, noise_rms: float = 0.0
) -> Clip:
    """One clip after the other, with a pause behind each.

    Args:
        name: Of what becomes of them.
        clips: At least one, all in one language.
        pauses_s: As many as clips, in seconds.
        noise_rms: Level of the white noise in the pauses, where 1 is full scale; 0: zeros.

    """
    noise = np.random.default_rng(len(clips))
    parts = []
    for clip, pause_s in zip(clips, pauses_s, strict=True):
        num_samples = round(pause_s * SAMPLE_RATE_HZ)
        pause = noise.normal(0.0, noise_rms, num_samples).astype(np.float32)
        parts.append(clip.pcm + float_to_pcm(pause))
    starts_s = accumulate((len(part) / BYTES_PER_S for part in parts), initial=0.0)
    return Clip(
        id=name,
        pcm=b"".join(parts),
        text=" ".join(clip.text for clip in clips),
        language_code=clips[0].language_code,
        words=tuple(
            word.later(start_s)
            for clip, start_s in zip(clips, starts_s, strict=False)
            for word in clip.words
        ),
    )


def looped(name: str, clips: Sequence[Clip], duration_s: float) -> Clip:
    """The clips over and over, for so long; the last words may be cut off."""
    whole: list[Clip] = []
    length_s = 0.0
    while length_s < duration_s:
        whole.append(clips[len(whole) % len(clips)])
        length_s += whole[-1].audio_s
    joined = join(name, whole, [0.0] * len(whole))
    words = tuple(word for word in joined.words if word.end_s <= duration_s)
    text = " ".join(word.text for word in words)
    size = round(duration_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
    return Clip(name, joined.pcm[:size], text, joined.language_code, words)
