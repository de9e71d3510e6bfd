"""What another replica needs to go on with a stream, and how it travels."""

import json
from dataclasses import asdict, dataclass

from services.common.errors import CheckpointError
from services.common.words import Word

VERSION = 1
"""Of the form below; a replica reads no other."""


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
    pending: tuple[Word, ...] = ()
    """The last hypothesis after them: what the next one must agree with."""
    language_code: str = ""
    """The language that the stream keeps to; empty while it is not known."""


def encode(state: State) -> bytes:
    """State -> JSON, a few kB."""
    return json.dumps({"version": VERSION, **asdict(state)}, separators=(",", ":")).encode()


def decode(data: bytes) -> State:
    """JSON -> state.

    Raises:
        CheckpointError: These bytes are not a state of this version.

    """
    try:
        fields = json.loads(data)
        if fields.pop("version") != VERSION:
            raise CheckpointError("the checkpoint is of another version")
        return State(
            window_first_sample=int(fields["window_first_sample"]),
            through_sample=int(fields["through_sample"]),
            settled_sample=int(fields["settled_sample"]),
            committed=tuple(map(_word, fields["committed"])),
            pending=tuple(map(_word, fields["pending"])),
            language_code=str(fields["language_code"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("the checkpoint is damaged") from error


def _word(fields: dict[str, object]) -> Word:
    return Word(
        text=str(fields["text"]),
        first_sample=int(str(fields["first_sample"])),
        end_sample=int(str(fields["end_sample"])),
        probability=float(str(fields["probability"])),
        token_ids=tuple(fields["token_ids"]),  # type: ignore[arg-type]  # JSON's list of numbers
    )
