"""Recordings with reference texts: one JSON object a line, as in ``../shared/data``."""

import json
from dataclasses import dataclass
from pathlib import Path

from faster_whisper import decode_audio

from services.common.audio import FloatArray
from services.common.models import locate

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
class Recording:
    """A recording and what is said in it."""

    id: str
    path: Path
    text: str
    """The reference."""
    language_code: str

    def samples(self) -> FloatArray:
        """(num_samples,) float32 at 16 kHz, mono."""
        decoded: FloatArray = decode_audio(str(self.path))
        return decoded


def recordings(manifest: Path, root: Path) -> list[Recording]:
    """The recordings of a manifest, whose paths are relative to ``root``."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [Recording(row["id"], root / row["path"], row["text"], row["lang"]) for row in rows]


def two_cities() -> list[Recording]:
    """What every machine has: 44 s of read English from the ``speech`` model.

    Raises:
        ModelMissingError: It is not installed.

    """
    return [Recording("two_cities", locate("speech") / "two_cities.wav", _TWO_CITIES, "en")]
