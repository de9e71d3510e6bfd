"""What another replica needs to go on with a stream, and how it travels."""

from dataclasses import dataclass
from typing import Any

from services.common.errors import CheckpointError
from services.common.sealed import below, position_of, seal, text_of, unseal
from services.common.timeline import samples
from services.common.words import Word

VERSION = 2
"""Of the form below; a replica reads no other."""

_MAX_WINDOW_SAMPLES = samples(30)
"""The longest window that settings allow. Until a successor has heard as far as its predecessor,
it decodes nothing: it must not wait for a position that never comes."""


@dataclass(frozen=True, slots=True)
class State:
    """A stream between two steps, without its audio."""

    window_first_sample: int
    """Where the window starts: the first sample a successor needs."""
    through_sample: int
    """Where the last decoded window ended."""
    settled_sample: int
    """Where the last flush was: the speech before it needs no other."""
    committed: tuple[Word, ...] = ()
    """Words committed inside the window."""
    hypotheses: tuple[tuple[Word, ...], ...] = ()
    """The last hypotheses after them, oldest first: what the next one must agree with."""
    context: tuple[int, ...] = ()
    """Token ids of what was said before the window, oldest first."""
    language_code: str = ""
    """The language that the stream keeps to; empty while it is not known."""


def encode(state: State) -> bytes:
    """The state of a stream: a few kB."""
    fields = {
        "version": VERSION,
        "window_first_sample": state.window_first_sample,
        "through_sample": state.through_sample,
        "settled_sample": state.settled_sample,
        "committed": list(map(_fields, state.committed)),
        "hypotheses": [list(map(_fields, words)) for words in state.hypotheses],
        "context": state.context,
        "language_code": state.language_code,
    }
    return seal(fields)


def decode(data: bytes) -> State:
    """Bytes -> state.

    Raises:
        CheckpointError: These bytes are not a state of this version.

    """
    return unseal(data, _state)


def _state(fields: Any) -> State:
    if fields.pop("version") != VERSION:
        raise CheckpointError("the checkpoint is of another version")
    state = State(
        window_first_sample=position_of(fields["window_first_sample"]),
        through_sample=position_of(fields["through_sample"]),
        settled_sample=position_of(fields["settled_sample"]),
        committed=tuple(map(_word, fields["committed"])),
        hypotheses=tuple(tuple(map(_word, words)) for words in fields["hypotheses"]),
        context=tuple(map(_token, fields["context"])),
        language_code=str(fields["language_code"]),
    )
    if not 0 <= state.through_sample - state.window_first_sample <= _MAX_WINDOW_SAMPLES:
        raise ValueError("nobody hears so far ahead")
    return state


def _fields(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "first_sample": word.first_sample,
        "end_sample": word.end_sample,
        "probability": word.probability,
        "token_ids": word.token_ids,
    }


def _word(fields: dict[str, Any]) -> Word:
    return Word(
        text=text_of(fields["text"]),
        first_sample=position_of(fields["first_sample"]),
        end_sample=position_of(fields["end_sample"]),
        probability=float(fields["probability"]),
        token_ids=tuple(map(_token, fields["token_ids"])),
    )


def _token(value: Any) -> int:
    return below(1 << 31, int(value))
