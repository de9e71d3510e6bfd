"""Recordings with reference texts: one JSON object a line, as in ``../shared/data``."""

import json
from dataclasses import dataclass
from pathlib import Path

from faster_whisper import decode_audio

from services.common.audio import FloatArray


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording and what is said in it."""

    id: str
    path: Path
    text: str
    """The reference: lower case, without punctuation."""
    language_code: str

    def samples(self) -> FloatArray:
        """(num_samples,) float32 at 16 kHz, mono."""
        decoded: FloatArray = decode_audio(str(self.path))
        return decoded


def recordings(manifest: Path, root: Path) -> list[Recording]:
    """The recordings of a manifest, whose paths are relative to ``root``."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [Recording(row["id"], root / row["path"], row["text"], row["lang"]) for row in rows]
