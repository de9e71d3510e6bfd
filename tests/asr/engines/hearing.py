"""Windows of a recording, and what an engine hears in one."""

from services.asr.recognizer import Hypothesis, Recognizer, Window
from services.common.audio import FloatArray
from services.common.timeline import samples


def part(audio: FloatArray, first_s: float, end_s: float, **how: object) -> Window:
    """A window of a recording, from one second to another."""
    first, end = samples(first_s), samples(end_s)
    return Window(audio[first:end], first, **how)  # type: ignore[arg-type]


def alone(model: Recognizer, window: Window) -> Hypothesis:
    """What is heard in a window that shares its batch with no other."""
    [heard] = model.recognize([window])
    return heard


def tokens_of(heard: Hypothesis) -> tuple[int, ...]:
    """The tokens of all words."""
    return tuple(token for word in heard.words for token in word.token_ids)
