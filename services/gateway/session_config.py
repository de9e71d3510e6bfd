"""What a client asks for."""

from dataclasses import dataclass
from enum import Enum


class Pace(Enum):
    """How soon words are wanted."""

    LIVE = "live"
    FILE = "file"


class Task(Enum):
    """What the words are for."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class Policy(Enum):
    """What makes a live word certain."""

    LOCAL_AGREEMENT = "local-agreement"
    ALIGN_ATT = "align-att"
    EITHER = "either"


MAX_SPEAKERS = 60
"""Most speakers that a session can ask for."""


@dataclass(frozen=True, slots=True)
class Diarization:
    """What is known of the speakers who are to be told apart."""

    max_speakers: int = 0
    """Most there can be, up to 60; 0: unknown."""
    num_speakers: int = 0
    """How many there are, up to 60; 0: unknown."""
    enrolled: tuple[bytes, ...] = ()
    """Speech of the speakers 1, 2 and so on, 1 to 30 s of s16le 16 kHz mono each."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a client asks for."""

    session_id: str
    protocol: str
    """Name of the wire protocol, for metrics."""
    caller: str = ""
    """Name of the client's key; empty: none is needed."""
    language_code: str = ""
    """BCP-47 code of the language spoken; empty: the gateway's default, or detect it."""
    model: str = ""
    """Catalogue name or alias; empty: the default pool."""
    task: Task = Task.TRANSCRIBE
    prompt: str = ""
    pace: Pace = Pace.LIVE
    temperature: float = 0.0
    hotwords: tuple[str, ...] = ()
    """Names and terms that may be spoken."""
    policy: Policy | None = None
    """None: the recogniser's setting."""
    frame_threshold: int | None = None
    """Of AlignAtt, in encoder frames of 20 ms; None: the recogniser's setting."""
    onset_threshold: float | None = None
    """Probability of speech, 0.05 to 0.95, at which it starts; None: the VAD's setting."""
    diarization: Diarization | None = None
    """None: who speaks does not matter."""
    targets: tuple[str, ...] = ()
    """Languages into which the words are translated, as the client calls them."""
    hangover_ms: int | None = None
    """Silence that ends speech, 32 to 10 000 ms; None: the VAD's setting."""
