"""A transcript with its speakers, as OpenAI's transcription API writes it."""

import math
from collections.abc import Iterator, Sequence
from itertools import count, product
from string import ascii_uppercase

from services.common.words import Word, text_of
from services.gateway.protocols.openai_view import Body, Spoken, span, usage
from services.gateway.segments import segments
from services.gateway.transcript import Transcript


class Labels:
    """What speakers are called, as they appear, but for those who are known."""

    def __init__(self, names: Sequence[str] = (), *, numbered: bool = False) -> None:
        """Know the names of the speakers 1, 2 and so on.

        Args:
            names: Theirs.
            numbered: Whether the others are Speaker 1, Speaker 2 and so on, for people to read, and
                not A, B and so on.

        """
        self._names = names
        made = _numbers() if numbered else _letters()
        self._free = (label for label in made if label not in names)
        self._given: dict[int, str] = {}

    def forget_names(self) -> None:
        """Call nobody by name from now on."""
        self._names = ()

    def forget_speakers(self) -> None:
        """Whoever speaks from now on is somebody new."""
        self._given = {}

    def of(self, speaker: int) -> str:
        """What a speaker is called, who counts from 1."""
        if speaker <= len(self._names):
            return self._names[speaker - 1]
        if speaker not in self._given:
            self._given[speaker] = next(self._free)
        return self._given[speaker]


def labels_for(names: Sequence[str], transcript: Transcript, *, numbered: bool) -> Labels:
    """The labels for a transcript; nobody is called by name whom nobody could recognise."""
    labels = Labels(names, numbered=numbered)
    if _is_undiarized(transcript):
        labels.forget_names()
    return labels


def diarized_body(spoken: Spoken, labels: Labels) -> Body:
    """The body of ``response_format=diarized_json``."""
    turns = _Turns(labels)
    told = turns.add_all(spoken)
    return {
        "task": "transcribe",
        "duration": round(spoken.duration_s, 3),
        "text": turns.text,
        "segments": told,
        "usage": usage(spoken),
    }


def diarized_text(spoken: Spoken, labels: Labels) -> str:
    """A line for each turn of a speaker."""
    turns = _Turns(labels)
    turns.add_all(spoken)
    return turns.text


class DiarizedDeltas:
    """A growing transcript as the events of ``stream=true``: each segment once it has ended."""

    def __init__(self, transcript: Transcript, labels: Labels) -> None:
        self._transcript = transcript
        self._labels = labels
        self._turns = _Turns(self._labels)
        self._num_words = 0

    def news(self) -> list[Body]:
        """Events for the segments that have ended since the last call."""
        if _is_undiarized(self._transcript):
            self._labels.forget_names()
        words = self._transcript.words[self._num_words :]
        parts = list(segments(words))
        if not self._transcript.finished:
            # The words that follow may belong to it.
            del parts[-1:]
        events: list[Body] = []
        for part in parts:
            said = words[part.first_word : part.end_word]
            # How long the file is nobody knows before its end.
            segment, delta = self._turns.add(said, math.inf)
            kind = "transcript.text.delta"
            events += [{"type": kind, "delta": delta, "segment_id": segment["id"]}, segment]
            self._num_words += len(said)
        return events

    def done(self, language_code: str) -> Body:
        """The last event."""
        body: Body = {"type": "transcript.text.done", "text": self._turns.text}
        if language_code:
            body["languages"] = [{"code": language_code}]
        return body


class _Turns:
    """Segments, and the text that they make: a line for each turn of a speaker."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._num_segments = 0
        self._speaker = ""
        self.text = ""

    def add_all(self, spoken: Spoken) -> list[Body]:
        """Everything -> its segments."""
        return [
            self.add(spoken.words[part.first_word : part.end_word], spoken.duration_s)[0]
            for part in segments(spoken.words)
        ]

    def add(self, words: Sequence[Word], duration_s: float) -> tuple[Body, str]:
        """The words of a segment -> the segment, and what it adds to the text."""
        speaker = self._labels.of(words[0].speaker)
        text = text_of(words)
        added = text
        if speaker != self._speaker:
            line_end = "\n" if self.text else ""
            added = f"{line_end}{speaker}: {text.lstrip()}"
        self._speaker = speaker
        self._num_segments += 1
        self.text += added
        segment = {
            "type": "transcript.text.segment",
            "id": f"seg_{self._num_segments:03}",
            **span(duration_s, words[0].first_sample, words[-1].end_sample),
            "text": text.strip(),
            "speaker": speaker,
        }
        return segment, added


def _is_undiarized(transcript: Transcript) -> bool:
    """Whether speakers are not told apart any more, and may never have been."""
    return any(notice.stage == "diarizer" and not notice.retryable for notice in transcript.notices)


def _numbers() -> Iterator[str]:
    return (f"Speaker {number}" for number in count(1))


def _letters() -> Iterator[str]:
    """A to Z, then AA, AB and so on."""
    for length in count(1):
        for letters in product(ascii_uppercase, repeat=length):
            yield "".join(letters)
