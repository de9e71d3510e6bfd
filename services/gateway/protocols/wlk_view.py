"""A transcript as the messages of ``/asr``: the whole state each time, or what changed in it."""

from collections.abc import Sequence
from typing import TypeAlias

from services.common.timeline import seconds
from services.common.words import Word, text_of
from services.gateway.lines import SILENCE, Line, Lines, clock
from services.gateway.transcript import Transcript

Message: TypeAlias = dict[str, object]

_LAGS = (
    "remaining_time_transcription",
    "remaining_time_transcription_processing",
    "remaining_time_transcription_policy",
    "remaining_time_diarization",
)


class View:
    """What one client has been sent of one transcript."""

    def __init__(
        self,
        transcript: Transcript,
        *,
        diff: bool,
        name_language: bool,
        diarized: bool = False,
        target: str = "",
    ) -> None:
        """Create the view of a client that has seen nothing.

        Args:
            transcript: What it is shown.
            diff: Whether only what changed is sent, after a first message with everything.
            name_language: Whether lines name the language that was detected.
            diarized: Whether speakers are told apart.
            target: The language of the translation that it is shown; empty: none.

        """
        self._transcript = transcript
        self._diff = diff
        self._name_language = name_language
        self._diarized = diarized
        self._target = target
        self._lines = Lines()
        self._translations: dict[int, str] = {}
        """What lines are in the other language, by their places."""
        self._num_words = 0
        self._num_pieces = 0
        self._num_sent = 0
        """Lines at the front that the client has as they are."""
        self._num_shown = 0
        """Lines that the client has at all."""
        self._seq = 0
        self._whole = True
        """Whether the next message has to say everything."""
        self._language = ""
        self._sent_tail = ("", "", "")
        """What is certain and has no speaker yet, what may still change, and the same of the
        translation."""
        self._sent_lags: Sequence[float] = (0.0,) * len(_LAGS)

    def update(self, *, lags_too: bool) -> Message | None:
        """The next message, or None if nothing is new.

        Args:
            lags_too: Whether it is news that only the lags have changed.

        """
        news = self._read()
        lags = self._lags()
        wanted = self._diff and self._whole and self._seq > 0
        if not (news or wanted or (lags_too and lags != self._sent_lags)):
            return None
        self._sent_lags = lags
        return self._changes() if self._diff else self._state()

    def start_over(self) -> None:
        """Say everything with the next message, though it may have been said."""
        self._whole = True

    def last(self) -> Message:
        """The message with which everything has been said."""
        self._read()
        self._sent_lags = self._lags()
        return self._changes() if self._diff else self._state()

    def failure(self, error: str) -> Message:
        """The message that says that the session cannot go on. Send what was said before it."""
        if self._diff:
            return {**self._changes(), "status": "error", "error": error}
        return {
            "status": "error",
            "lines": [],
            **_buffers("", "", ""),
            **dict.fromkeys(_LAGS, 0.0),
            "error": error,
        }

    def _read(self) -> bool:
        """Take in what the transcript has now; whether any of it is shown."""
        transcript = self._transcript
        words = transcript.words[self._num_words :]
        self._num_words += len(words)
        if words:
            # The last line may grow: the client does not have it as it will be.
            self._num_sent = min(self._num_sent, max(0, len(self._lines) - 1))
            self._lines.extend(words)
        language = transcript.language_code if self._name_language else ""
        if language != self._language:
            self._language = language
            self._num_sent = 0
            words = words or transcript.words
        translated, translated_tail = self._translate()
        tail = (text_of(transcript.held), text_of(_unsure(transcript)), translated_tail)
        news = bool(words) or translated or tail != self._sent_tail
        self._sent_tail = tail
        return news

    def _translate(self) -> tuple[bool, str]:
        """Take in what has been translated; whether there is more of it, and what may follow."""
        translation = self._transcript.translations.get(self._target)
        if translation is None:
            return False, ""
        pieces = translation.pieces[self._num_pieces :]
        self._num_pieces += len(pieces)
        for piece in pieces:
            place = self._lines.place_of(piece.first_sample)
            self._translations[place] = self._translations.get(place, "") + piece.text
            self._num_sent = min(self._num_sent, place)
        return bool(pieces), translation.tail

    def _lags(self) -> Sequence[float]:
        transcript = self._transcript
        undecoded = max(0, transcript.received_sample - transcript.decoded_sample)
        unsure, held = _unsure(transcript), transcript.held
        uncommitted = unattributed = 0
        if unsure:
            uncommitted = max(0, transcript.decoded_sample - unsure[0].first_sample)
        if held:
            said = max(transcript.decoded_sample, held[-1].end_sample)
            unattributed = said - held[0].first_sample
        samples = (undecoded + uncommitted, undecoded, uncommitted, unattributed)
        return tuple(round(seconds(lag), 1) for lag in samples)

    def _state(self) -> Message:
        return {
            "status": self._status(),
            "lines": self._lines_from(0),
            **_buffers(*self._sent_tail),
            **dict(zip(_LAGS, self._sent_lags, strict=True)),
        }

    def _changes(self) -> Message:
        self._seq += 1
        new = self._lines_from(self._num_sent)
        # Clients of old know no other rule than to drop these and append the new ones.
        pruned = 0 if self._num_sent else self._num_shown
        self._num_sent = self._num_shown = len(self._lines)
        if self._whole:
            self._whole = False
            return {"type": "snapshot", "seq": self._seq, **self._state()}
        return {
            "type": "diff",
            "seq": self._seq,
            "status": self._status(),
            "n_lines": len(self._lines),
            **({"lines_pruned": pruned} if pruned else {}),
            **({"new_lines": new} if new else {}),
            **_buffers(*self._sent_tail),
            **dict(zip(_LAGS, self._sent_lags, strict=True)),
        }

    def _status(self) -> str:
        spoken = len(self._lines) or any(self._sent_tail)
        return "active_transcription" if spoken else "no_audio_detected"

    def _lines_from(self, first: int) -> list[Message]:
        return [self._line(place, line) for place, line in enumerate(self._lines[first:], first)]

    def _line(self, place: int, line: Line) -> Message:
        message: Message = {
            "speaker": line.speaker,
            "text": None if self._diarized and line.speaker == SILENCE else line.text,
            "start": clock(line.first_sample),
            "end": clock(line.end_sample),
        }
        if translation := self._translations.get(place):
            message["translation"] = translation.lstrip()
        if self._language and line.speaker != SILENCE:
            message["detected_language"] = self._language
        return message


def _unsure(transcript: Transcript) -> Sequence[Word]:
    return transcript.tail[len(transcript.held) :]


def _buffers(diarization: str, transcription: str, translation: str) -> Message:
    return {
        "buffer_transcription": transcription,
        "buffer_diarization": diarization,
        "buffer_translation": translation,
    }
