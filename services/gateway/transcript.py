"""What was said in a session, as far as it is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.common.words import Word
from services.gateway.translation import Translation


@dataclass(frozen=True, slots=True)
class Scores:
    """What the recogniser thinks of a run of words."""

    avg_log_probability: float = 0.0
    no_speech_probability: float = 0.0
    temperature: float = 0.0


_UNKNOWN = Scores()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the recogniser came to a run of committed words."""

    first_word: int
    """Index of the run's first word in ``Transcript.words``."""
    num_words: int
    avg_log_probability: float
    no_speech_probability: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Notice:
    """A stage in trouble, or out of it."""

    stage: str
    """``vad``, ``asr``, ``diarizer`` or ``translator``."""
    code: str
    """``DEGRADED`` or ``RECOVERED``."""
    message: str
    retryable: bool
    """Whether the gateway goes on trying by itself."""
    target: str = ""
    """Of the translator: the language that it is about, as it was asked for."""


@dataclass(frozen=True, slots=True)
class Speech:
    """A stretch in which somebody speaks."""

    first_sample: int
    end_sample: int | None
    """None: the speech goes on."""


class Transcript:
    """The words of one lane: a log of committed words, and a tail that may still change.

    ``words``, ``decodings``, ``notices`` and ``speech`` only ever grow, and what they hold is
    immutable, but for the end of the last speech: a reader remembers how far it has read.
    ``revision`` grows whenever anything changes but how far the audio was received, decoded, heard
    and settled.
    """

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._decodings: list[Decoding] = []
        self._notices: list[Notice] = []
        self._speech: list[Speech] = []
        self._translations: dict[str, Translation] = {}
        self.revision = 0
        self.held: tuple[Word, ...] = ()
        """Words that are certain, and wait to be told who said them."""
        self._unsure: tuple[Word, ...] = ()
        self.tail_known = True
        """Whether what follows the words has been said since they were committed."""
        self.language_code = ""
        """ISO 639-1 code of the language spoken; empty until it is known."""
        self.language_probability = 0.0
        self.model = ""
        """Catalogue name of the model that serves the session; empty until it is known."""
        self.finished = False
        """Whether everything that was said is in ``words``."""
        self.received_sample = 0
        """Position after the newest audio received."""
        self.decoded_sample = 0
        """Position before which all speech has been decoded."""
        self.decided_sample = 0
        """Position before which everything was decided, at a pause or because somebody asked."""
        self.heard_sample = 0
        """Position before which everything that was said is in ``words`` or ``tail``."""
        self.settled_sample = 0
        """Position before which everything that was said is in ``words``, pauses included."""

    @property
    def words(self) -> Sequence[Word]:
        """Committed words, oldest first; they never change."""
        return self._words

    @property
    def decodings(self) -> Sequence[Decoding]:
        """How the committed words came about, in their order."""
        return self._decodings

    @property
    def notices(self) -> Sequence[Notice]:
        """What happened to the stages, oldest first."""
        return self._notices

    def lacks(self, stage: str) -> bool:
        """Whether a stage was in trouble when it was last heard of."""
        codes = [notice.code for notice in self._notices if notice.stage == stage]
        return codes[-1:] == ["DEGRADED"]

    @property
    def speech(self) -> Sequence[Speech]:
        """Where somebody speaks, oldest first; speech that is too long is parted."""
        return self._speech

    @property
    def tail(self) -> tuple[Word, ...]:
        """What follows the words, as far as it is known now."""
        return self.held + self._unsure

    @property
    def committed_sample(self) -> int:
        """Position before which nothing can change any more."""
        if not self.tail:
            return self.decoded_sample
        return min(self.decoded_sample, self.tail[0].first_sample)

    @property
    def translations(self) -> Mapping[str, Translation]:
        """What the words are in other languages, by what the client calls them."""
        return self._translations

    def translation(self, target: str) -> Translation:
        """The translation into a language, which may be empty so far."""
        return self._translations.setdefault(target, Translation(self._revise))

    def _revise(self) -> None:
        self.revision += 1

    def commit(self, words: Sequence[Word], scores: Scores = _UNKNOWN) -> None:
        """Add words for good; they take the place of the tail.

        Args:
            words: What joins the words.
            scores: What the recogniser thinks of them.

        """
        self._unsure = ()
        self.tail_known = False
        self.let_in(words, scores)

    def hold(self, words: Sequence[Word]) -> None:
        """Say which words are certain, and wait to be told who said them.

        They take the place of the tail, of which some of them were.
        """
        self.held = tuple(words)
        self._unsure = ()
        self.tail_known = False
        self.revision += 1

    def let_in(self, words: Sequence[Word], scores: Scores) -> None:
        """Add words for good: so many of those held, the oldest, with who said them."""
        self._decodings.append(
            Decoding(
                len(self._words),
                len(words),
                scores.avg_log_probability,
                scores.no_speech_probability,
                scores.temperature,
            )
        )
        self._words.extend(words)
        self.held = self.held[len(words) :]
        self.revision += 1

    def replace_tail(self, words: Sequence[Word], through_sample: int = 0) -> None:
        """Say what may still change now; no news is no revision, unless words were committed.

        Args:
            words: What follows the committed words.
            through_sample: Position through which that is everything.

        """
        self.heard_sample = max(self.heard_sample, through_sample)
        tail = tuple(words)
        if tail != self._unsure or not self.tail_known:
            self._unsure = tail
            self.tail_known = True
            self.revision += 1

    def detect(self, language_code: str, probability: float) -> None:
        """The language of the speech is known."""
        if (language_code, probability) != (self.language_code, self.language_probability):
            self.language_code = language_code
            self.language_probability = probability
            self.revision += 1

    def notify(self, notice: Notice) -> None:
        """Something happened to a stage."""
        self._notices.append(notice)
        self.revision += 1

    def start_speech(self, first_sample: int) -> None:
        """Somebody starts to speak here."""
        self._speech.append(Speech(first_sample, None))
        self.revision += 1

    def end_speech(self, end_sample: int) -> None:
        """Speech ends here, if there is any."""
        if self._speech and self._speech[-1].end_sample is None:
            self._speech[-1] = replace(self._speech[-1], end_sample=end_sample)
            self.revision += 1

    def decide(self, sample: int) -> None:
        """What comes before this position will not be added to any more."""
        sample = self._before_held(sample)
        if sample > self.decided_sample:
            self.decided_sample = sample
            self.revision += 1

    def settle(self, sample: int) -> None:
        """Everything that was said before this position is committed."""
        self.settled_sample = max(self.settled_sample, self._before_held(sample))
        self.heard_sample = max(self.heard_sample, sample)

    def _before_held(self, sample: int) -> int:
        return min(sample, self.held[0].first_sample) if self.held else sample

    def finish(self) -> None:
        """Nothing more will be said."""
        self._unsure = ()
        self.tail_known = True
        self.finished = True
        self.decoded_sample = self.received_sample
        self.decided_sample = self.received_sample
        self.end_speech(self.received_sample)
        self.settle(self.received_sample)
        self.revision += 1
