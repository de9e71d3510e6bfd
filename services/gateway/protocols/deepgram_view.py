"""A transcript as the messages of a live ``/v1/listen``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from services.common.timeline import samples
from services.common.words import Word
from services.gateway.protocols.deepgram_words import Body, Style, alternative, offset, search
from services.gateway.transcript import Speech, Transcript

_FINAL_SAMPLES = samples(3)
"""Words that last so long together are final, though their speaker goes on."""
_WAIT_SAMPLES = samples(1)
"""Behind words that are followed by so much silence nothing is waited for."""
_SILENCE_SAMPLES = samples(5)
"""Silence is told of in results of this length."""
_NEAR_SAMPLES = samples(5)
"""With less than this undecoded, what remains comes with the answer to a command."""
_MAX_WORDS = 1000
"""In one message, which clients refuse beyond 1 MiB."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What a client of a live stream wants to be told, and how. Lengths are in samples."""

    style: Style
    interim_results: bool
    vad_events: bool
    endpointing: int | None
    """Silence behind speech that ends an utterance; None: none does."""
    utterance_end: int | None
    """Pause between words that is told; None: none is."""
    queries: Sequence[str] = ()
    """What is searched for."""


class View:
    """What one client has been sent of one lane.

    Finals tile the lane: each begins where the one before it ended.
    """

    def __init__(
        self,
        transcript: Transcript,
        manner: Manner,
        *,
        language_code: str,
        channel: Sequence[int],
        metadata: Body,
    ) -> None:
        """Create the view of a client that has seen nothing.

        Args:
            transcript: What it is shown.
            manner: What it wants to be told.
            language_code: The language spoken, until it is detected; empty: not known.
            channel: Which channel this is, and of how many.
            metadata: What every result says about the request.

        """
        self.waits = False
        """Whether the client has given a command whose answer is to hold what remains."""
        self._transcript = transcript
        self._manner = manner
        self._language_code = language_code
        self._channel = list(channel)
        self._metadata = metadata
        self._start = 0
        """Where the last final ends."""
        self._num_words = 0
        """Words that were in finals."""
        self._num_started = 0
        """Speech whose start has been met."""
        self._num_ended = 0
        """Speech whose end has been met."""
        self._open = False
        """Whether something was heard since the last utterance ended."""
        self._last_word: int | None = None
        """Where the last final word ends; None: none has come since that was told."""
        self._interim = ""

    def due(self) -> bool:
        """Whether ``news`` has something to say, though the transcript's revision is the same."""
        if self._waiting():
            return False
        return (
            self._endpoint() is not None
            or self._words_end()
            or self._utterance_ended()
            or self._silent()
        )

    def news(self) -> list[Body]:
        """What has changed since the last call, to be sent in this order."""
        return [] if self._waiting() else list(self._news())

    def finalized(self) -> list[Body]:
        """The answer to ``Finalize``, once everything received is decided."""
        return [*self._starts(), *self._rest(from_finalize=True)]

    def last(self) -> list[Body]:
        """What remains to be said when the session is over."""
        messages = list(self._starts())
        if self._pending or self._transcript.received_sample > self._start:
            messages += self._rest(from_finalize=False)
        if self._utterance_ended():
            messages.append(self._utterance_end())
        return messages

    @property
    def _pending(self) -> Sequence[Word]:
        """Committed words that were in no final."""
        return self._transcript.words[self._num_words :]

    def _waiting(self) -> bool:
        transcript = self._transcript
        undecoded = transcript.received_sample - transcript.decoded_sample
        return self.waits and undecoded < _NEAR_SAMPLES

    def _news(self) -> Iterator[Body]:
        yield from self._starts(before_endpoint=True)
        while (ended := self._endpoint()) is not None:
            yield from self._end_speech(ended)
            yield from self._starts(before_endpoint=True)
        pending = self._pending
        if self._words_end() or self._goes_on():
            yield from self._finals(pending, pending[-1].end_sample)
        if self._utterance_ended():
            yield self._utterance_end()
        if self._silent():
            yield from self._finals((), self._transcript.settled_sample)
        yield from self._interims()

    def _starts(self, *, before_endpoint: bool = False) -> Iterator[Body]:
        """Tell of speech that has started, in the order of the lane."""
        known = self._transcript.speech
        while self._num_started < len(known):
            if before_endpoint and self._ending() is not None:
                return
            speech = known[self._num_started]
            words = [word.first_sample for word in self._pending[:1]]
            if self._pauses((), min([speech.first_sample, *words])):
                yield self._utterance_end()
            self._num_started += 1
            self._open = True
            if self._manner.vad_events:
                yield {
                    "type": "SpeechStarted",
                    "channel": self._channel,
                    "timestamp": offset(speech.first_sample),
                }

    def _ending(self) -> Speech | None:
        """The first speech whose end may end an utterance, and has not been met."""
        while self._num_ended < self._num_started:
            speech = self._transcript.speech[self._num_ended]
            if speech.end_sample is None:
                return None
            if self._ends_utterance(speech.end_sample):
                return speech
            self._num_ended += 1
        return None

    def _ends_utterance(self, end_sample: int) -> bool:
        """Whether nobody speaks again soon enough, as far as is known."""
        silence, after = self._manner.endpointing, self._following()
        return silence is not None and (after is None or after >= end_sample + silence)

    def _following(self) -> int | None:
        """Where the speech behind the one whose end is looked at starts."""
        following = self._num_ended + 1
        known = self._transcript.speech
        return known[following].first_sample if following < len(known) else None

    def _endpoint(self) -> Speech | None:
        """The speech whose end is an utterance's, now that this is known."""
        speech = self._ending()
        if speech is None or speech.end_sample is None or self._manner.endpointing is None:
            return None
        sure = speech.end_sample
        if self._following() is None:
            sure += self._manner.endpointing
        return speech if self._transcript.settled_sample >= sure else None

    def _end_speech(self, speech: Speech) -> Iterator[Body]:
        assert speech.end_sample is not None
        following = self._following()
        end = speech.end_sample + (self._manner.endpointing or 0)
        words = self._pending
        if following is not None:
            end = min(end, following)
            between = (speech.end_sample + following) // 2
            words = list(takewhile(lambda word: word.first_sample < between, words))
        self._num_ended += 1
        if self._open or words:
            yield from self._finals(words, end, speech_final=True)

    def _words_end(self) -> bool:
        """Whether there are words to be told, and nothing is said behind them."""
        pending, transcript, pause = self._pending, self._transcript, self._manner.utterance_end
        if not pending:
            return False
        quiet = pending[-1].end_sample + _WAIT_SAMPLES <= transcript.settled_sample
        return quiet or (pause is not None and self._unsaid(pending[-1].end_sample) >= pause)

    def _unsaid(self, end_sample: int) -> int:
        """How long nothing has been said behind a word that ends there, in samples."""
        transcript = self._transcript
        if not transcript.tail_known:
            return transcript.settled_sample - end_sample
        tail = transcript.tail
        return (tail[0].first_sample if tail else transcript.heard_sample) - end_sample

    def _goes_on(self) -> bool:
        """Whether somebody has spoken for long, and has not just paused: then the end is near."""
        pending = self._pending
        long = bool(pending) and _length(pending) >= _FINAL_SAMPLES
        return long and bool(self._transcript.tail)

    def _silent(self) -> bool:
        transcript = self._transcript
        quiet = not (self._pending or transcript.tail)
        return quiet and transcript.settled_sample - self._start >= _SILENCE_SAMPLES

    def _utterance_ended(self) -> bool:
        """Whether the pause behind the last word is long enough to be told."""
        pause, last = self._manner.utterance_end, self._last_word
        if pause is None or last is None or self._pending:
            return False
        return self._unsaid(last) >= pause

    def _utterance_end(self) -> Body:
        assert self._last_word is not None
        last, self._last_word = self._last_word, None
        return {"type": "UtteranceEnd", "channel": self._channel, "last_word_end": offset(last)}

    def _rest(self, *, from_finalize: bool) -> Iterator[Body]:
        """Everything that is known, in one final, up to the newest audio."""
        pending = self._pending
        said = self._open or bool(pending)
        # Speech that has ended is told by this; speech that goes on may yet be.
        known = self._transcript.speech
        going_on = bool(known) and known[-1].end_sample is None
        self._num_ended = len(known) - going_on
        yield from self._finals(
            pending,
            self._transcript.received_sample,
            speech_final=said,
            from_finalize=from_finalize,
        )

    def _finals(
        self,
        words: Sequence[Word],
        end_sample: int,
        *,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Iterator[Body]:
        """Tell of words for good, in one result unless it is too long, or pauses are to be told."""
        part: list[Word] = []
        for word in words:
            if self._pauses(part, word.first_sample) or len(part) >= _MAX_WORDS:
                if part:
                    yield self._final(part, part[-1].end_sample)
                if self._pauses((), word.first_sample):
                    yield self._utterance_end()
                part = []
            part.append(word)
        yield self._final(part, end_sample, speech_final=speech_final, from_finalize=from_finalize)

    def _pauses(self, before: Sequence[Word], first_sample: int) -> bool:
        """Whether the pause before what begins there is to be told."""
        last = before[-1].end_sample if before else self._last_word
        pause = self._manner.utterance_end
        return pause is not None and last is not None and first_sample - last >= pause

    def _final(
        self,
        words: Sequence[Word],
        end_sample: int,
        *,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Body:
        end = max(self._start, end_sample, words[-1].end_sample if words else 0)
        body = self._result(words, end)
        body |= {"is_final": True, "speech_final": speech_final, "from_finalize": from_finalize}
        self._start = end
        self._num_words += len(words)
        self._interim = ""
        self._open = (self._open or bool(words)) and not speech_final
        if words:
            self._last_word = words[-1].end_sample
        return body

    def _interims(self) -> Iterator[Body]:
        """What is said now, if it has changed."""
        if not (self._manner.interim_results and self._transcript.tail_known):
            return
        words = [*self._pending, *self._transcript.tail]
        end = max(self._transcript.heard_sample, words[-1].end_sample if words else 0)
        body = self._result(words, max(end, self._start))
        text = body["channel"]["alternatives"][0]["transcript"]
        if text != self._interim:
            self._interim = text
            yield body

    def _result(self, words: Sequence[Word], end_sample: int) -> Body:
        language_code = self._transcript.language_code or self._language_code
        style, queries = self._manner.style, self._manner.queries
        told = alternative(words, language_code, style, first_sample=self._start)
        channel: Body = {"alternatives": [told]}
        if queries:
            channel["search"] = search(words, queries, style)
        return {
            "type": "Results",
            "channel_index": self._channel,
            "duration": offset(end_sample - self._start),
            "start": offset(self._start),
            "is_final": False,
            "speech_final": False,
            "channel": channel,
            "metadata": self._metadata,
            "from_finalize": False,
        }


def _length(words: Sequence[Word]) -> int:
    return words[-1].end_sample - words[0].first_sample
