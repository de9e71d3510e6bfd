"""What every engine promises, whatever it runs on."""

import re
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jiwer
import numpy as np
import pytest

from services.asr.engines.whisper_window import FRAME_SAMPLES
from services.asr.events import Flushed, Tail
from services.asr.guards import Verdict, judge
from services.asr.recognizer import Hypothesis, Recognizer, Task, Window
from services.asr.transcriber import Transcriber
from services.common.audio import FloatArray
from services.common.timeline import samples
from services.common.words import Word, text_of
from tests.asr.engines.hearing import alone, part, tokens_of
from tests.asr.harness import LIVE, Piece, decode, follow, rest_of

ENGINES = ("tiny", "onnx_tiny", "torch_tiny", "torch_toy")
"""tiny.en in int8 on CTranslate2 and on ONNX Runtime, in float32 on torch; and random weights."""
REAL = ENGINES[:3]
CHOOSING = ("onnx_tiny", "torch_tiny")
"""They choose each token themselves: drafts and chance are theirs to handle."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Recognizer:
    model: Recognizer = request.getfixturevalue(request.param)
    return model


@pytest.fixture(params=REAL)
def real_engine(request: pytest.FixtureRequest) -> Recognizer:
    model: Recognizer = request.getfixturevalue(request.param)
    return model


@pytest.fixture(params=CHOOSING)
def choosing(request: pytest.FixtureRequest) -> Recognizer:
    model: Recognizer = request.getfixturevalue(request.param)
    return model


@pytest.fixture(params=["onnx_base", "torch_base"])
def multilingual(request: pytest.FixtureRequest) -> Recognizer:
    model: Recognizer = request.getfixturevalue(request.param)
    return model


class CountedDecoder:
    """Counts passes and the rows in each."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.decoder, name)

    def __call__(self, tokens: Sized, *others: object) -> object:
        """A pass on torch."""
        self.rows.append(len(tokens))
        return self.decoder(tokens, *others)

    def say(self, tokens: Sized, *others: object) -> object:
        """A pass on ONNX Runtime."""
        self.rows.append(len(tokens))
        return self.decoder.say(tokens, *others)


@pytest.fixture
def counted(choosing: Any, monkeypatch: pytest.MonkeyPatch) -> CountedDecoder:
    counter = CountedDecoder(choosing._decoder)
    monkeypatch.setattr(choosing, "_decoder", counter)
    return counter


def together(model: Recognizer, windows: Sequence[Window]) -> list[Hypothesis]:
    """Decode windows of one bucket in one batch."""
    assert len({model.bucket(window) for window in windows}) == 1, "they would never meet"
    return model.recognize(windows)


def assert_same(one: Hypothesis, other: Hypothesis, *, within: float = 0.02) -> None:
    """The same words at the same places, but for a frame.

    Numbers may differ as sums in another order do.
    """
    assert [(word.text, word.token_ids) for word in one.words] == [
        (word.text, word.token_ids) for word in other.words
    ]
    for here, there in zip(one.words, other.words, strict=True):
        assert abs(here.first_sample - there.first_sample) <= FRAME_SAMPLES
        assert abs(here.end_sample - there.end_sample) <= FRAME_SAMPLES
    assert [word.probability for word in one.words] == pytest.approx(
        [word.probability for word in other.words], abs=within
    )
    assert one.language_code == other.language_code
    assert one.no_speech_probability == pytest.approx(other.no_speech_probability, abs=within)
    assert one.avg_log_probability == pytest.approx(other.avg_log_probability, abs=within)


def noise(seconds: float) -> FloatArray:
    return np.random.default_rng(1).normal(0, 0.1, samples(seconds)).astype(np.float32)


# --- a batch


def test_a_batch_says_what_each_of_its_windows_says_alone(
    engine: Recognizer, two_cities: FloatArray
) -> None:
    lengths = [4.1, 4.5, 4.99, 5.0, 4.2, 4.7]
    windows = [part(two_cities, n * 5, n * 5 + length) for n, length in enumerate(lengths)]
    expected = [alone(engine, window) for window in windows]
    assert len({text_of(heard.words) for heard in expected}) == len(windows)
    for one, other in zip(together(engine, windows), expected, strict=True):
        assert_same(one, other)


def test_windows_with_prompts_say_in_a_batch_what_they_say_alone(
    engine: Recognizer, two_cities: FloatArray
) -> None:
    texts = (" The end.", " In short", " no capitals")
    prompts = [engine.encode_text(text)[:2] for text in texts]
    windows = [
        part(two_cities, 5 * n, 5 * n + 4.5, prompt=prompt) for n, prompt in enumerate(prompts)
    ]
    expected = [alone(engine, window) for window in windows]
    for one, other in zip(together(engine, windows), expected, strict=True):
        assert_same(one, other)


def test_rows_of_silence_and_noise_change_no_other(engine: Recognizer, beckett: FloatArray) -> None:
    speech = part(beckett, 0, 5)
    rows = [Window(np.zeros(samples(5), np.float32), 0), speech, Window(noise(5), 0)]
    assert_same(together(engine, rows)[1], alone(engine, speech))


def test_the_padding_behind_a_shorter_row_changes_nothing(
    engine: Recognizer, two_cities: FloatArray
) -> None:
    """However short it is beside the longest that shares its batch."""
    longest = part(two_cities, 30, 37.9)
    for seconds in (0.2, 1.0, 3.3, 7.1):
        short = part(two_cities, 2, 2 + seconds)
        if engine.bucket(short) == engine.bucket(longest):
            assert_same(together(engine, [short, longest])[0], alone(engine, short))
    near = part(two_cities, 2, 9.5)
    assert_same(together(engine, [near, longest])[0], alone(engine, near))


def test_several_batches_may_run_at_once(engine: Recognizer, two_cities: FloatArray) -> None:
    windows = [part(two_cities, 6 * n, 6 * n + 4) for n in range(4)]
    expected = [alone(engine, window) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(lambda w: alone(engine, w), windows), expected, strict=True):
            assert_same(one, other)


# --- drafts


def drafts(said: Sequence[int]) -> dict[str, tuple[int, ...]]:
    middle = len(said) // 2
    other = tuple(token + 1 for token in said)
    return {
        "empty": (),
        "right": tuple(said),
        "too short": tuple(said[:middle]),
        "too long": (*said, *said[:3]),
        "wrong at first": (other[0], *said[1:]),
        "wrong in the middle": (*said[:middle], other[middle], *said[middle + 1 :]),
        "one word too many": (*said[:middle], *said[middle - 1 :]),
        "all wrong": other,
        "no text at all": (50_300, *said),
        "no token at all": (-1, 10**6),
        "far too long": tuple(said) * 40,
    }


@pytest.mark.parametrize("kind", drafts((1, 2)))
def test_what_is_recognised_does_not_depend_on_the_draft(
    kind: str, engine: Recognizer, two_cities: FloatArray
) -> None:
    window = part(two_cities, 0, 6)
    heard = alone(engine, window)
    draft = drafts(tokens_of(heard))[kind]
    assert_same(alone(engine, replace(window, draft=draft)), heard)


def test_rows_with_all_kinds_of_drafts_share_a_batch(
    engine: Recognizer, two_cities: FloatArray
) -> None:
    window = part(two_cities, 0, 6)
    heard = alone(engine, window)
    rows = [replace(window, draft=draft) for draft in drafts(tokens_of(heard)).values()]
    for one in together(engine, rows):
        assert_same(one, heard)


def test_a_growing_window_says_what_it_says_without_its_past(
    engine: Recognizer, two_cities: FloatArray
) -> None:
    draft: tuple[int, ...] = ()
    for end in (1, 2, 3, 4, 5, 6, 7, 8):
        window = part(two_cities, 0, end)
        heard = alone(engine, replace(window, draft=draft))
        assert_same(heard, alone(engine, window))
        draft = tokens_of(heard)
    assert draft


# --- passes


def test_a_draft_costs_one_pass_and_what_it_lacks_one_per_token(
    choosing: Recognizer, counted: CountedDecoder, two_cities: FloatArray
) -> None:
    window = part(two_cities, 0, 6)
    said = tokens_of(alone(choosing, window))
    assert len(counted.rows) == len(said) + 1
    for lacking in (0, 1, 5):
        counted.rows.clear()
        alone(choosing, replace(window, draft=said[: len(said) - lacking]))
        assert len(counted.rows) == lacking + 1


def test_a_wrong_word_in_a_draft_costs_few_passes(
    choosing: Recognizer, counted: CountedDecoder, two_cities: FloatArray
) -> None:
    window = part(two_cities, 0, 6)
    said = tokens_of(alone(choosing, window))
    middle = len(said) // 2
    for wrong in (
        (*said[:middle], said[middle] + 1, *said[middle + 1 :]),
        (*said[:middle], *said[middle + 1 :]),
        (*said[:middle], said[middle] + 1, *said[middle:]),
    ):
        counted.rows.clear()
        assert tokens_of(alone(choosing, replace(window, draft=wrong))) == said
        assert len(counted.rows) <= 3 + len(said) // 8


def test_rows_that_have_ended_leave_the_batch(
    choosing: Recognizer, counted: CountedDecoder, two_cities: FloatArray
) -> None:
    choosing.recognize([part(two_cities, 0, seconds) for seconds in (1, 2, 4, 7)])
    assert counted.rows[0] == 4
    assert counted.rows[-1] == 1
    assert counted.rows == sorted(counted.rows, reverse=True)


def test_rows_that_stay_after_their_end_say_no_more(
    choosing: Recognizer, counted: CountedDecoder, two_cities: FloatArray
) -> None:
    """One of many does not leave at once: it would cost more than it saves."""
    windows = [part(two_cities, 0, seconds) for seconds in (1.0, 7, 7, 7, 7, 7, 7, 7)]
    heard = choosing.recognize(windows)
    assert counted.rows[-1] == 8 or counted.rows.count(8) > 10
    assert tokens_of(heard[0]) == tokens_of(alone(choosing, windows[0]))


def test_windows_share_a_batch_whatever_their_length_if_they_take_as_many_passes(
    choosing: Recognizer,
) -> None:
    silence = np.zeros(samples(30), np.float32)
    short, long = part(silence, 0, 3), part(silence, 0, 24)
    assert choosing.bucket(short) == choosing.bucket(part(silence, 0, 7))
    assert choosing.bucket(short) != choosing.bucket(long)
    assert choosing.bucket(short) == choosing.bucket(replace(long, draft=(1, 2)))
    # Where chance decides, a draft is worth nothing.
    warm = replace(long, draft=(1, 2), temperature=0.4)
    assert choosing.bucket(short) != choosing.bucket(warm)


def test_a_loop_ends_at_the_limit_in_every_batch(
    choosing: Recognizer, two_cities: FloatArray
) -> None:
    prompt = choosing.encode_text(" in short," * 70)
    window = part(two_cities, 25, 29.7, prompt=prompt)
    said = tokens_of(alone(choosing, window))
    assert len(said) == 7 + int(4.7 * 11.25), "it is a loop"
    beside, _ = choosing.recognize([replace(window, draft=said[:20]), part(two_cities, 0, 5)])
    assert tokens_of(beside) == said


# --- chance


def test_chance_depends_on_the_window_alone(choosing: Recognizer, beckett: FloatArray) -> None:
    window = part(beckett, 0, 4, temperature=1.0)
    assert text_of(alone(choosing, window).words) == text_of(alone(choosing, window).words)
    shifted = [replace(window, first_sample=first) for first in range(5)]
    assert len({text_of(heard.words) for heard in choosing.recognize(shifted)}) > 1
    cold = replace(window, temperature=0.0)
    mixed = choosing.recognize([window, cold])
    assert text_of(mixed[1].words) == text_of(alone(choosing, cold).words)
    assert text_of(mixed[0].words) != text_of(mixed[1].words)


def test_where_chance_decides_a_draft_is_worth_nothing(
    choosing: Recognizer, counted: CountedDecoder, beckett: FloatArray
) -> None:
    window = part(beckett, 0, 4, temperature=0.4)
    heard = alone(choosing, window)
    assert len(counted.rows) > 3
    counted.rows.clear()
    again = alone(choosing, replace(window, draft=tokens_of(heard)))
    assert tokens_of(again) == tokens_of(heard)
    assert len(counted.rows) > 3


# --- languages


def test_each_row_has_its_own_language_and_task(
    multilingual: Recognizer, two_cities: FloatArray
) -> None:
    codes = ["", "de", "en", "", "fr"]
    windows = [part(two_cities, 0, 6, language_code=code) for code in codes]
    windows.append(replace(windows[2], task=Task.TRANSLATE))
    rows = multilingual.recognize(windows)
    assert [heard.language_code for heard in rows] == ["en", "de", "en", "en", "fr", "en"]
    assert [heard.language_probability for heard in rows[1:3]] == [1.0, 1.0]
    assert 0.5 < rows[0].language_probability < 1
    texts = [text_of(heard.words) for heard in rows]
    assert texts[0] == texts[2] == texts[3]
    assert len(set(texts[:3])) == 2
    for window, text in zip(windows, texts, strict=True):
        assert text_of(alone(multilingual, window).words) == text
    assert multilingual.tasks == (Task.TRANSCRIBE, Task.TRANSLATE)
    assert {"en", "de", "ja"} <= set(multilingual.language_codes)


# --- words


@pytest.mark.parametrize("num_samples", [1, 159, 160, 480, 1600, 480_000])
def test_words_lie_in_order_inside_windows_of_any_length(
    num_samples: int, engine: Recognizer, two_cities: FloatArray
) -> None:
    window = Window(two_cities[8000 : 8000 + num_samples], 5)
    heard = alone(engine, window)
    for word in heard.words:
        assert 5 <= word.first_sample < word.end_sample <= 5 + num_samples
        assert 0 <= word.probability <= 1
        assert word.token_ids
    for one, other in pairwise(heard.words):
        assert one.first_sample <= other.first_sample
    moved = alone(engine, replace(window, first_sample=3 * 3600 * 16_000))
    shift = moved.words[0].first_sample - heard.words[0].first_sample if heard.words else 0
    assert [word.first_sample + shift for word in heard.words] == [
        word.first_sample for word in moved.words
    ]


def test_no_word_holds_half_a_character(engine: Recognizer, two_cities: FloatArray) -> None:
    for first in range(0, 40, 4):
        heard = alone(engine, part(two_cities, first, first + 3.5))
        assert "\ufffd" not in text_of(heard.words)


def test_speech_is_told_from_silence_also_behind_a_prompt(
    real_engine: Recognizer, beckett: FloatArray
) -> None:
    """P20: the probability is read where the text starts, wherever that is."""
    prompt = real_engine.encode_text(" They went on, and on, and did not stop.")
    silence = np.zeros(samples(5), np.float32)
    for text in ((), prompt):
        quiet = alone(real_engine, Window(silence, 0, prompt=text))
        loud = alone(real_engine, part(beckett, 0, 5, prompt=text))
        assert loud.no_speech_probability < 0.5 < 0.7 < quiet.no_speech_probability
        assert judge(loud, samples(5)) is Verdict.SOUND
        assert not quiet.words or judge(quiet, samples(5)) is not Verdict.SOUND


# --- a stream


def pieces_of(audio: FloatArray, *, step_s: float = 1.0) -> list[Piece]:
    step = samples(step_s)
    starts = range(0, len(audio), step)
    return [Piece(s, len(audio[s : s + step]), audio[s : s + step]) for s in starts]


def heard_in(words: Iterable[Word]) -> list[tuple[str, int, int]]:
    return [(word.text, word.first_sample, word.end_sample) for word in words]


def test_a_stream_that_is_resumed_goes_on_as_if_it_had_not_been_cut(
    engine: Recognizer, beckett: FloatArray
) -> None:
    pieces = pieces_of(beckett)
    cadence = replace(LIVE, window=samples(7))
    whole = follow(Transcriber(cadence, language_code="en"), engine, pieces)
    assert len(whole.commits) > 1
    for index in {0, len(whole.commits) // 2, len(whole.commits) - 1}:
        state = whole.commits[index].state
        first = state.window_first_sample
        successor = Transcriber(cadence, first_sample=first, language_code="en", state=state)
        rest = follow(successor, engine, rest_of(pieces, first))
        before = [word for commit in whole.commits[: index + 1] for word in commit.words]
        assert heard_in(before) + heard_in(rest.words) == heard_in(whole.words)


def test_a_flush_leaves_nothing_undecided(engine: Recognizer, beckett: FloatArray) -> None:
    transcriber = Transcriber(LIVE, language_code="en")
    pieces = pieces_of(beckett[: samples(6.4)])
    history = follow(transcriber, engine, pieces, finish=False)
    transcriber.flush(7)
    decode(transcriber, engine, history)
    assert history.of(Flushed) == [Flushed(7)]
    assert history.of(Tail)[-1] == Tail((), samples(6.4))
    assert transcriber.backlog_samples == 0


def test_what_was_said_last_is_committed_at_a_flush(
    real_engine: Recognizer, beckett: FloatArray
) -> None:
    transcriber = Transcriber(LIVE, language_code="en")
    history = follow(transcriber, real_engine, pieces_of(beckett[: samples(6.4)]), finish=False)
    transcriber.flush(7)
    decode(transcriber, real_engine, history)
    heard = alone(real_engine, history.windows[-1])
    assert [word.text for word in history.words][-2:] == [word.text for word in heard.words][-2:]


# --- one model, two engines

MAX_DISAGREEMENT = 0.03
"""Word error rate of one engine's text against the other's: what int8 takes from float32."""


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


@pytest.mark.parametrize("name", ["tiny", "onnx_tiny"])
def test_engines_agree_on_the_same_weights(
    name: str,
    request: pytest.FixtureRequest,
    torch_tiny: Recognizer,
    two_cities: FloatArray,
    beckett: FloatArray,
) -> None:
    in_int8: Recognizer = request.getfixturevalue(name)
    windows = [part(two_cities, first, first + 11) for first in range(0, 44, 11)]
    windows.append(part(beckett, 0, 9))
    texts, others = [], []
    for window in windows:
        one, other = alone(in_int8, window), alone(torch_tiny, window)
        texts.append(plain(text_of(one.words)))
        others.append(plain(text_of(other.words)))
        assert one.no_speech_probability == pytest.approx(other.no_speech_probability, abs=0.05)
    assert len(" ".join(texts).split()) > 100
    assert jiwer.wer(texts, others) <= MAX_DISAGREEMENT
