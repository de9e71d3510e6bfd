"""Speech whose words are known, a recognizer that hears them, lanes to play them on, a replica.

A word is a run of samples of one level, and the level says which word of the script it is. So the
recognizer hears words from samples alone: audio that is lost, moved or doubled on its way into a
window is heard as such.
"""

import random
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from zlib import crc32

import numpy as np

from services.asr.checkpoint import State
from services.asr.events import Committed, Event, Moved
from services.asr.policies.policy import Policy
from services.asr.recognizer import Hypothesis, Recognizer, Task, Window
from services.asr.transcriber import Cadence, Transcriber
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.timeline import samples
from services.common.words import Word

STEP = samples(1)
LIVE = Cadence(
    window=samples(24),
    keep=samples(2),
    gap=samples(2),
    live=True,
    policy=Policy.LOCAL_AGREEMENT,
    attention=samples(1.2),
    agreement=2,
    agreed_attention=samples(1),
    pause=0,
    sure=0,
    sure_probability=0.9,
    quiet=samples(0.6),
    context=32,
)
FILE = replace(LIVE, window=samples(28), live=False)

POISON = -30_000
"""A level that breaks the model."""
NOISE = -20_000
"""A level that is loud and says nothing."""


def spelling(number: int) -> str:
    """A word like no other, and no easier to compress than people's."""
    return f" {crc32(str(number).encode()):x}"


def script(pauses_s: Iterable[float], *, word_s: float = 0.3, first_s: float = 0.0) -> list[Word]:
    """A word after each pause, each of them another one."""
    words: list[Word] = []
    position = samples(first_s)
    for number, pause_s in enumerate(pauses_s):
        first = position + samples(pause_s)
        position = first + samples(word_s)
        words.append(Word(spelling(number), first, position, 0.9, (number,)))
    return words


def chatter(num_words: int, *, first_s: float = 0.0, seed: int = 0) -> list[Word]:
    """Words as people speak: 0.05 to 0.4 s apart."""
    rng = random.Random(seed)
    return script((rng.uniform(0.05, 0.4) for _ in range(num_words)), first_s=first_s)


def ending(words: Sequence[Word], tail_s: float = 1.0) -> int:
    """Where a lane ends that goes on for so long after the last word."""
    return words[-1].end_sample + samples(tail_s)


def spoken(words: Sequence[Word], num_samples: int) -> FloatArray:
    """The script from position 0 on.  -> (num_samples,) float32."""
    levels = np.zeros(num_samples, np.float32)
    for number, word in enumerate(words):
        levels[word.first_sample : word.end_sample] = number + 1
    return levels / np.float32(32768)


@dataclass(frozen=True, slots=True)
class Piece:
    """A message's worth of lane: audio, or a gap."""

    first_sample: int
    num_samples: int
    heard: FloatArray | None
    """None: a gap."""

    @property
    def end_sample(self) -> int:
        return self.first_sample + self.num_samples

    def part(self, first_sample: int, end_sample: int) -> "Piece":
        heard = self.heard
        if heard is not None:
            heard = heard[first_sample - self.first_sample : end_sample - self.first_sample]
        return Piece(first_sample, end_sample - first_sample, heard)


def lane(words: Sequence[Word], end_sample: int, *, gap_from_s: float = 0.9) -> list[Piece]:
    """The script with pauses left out, but for 0.3 s around speech; shorter ones are played."""
    audio, roll = spoken(words, end_sample), samples(0.3)
    borders = [-roll, *(b for word in words for b in (word.first_sample, word.end_sample))]
    borders.append(end_sample + roll)
    pieces: list[Piece] = []
    position = 0
    for end, first in zip(borders[::2], borders[1::2], strict=True):
        if first - end < samples(gap_from_s):
            continue
        pieces += [
            Piece(position, end + roll - position, audio[position : end + roll]),
            Piece(end + roll, first - end - 2 * roll, None),
        ]
        position = first - roll
    if position < end_sample:
        pieces.append(Piece(position, end_sample - position, audio[position:end_sample]))
    return [piece for piece in pieces if piece.num_samples > 0]


def cut(pieces: Iterable[Piece], at: Iterable[int]) -> Iterator[Piece]:
    """The same lane in smaller messages, cut at positions."""
    places = sorted(set(at))
    for piece in pieces:
        inside = [p for p in places if piece.first_sample < p < piece.end_sample]
        for first, end in pairwise([piece.first_sample, *inside, piece.end_sample]):
            yield piece.part(first, end)


def every(step_s: float, end_sample: int) -> range:
    """Positions so far apart."""
    return range(0, end_sample, samples(step_s))


def anywhere(low_s: float, high_s: float, end_sample: int, *, seed: int) -> list[int]:
    """Positions at random distances."""
    rng, places = random.Random(seed), [0]
    while places[-1] < end_sample:
        places.append(places[-1] + samples(rng.uniform(low_s, high_s)))
    return places


@dataclass(slots=True, eq=False)
class ScriptedRecognizer:
    """Hears the words of a script that lie wholly inside a window, and part words at its end.

    A word that ends within ``slur_s`` of the window's end is misheard, each time otherwise: less
    than the 0.3 s of pause that a lane plays before it leaves the rest out.
    ``stretch``: a word lasts until the next one starts, as attention sees it.
    """

    words: Sequence[Word]
    slur_s: float = 0.0
    stretch: bool = False
    engine: str = "script"
    language_codes: tuple[str, ...] = ("en",)
    spoken_language: str = "en"
    echo_language: bool = False
    tasks: tuple[Task, ...] = (Task.TRANSCRIBE,)
    max_window_samples: int = samples(30)
    fails: Callable[[int, Sequence[Window]], bool] = lambda _calls, _windows: False
    amiss: Callable[[Window, Hypothesis], Hypothesis] = lambda _window, heard: heard
    """What it makes of what it heard."""
    batches: list[list[Window]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: it hangs."""

    def __post_init__(self) -> None:
        self.gate.set()

    def bucket(self, window: Window) -> Hashable:
        return -(-len(window.samples) // samples(1)), window.temperature

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        self.batches.append(list(windows))
        assert self.gate.wait(20), "the test left the model hanging"
        levels = [np.rint(window.samples * 32768).astype(np.int32) for window in windows]
        if self.fails(len(self.batches), windows) or any((x == POISON).any() for x in levels):
            raise DeviceError("the device is gone")
        return [self._hear(*pair) for pair in zip(windows, levels, strict=True)]

    def _hear(
        self, window: Window, levels: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    ) -> Hypothesis:
        end = window.first_sample + len(levels)
        language = window.language_code or self.spoken_language
        edges = np.flatnonzero(np.diff(levels, prepend=0, append=0)).tolist()
        words: list[Word] = []
        for begin, after in pairwise(edges):
            level = int(levels[begin])
            if not 0 < level <= len(self.words):
                continue
            said = self.words[level - 1]
            whole = after - begin == said.end_sample - said.first_sample
            if not whole and after < len(levels):
                continue
            first, last = window.first_sample + begin, window.first_sample + after
            text = said.text + (f"@{language}" if self.echo_language else "")
            if not whole or last > end - samples(self.slur_s):
                if not self.slur_s:
                    continue
                text = f" x{end}-{level}"
            words.append(Word(text, first, last, said.probability, said.token_ids))
        if self.stretch:
            starts = [*(word.first_sample for word in words[1:]), end]
            words = [replace(w, end_sample=s) for w, s in zip(words, starts, strict=True)]
        sure = len(levels) >= samples(2)
        heard = Hypothesis(
            tuple(words),
            language,
            1.0 if window.language_code else 0.9 if sure else 0.3,
            no_speech_probability=0.0 if words else 0.9,
            avg_log_probability=-0.2 if words else 0.0,
        )
        return self.amiss(window, heard)


@dataclass(slots=True)
class History:
    """What a transcriber said, and where it stood."""

    events: list[tuple[int, Event]] = field(default_factory=list)
    """Each with the position through which had been heard."""
    windows: list[Window] = field(default_factory=list)

    @property
    def commits(self) -> list[Committed]:
        return [event for _, event in self.events if isinstance(event, Committed)]

    @property
    def words(self) -> list[Word]:
        return [word for commit in self.commits for word in commit.words]

    @property
    def places(self) -> list[tuple[int, State]]:
        """The checkpoints, each with the position heard."""
        return [
            (heard, event.state)
            for heard, event in self.events
            if isinstance(event, Committed | Moved)
        ]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for _, event in self.events if isinstance(event, kind)]


def take_in(transcriber: Transcriber, piece: Piece) -> None:
    """Push or skip."""
    if piece.heard is None:
        transcriber.skip(piece.first_sample, piece.num_samples)
    else:
        transcriber.push(piece.first_sample, piece.heard)


def decode(transcriber: Transcriber, model: Recognizer, history: History) -> None:
    """Do everything that is due."""
    turns = 0
    while (step := transcriber.next_step(STEP)) is not None:
        turns += 1
        assert turns < 1000, "it turns on the spot"
        hypothesis = None
        if step.window is not None:
            history.windows.append(step.window)
            [hypothesis] = model.recognize([step.window])
        heard = transcriber.heard_sample
        history.events += [(heard, event) for event in transcriber.complete(step, hypothesis)]


def follow(
    transcriber: Transcriber,
    model: Recognizer,
    pieces: Iterable[Piece],
    *,
    decode_at: Callable[[int], bool] = lambda _position: True,
    finish: bool = True,
) -> History:
    """Play a lane. ``decode_at``: after which positions there is time to decode."""
    history = History()
    for piece in pieces:
        take_in(transcriber, piece)
        if decode_at(piece.end_sample):
            decode(transcriber, model, history)
    if finish:
        transcriber.finish()
        decode(transcriber, model, history)
    return history


def rest_of(pieces: Iterable[Piece], first_sample: int) -> list[Piece]:
    """The lane from a position on."""
    return [
        piece.part(max(piece.first_sample, first_sample), piece.end_sample)
        for piece in pieces
        if piece.end_sample > first_sample
    ]
