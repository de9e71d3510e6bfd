"""One stream's transcription: audio in, committed words and a tail out.

Audio gathers in a window that starts at a committed word boundary. A step decodes the window
afresh, finds the words already committed inside it, and asks the policy how many of those that
follow are certain. Behind committed words audio leaves the window by time, and its words become
the context in which the rest is heard.

Everything is a function of the samples and the hypotheses: there is no clock here, so the same
audio and the same steps give the same words, and a checkpoint puts another replica exactly here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.asr.checkpoint import State
from services.asr.events import (
    Committed,
    Event,
    Flushed,
    GuardFired,
    LanguageKnown,
    Moved,
    Tail,
)
from services.asr.guards import Verdict, heard_words, judge, without_loops
from services.asr.policies.align_att import attended
from services.asr.policies.continuation import continuation
from services.asr.policies.local_agreement import agree
from services.asr.policies.policy import Policy
from services.asr.recognizer import Hypothesis, Task, Window
from services.asr.waveform import Waveform
from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import samples
from services.common.words import Word

_LANGUAGE_SAMPLES = samples(2.0)
"""Speech that a language is known from."""
_LANGUAGE_PROBABILITY = 0.5
_MIN_SPEECH_SAMPLES = samples(0.1)
"""Less audio than this holds no word."""
_JITTER_SAMPLES = samples(0.2)
"""How far off a word's end may be."""
_UNSURE_SAMPLES = samples(1.2)
"""Before the end of running speech: its words may still be to come."""
_LONGEST_QUIET_SAMPLES = samples(1.2)
"""What goes on for longer behind loud speech may be soft speech."""
_STILL_SAMPLES = samples(0.1)
_STILL_ENERGY = 4.0
"""Times that of so much of a pause before: what is louder than that may be speech."""
_LAST_CHOICE_SAMPLES = samples(4.0)
"""A full window is cut within its last so many seconds."""
_MAX_ATTEMPTS = 2
"""A window that a guard refuses is decoded again: first without prompt, then with chance."""
_RETRY_TEMPERATURE = 0.4
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")  # noqa: RUF001 -- full-width marks are meant


def samples_of_frames(num_frames: int) -> int:
    """Encoder frames of 20 ms, in which thresholds are given, as samples."""
    return num_frames * samples(0.02)


@dataclass(frozen=True, slots=True)
class Cadence:
    """From how much audio a stream is decoded, and what of it is certain. All in samples."""

    window: int
    """Audio beyond which the window is cut at a committed word."""
    keep: int
    """Words this close to the end of a full window, with more audio waiting, may be cut in two:
    they are left for the next window."""
    gap: int
    """Silence that starts a new window; shorter silence stays in it."""
    live: bool
    """Somebody waits: decode while it is spoken. Otherwise only full windows and flushes count."""
    policy: Policy
    """What makes a word certain before a flush does."""
    attention: int
    """AlignAtt: how far from the end of the audio attention has to place a word."""
    agreement: int
    """LocalAgreement: how many hypotheses in a row have to share a word,"""
    agreed_attention: int
    """and how far from the end of the audio attention has to place it."""
    pause: int
    """Quiet that makes a live stream be decoded at once: what is said may be complete. 0: none."""
    sure: int
    """Quiet after which the words that wait are certain, if each of them is so probable:"""
    sure_probability: float
    quiet: int
    """Quiet after which they are certain anyhow."""
    context: int
    """Tokens of what was said before the window that it is decoded with."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoding that was believed."""

    hypothesis: Hypothesis
    temperature: float


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A decoding that is due."""

    window: Window | None
    """What to decode; None: there is nothing new in it to decode."""
    known: Decoded | None
    """What the same speech was decoded as before, if nothing but quiet has come since."""
    end_sample: int
    """Position after the window."""
    final: bool
    """Everything in the window is to be committed."""
    full: bool
    """The window is as long as it may be and more audio waits behind it."""
    sure_at: int | None = None
    """It is quiet behind the words; if it is until here, they are certain if they are probable."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A position at which everything before is to be committed."""

    sample: int
    flush_id: int | None
    new_window_at: int | None
    """Start a new window there."""


class Transcriber:
    """Audio and marks in; steps out; hypotheses in; events out."""

    def __init__(
        self,
        cadence: Cadence,
        *,
        first_sample: int = 0,
        language_code: str = "",
        task: Task = Task.TRANSCRIBE,
        prompt: Sequence[int] = (),
        temperature: float = 0.0,
        state: State | None = None,
    ) -> None:
        """Start a stream, or go on with one.

        Args:
            cadence: From how much audio to decode, and what of it is certain.
            first_sample: Position of the first sample that will come.
            language_code: ISO 639-1; empty: detect it.
            task: What the words are for.
            prompt: Token ids of a text that could stand before the speech; it stays.
            temperature: Sampling temperature; 0: the most probable words.
            state: Where a predecessor stood; ``first_sample`` is then its ``window_first_sample``.

        """
        self._cadence = cadence
        self._task = task
        self._temperature = temperature
        self._prompt = tuple(prompt)
        state = state or State(
            first_sample, first_sample, first_sample, language_code=language_code
        )
        if state.window_first_sample != first_sample:
            raise InvalidRequestError(
                f"the checkpoint needs audio from sample {state.window_first_sample}, "
                f"not from {first_sample}"
            )
        self._first = first_sample
        self._heard = first_sample
        self._through = state.through_sample
        self._resumed_at = state.through_sample
        self._committed = list(state.committed)
        self._hypotheses = state.hypotheses
        self._context = state.context
        self._language = state.language_code
        self._settled = state.settled_sample
        self._audio = Waveform()
        self._marks: deque[_Mark] = deque()
        self._attempt = 0
        self._newest: Decoded | None = None

    @property
    def heard_sample(self) -> int:
        """Position after everything received."""
        return self._heard

    @property
    def state(self) -> State:
        """Where the stream stands now."""
        return State(
            self._first,
            self._through,
            self._settled,
            tuple(self._committed),
            self._hypotheses,
            self._context,
            self._language,
        )

    def push(self, first_sample: int, heard: FloatArray) -> None:
        """Take in audio.  heard: (num_samples,) float32.

        Raises:
            InvalidRequestError: There is a hole before it.

        """
        self._expect(first_sample)
        self._audio.append(first_sample, heard)
        self._heard += len(heard)

    def skip(self, first_sample: int, num_samples: int) -> None:
        """Take in a stretch in which nobody speaks.

        Raises:
            InvalidRequestError: There is a hole before it.

        """
        self._expect(first_sample)
        self._heard += num_samples
        speech_end = self._audio.end_sample
        if speech_end is None:
            # A window may have been cut in a pause: a successor finds its words behind it.
            if self._heard > self._resumed_at:
                self._start_window(self._heard)
        elif self._heard - speech_end > self._cadence.gap:
            self._end_window(speech_end)

    def flush(self, flush_id: int) -> None:
        """Ask for everything heard so far to be committed."""
        self._marks.append(_Mark(self._heard, flush_id, None))

    def finish(self) -> None:
        """Say that nothing more will come: everything is to be committed."""
        self._marks.append(_Mark(self._heard, None, None))
        # Whatever a predecessor had heard beyond this was never said.
        self._resumed_at = min(self._resumed_at, self._heard)

    @property
    def backlog_samples(self) -> int:
        """Audio received and not yet decoded."""
        return self._speech_end - max(self._through, self._first)

    def next_step(self, step_samples: int) -> Step | None:
        """The decoding that is due now, if any.

        Args:
            step_samples: New audio that makes a decoding worth while.

        """
        if self._heard < self._resumed_at:
            return None
        limit = self._first + self._cadence.window
        mark = self._marks[0] if self._marks else None
        end = min(mark.sample if mark else self._heard, limit)
        final = mark is not None and end == mark.sample
        full = not final and end == limit
        known = None if full else self._known(end)
        if known is not None and (final or self._is_decided(end)):
            return Step(None, known, end if final else self._through, final, full)
        audible = self._undecided(end) >= _MIN_SPEECH_SAMPLES or bool(self._pending)
        sure_at = self._pause(end) if audible and not (final or full) else None
        if not (final or full or sure_at or self._is_new_audio(end, step_samples)):
            return None
        return Step(self._window(end) if audible else None, None, end, final, full, sure_at)

    def is_overtaken(self, step: Step) -> bool:
        """Whether everything is to be committed by now, and more has been said than a step has.

        Its decoding would be followed by another one at once: that one need not wait for it.

        Args:
            step: What ``next_step`` returned last, and is not completed; it never has to be.

        """
        if step.final or step.full or not self._marks:
            return False
        end = self._marks[0].sample
        in_window = step.end_sample < end <= self._first + self._cadence.window
        return in_window and not self._is_still(step.end_sample, end)

    def complete(self, step: Step, hypothesis: Hypothesis | None) -> list[Event]:
        """Learn from a step.

        Args:
            step: What ``next_step`` returned last.
            hypothesis: What the model made of its window; None if it has none.

        """
        events: list[Event] = []
        decoded, words = step.known, self._pending if step.known is not None else ()
        if step.window is not None and hypothesis is not None:
            hypothesis = heard_words(hypothesis, step.end_sample)
            verdict = judge(hypothesis, len(step.window.samples), step.window.prompt)
            if verdict is not Verdict.SOUND:
                events.append(GuardFired(verdict))
                if verdict is Verdict.ECHO:
                    self._context = ()
                if verdict is not Verdict.NO_SPEECH and self._attempt < _MAX_ATTEMPTS:
                    self._attempt += 1
                    return events
            believed = _believed(hypothesis.words, verdict)
            words = self._ordered(believed[continuation(self._committed, believed) :])
            if believed:
                # Noise has no language.
                events += self._learn_language(step.window, hypothesis)
            decoded = Decoded(hypothesis, step.window.temperature)
            resumed = self._unsaid(step, words) if verdict is Verdict.SOUND else None
            if resumed is not None and (step.final or step.full):
                events.append(GuardFired(Verdict.EARLY))
                return events + self._rewind(resumed, words, decoded)
            self._newest = decoded if resumed is None else None
        self._attempt = 0
        # What is too short to be decoded alone is decoded together with what follows.
        decided = decoded is not None or self._undecided(step.end_sample) <= 0
        if decided:
            self._through = max(self._through, step.end_sample)
        committed = words[: self._certain(step, words)]
        self._remember(words, len(committed))
        self._committed += committed
        first = self._first
        self._trim(step)
        mark = self._marks.popleft() if step.final else None
        if mark is not None:
            if decided:
                self._settled = max(self._settled, mark.sample)
            if mark.new_window_at is not None:
                self._start_window(mark.new_window_at)
        if decoded is not None and committed:
            events.append(Committed(committed, decoded.hypothesis, decoded.temperature, self.state))
        elif self._first != first:
            events.append(Moved(self.state))
        if decoded is not None:
            events.append(Tail(self._pending, self._through))
        if mark is not None and mark.flush_id is not None:
            events.append(Flushed(mark.flush_id))
        return events

    def _unsaid(self, step: Step, words: tuple[Word, ...]) -> int | None:
        """Where speech goes on behind a pause in which the words of a window end; None: nowhere.

        Whisper takes the pause for the end, now and then, and says nothing of what follows.
        """
        said = [*self._committed[-1:], *words[-1:]]
        hold = 0 if step.final or step.sure_at is not None else _UNSURE_SAMPLES
        if not said:
            return None
        return self._audio.resumes(said[-1].end_sample, step.end_sample - hold)

    def _rewind(self, sample: int, words: tuple[Word, ...], decoded: Decoded) -> list[Event]:
        """Commit the words, and start a window in the pause behind them."""
        self._attempt = 0
        self._committed += words
        self._hypotheses, self._newest = (), None
        self._cut(sample - _JITTER_SAMPLES // 2, ())
        if not words:
            return [Moved(self.state)]
        committed = Committed(words, decoded.hypothesis, decoded.temperature, self.state)
        return [committed, Tail((), self._through)]

    @property
    def _pending(self) -> tuple[Word, ...]:
        """The newest hypothesis, behind the committed words."""
        return self._hypotheses[-1] if self._hypotheses else ()

    def _remember(self, words: tuple[Word, ...], num_committed: int) -> None:
        """Keep as many hypotheses as the next one may have to agree with."""
        kept = self._cadence.agreement - 1
        behind = [hypothesis[num_committed:] for hypothesis in (*self._hypotheses, words)]
        self._hypotheses = tuple(behind[-kept:])

    @property
    def _speech_end(self) -> int:
        """Position after the newest audio: behind it nobody speaks."""
        end = self._audio.end_sample
        return self._first if end is None else end

    def _undecided(self, end: int) -> int:
        """How much speech lies between the last flush and a position."""
        return min(end, self._speech_end) - max(self._first, self._settled)

    def _expect(self, first_sample: int) -> None:
        if first_sample != self._heard:
            raise InvalidRequestError(
                f"expected sample {self._heard}, got {first_sample}: the input has a hole"
            )

    def _is_new_audio(self, end: int, step_samples: int) -> bool:
        new = min(end, self._speech_end) - max(self._through, self._first)
        return self._cadence.live and new >= step_samples

    def _pause(self, end: int) -> int | None:
        """If it has become quiet behind what was decoded: until when it is to stay so."""
        pause = self._cadence.pause
        if not (self._cadence.live and pause > 0):
            return None
        loud_until = self._audio.loud_until
        unsaid = loud_until > max(self._first, self._settled)
        paused = unsaid and self._through < loud_until + pause <= end
        return loud_until + self._cadence.sure if paused else None

    def _is_decided(self, end: int) -> bool:
        """Whether it has been quiet behind words that wait for so long that they are certain."""
        if not (self._pending and self._language):
            return False
        quiet = end - self._audio.loud_until
        return quiet >= self._cadence.quiet or (
            quiet >= self._cadence.sure and self._are_probable(self._pending)
        )

    def _are_probable(self, words: Sequence[Word]) -> bool:
        return all(word.probability >= self._cadence.sure_probability for word in words)

    def _known(self, end: int) -> Decoded | None:
        """The newest decoding, if all that was said before a position was in it, and a pause."""
        return self._newest if self._is_still(self._through, end) else None

    def _is_still(self, through: int, end: int) -> bool:
        """Whether there was a pause before one position, and it goes on up to another one.

        Behind loud speech, soft speech passes for quiet. So the pause must not be long, and nothing
        may have come that is louder than it was.
        """
        pause, loud_until = self._cadence.pause, self._audio.loud_until
        if not (self._cadence.live and pause > 0):
            return False
        if not self._first < loud_until <= min(through, end) - pause:
            return False
        heard = self._audio.loudest(max(loud_until, through - _STILL_SAMPLES), through)
        still = self._audio.loudest(through, end) <= _STILL_ENERGY * heard
        return still and end <= loud_until + _LONGEST_QUIET_SAMPLES

    def _window(self, end: int) -> Window:
        said = [*self._committed, *self._pending]
        first_try = self._attempt == 0
        return Window(
            samples=self._audio.read(self._first, end),
            first_sample=self._first,
            prompt=(*self._prompt, *self._context) if first_try else (),
            draft=tuple(token for word in said for token in word.token_ids) if first_try else (),
            language_code=self._language,
            task=self._task,
            temperature=self._temperature if self._attempt < _MAX_ATTEMPTS else _RETRY_TEMPERATURE,
        )

    def _learn_language(self, window: Window, hypothesis: Hypothesis) -> list[Event]:
        long_enough = len(window.samples) >= _LANGUAGE_SAMPLES
        sure_enough = hypothesis.language_probability >= _LANGUAGE_PROBABILITY
        if self._language or not (long_enough and sure_enough):
            return []
        self._language = hypothesis.language_code
        return [LanguageKnown(hypothesis.language_code, hypothesis.language_probability)]

    def _certain(self, step: Step, words: tuple[Word, ...]) -> int:
        """How many leading words to commit."""
        if step.final or step.known is not None:
            return len(words)
        if step.full:
            limit = step.end_sample - self._cadence.keep
            whole = sum(1 for word in words if word.end_sample <= limit)
            # If there is none, the window is cut at the limit: what lies across it is said now.
            return whole or sum(1 for word in words if word.first_sample < limit)
        if not self._language:
            return 0
        if self._stayed_quiet(step) and self._are_probable(words):
            return len(words)
        return max(self._attended(step, words), self._agreed(step, words))

    def _stayed_quiet(self, step: Step) -> bool:
        """Whether a pause has lasted, whatever came behind it."""
        if step.sure_at is None or self._heard < step.sure_at:
            return False
        return self._audio.is_quiet(step.end_sample, step.sure_at)

    def _attended(self, step: Step, words: tuple[Word, ...]) -> int:
        if self._cadence.policy is Policy.LOCAL_AGREEMENT:
            return 0
        return attended(words, before_sample=step.end_sample - self._cadence.attention)

    def _agreed(self, step: Step, words: tuple[Word, ...]) -> int:
        if self._cadence.policy is Policy.ALIGN_ATT:
            return 0
        shared = agree(self._hypotheses, words, num_hypotheses=self._cadence.agreement)
        return attended(
            words[:shared], before_sample=step.end_sample - self._cadence.agreed_attention
        )

    def _ordered(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """The words with times that never run backwards, as attention's sometimes do."""
        after = self._committed[-1].end_sample if self._committed else self._first
        ordered = []
        for word in words:
            first = max(word.first_sample, after)
            after = max(word.end_sample, first + 1)
            ordered.append(replace(word, first_sample=first, end_sample=after))
        return tuple(ordered)

    def _trim(self, step: Step) -> None:
        """Let audio go that lies before a committed word boundary, if the window is long.

        Half of a live window stays: a model needs to hear what goes before.
        """
        latest = step.end_sample - self._cadence.keep
        if step.full:
            # A full window has to move on, whatever it holds.
            self._cut_between(max(latest - _LAST_CHOICE_SAMPLES, self._first + 1), latest)
            if self._first + self._cadence.window <= step.end_sample:
                self._cut(latest, [word for word in self._committed if word.end_sample > latest])
        elif step.end_sample - self._first > self._cadence.window - self._cadence.keep:
            self._cut_between(self._first + (latest - self._first) // 2, latest)

    def _cut_between(self, first_sample: int, last_sample: int) -> None:
        """Cut at the end of a committed sentence, else word, wherever it is quietest there.

        A word's times come from attention and are some tenths of a second off: cut where they say,
        a word would now and then be in two windows, or in none.
        """
        ends = [
            (index, word)
            for index, word in enumerate(self._committed, start=1)
            if first_sample <= word.end_sample <= last_sample
        ]
        sentences = [(index, word) for index, word in ends if word.text.endswith(_SENTENCE_ENDS)]
        choices = [(self._quietest_behind(index), index) for index, _ in sentences or ends]
        if choices:
            (_, place), index = min(choices)
            self._cut(place, self._committed[index:])

    def _quietest_behind(self, index: int) -> tuple[float, int]:
        """How loud it is, and where, at the quietest place between a word and the next one.

        At most half of either lies on the wrong side.
        """
        before, *behind = [*self._committed, *self._pending][index - 1 : index + 1]
        first = max(self._first + 1, before.end_sample - _JITTER_SAMPLES, _middle(before))
        resumed = behind[0].first_sample if behind else before.end_sample
        last = min([self._heard, resumed + _JITTER_SAMPLES, *map(_middle, behind)])
        if first >= last:
            return float("inf"), before.end_sample
        place, power = self._audio.quietest(first, last)
        return power, place

    def _cut(self, sample: int, left: Sequence[Word]) -> None:
        self._let_go(len(self._committed) - len(left))
        self._audio.release(sample)
        self._first = sample
        self._through = max(self._through, sample)

    def _let_go(self, num_words: int) -> None:
        """Make the oldest committed words context: their audio leaves the window."""
        gone = [token for word in self._committed[:num_words] for token in word.token_ids]
        context = [*self._context, *gone]
        self._context = tuple(context[len(context) - min(self._cadence.context, len(context)) :])
        del self._committed[:num_words]

    def _end_window(self, speech_end: int) -> None:
        """Commit what precedes a gap, then start a new window behind it."""
        mark = self._marks[-1] if self._marks else None
        if mark is not None and mark.new_window_at is not None and mark.sample == speech_end:
            self._marks[-1] = replace(mark, new_window_at=self._heard)
        else:
            self._marks.append(_Mark(speech_end, None, self._heard))

    def _start_window(self, first_sample: int) -> None:
        self._let_go(len(self._committed))
        self._hypotheses, self._newest = (), None
        self._audio.release(first_sample)
        self._first = first_sample
        self._through = max(self._through, first_sample)


def _middle(word: Word) -> int:
    return (word.first_sample + word.end_sample) // 2


def _believed(words: tuple[Word, ...], verdict: Verdict) -> tuple[Word, ...]:
    """What is left of a hypothesis that no other decoding improved on."""
    if verdict is Verdict.NO_SPEECH:
        return ()
    if verdict is Verdict.REPETITION:
        return without_loops(words)
    return words
