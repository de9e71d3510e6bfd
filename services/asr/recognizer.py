"""What the ASR service asks of a model: words for the windows of many streams at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.common.audio import FloatArray
from services.common.words import Word


class Task(Enum):
    """What the words are for."""

    TRANSCRIBE = "transcribe"
    """Words in the language spoken."""
    TRANSLATE = "translate"
    """English words, whatever is spoken."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One stream's stretch of audio, and how to decode it."""

    samples: FloatArray
    """(num_samples,) float32 in [-1, 1), at most ``Recognizer.max_window_samples``."""
    first_sample: int
    """Position of ``samples[0]`` on the lane's clock."""
    prompt: tuple[int, ...] = ()
    """Token ids of a text that could stand before the window, oldest first."""
    language_code: str = ""
    """ISO 639-1; empty: detect it."""
    task: Task = Task.TRANSCRIBE
    temperature: float = 0.0
    """Sampling temperature; 0: the most probable words."""
    draft: tuple[int, ...] = ()
    """Token ids that the window may well say, such as those of its last decoding: a guess that
    saves time where it proves right. What is recognised does not depend on it."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a window says."""

    words: tuple[Word, ...]
    """The words on the lane's clock, in the order in which they were said."""
    language_code: str
    """The language that was given or detected."""
    language_probability: float
    """Confidence in it; 1 if it was given."""
    no_speech_probability: float
    """That the window holds no speech at all, 0 to 1."""
    avg_log_probability: float
    """Mean over the tokens; 0 if there are none."""


class Recognizer(Protocol):
    """A model, loaded. Thread-safe: several batches may run at once."""

    engine: str
    """Family and where it runs, such as ``ctranslate2/cpu/int8``."""
    language_codes: tuple[str, ...]
    """ISO 639-1 codes of the languages it understands."""
    tasks: tuple[Task, ...]
    """What it can do."""
    max_window_samples: int
    """The longest window it takes."""

    def bucket(self, window: Window) -> Hashable:
        """Which windows may share a batch: those with equal buckets."""

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """Decode windows of one bucket in one batch; each result is that of the window alone.

        Raises:
            DeviceError: The model or its device failed.

        """

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, for ``Window.prompt``: its end, if it is too long for the model."""
