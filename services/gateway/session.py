"""One live session: its audio, its stages, its transcript."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

from services.gateway.transcript import Transcript


class Pace(Enum):
    """How soon words are wanted."""

    LIVE = "live"
    FILE = "file"


class Task(Enum):
    """What the words are for."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a client asks for."""

    session_id: str
    protocol: str
    """Name of the wire protocol, for metrics."""
    language_code: str = ""
    """ISO 639-1 code of the language spoken; empty: the gateway's default, or detect it."""
    model: str = ""
    """Catalogue name or alias; empty: the default pool."""
    task: Task = Task.TRANSCRIBE
    prompt: str = ""
    pace: Pace = Pace.LIVE
    temperature: float = 0.0


class Session:
    """One live session.

    ``run`` is called once; ``changed`` and ``flush`` while it runs, by any number of readers.
    """

    transcript: Transcript

    async def run(self, audio: AsyncIterator[bytes]) -> None:
        """Transcribe the audio; return when everything said is in ``transcript``.

        Args:
            audio: s16le 16 kHz mono, cut anywhere; its end is the end of the audio. It is read only
                as fast as the session can keep it.

        Raises:
            MeshError: The session cannot go on; what is in ``transcript`` stays true.

        """
        raise NotImplementedError

    async def changed(self, seen: int, *, timeout_s: float | None = None) -> int:
        """Wait until ``transcript.revision`` passes ``seen`` or the session ends; the revision."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when everything received so far is decided."""
        raise NotImplementedError
