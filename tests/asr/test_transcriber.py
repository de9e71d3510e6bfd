"""Words that are known, played on a lane, through the windows of a transcriber."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.asr import checkpoint
from services.asr.events import Committed, Flushed, GuardFired, LanguageKnown, Moved, Tail
from services.asr.guards import Verdict
from services.asr.policies.policy import Policy
from services.asr.recognizer import Hypothesis, Window
from services.asr.transcriber import Cadence, Step, Transcriber
from services.common.errors import InvalidRequestError
from services.common.timeline import samples, seconds
from services.common.words import Word, text_of
from tests.asr.harness import (
    FILE,
    LIVE,
    NOISE,
    STEP,
    History,
    Piece,
    ScriptedRecognizer,
    anywhere,
    chatter,
    cut,
    decode,
    ending,
    every,
    follow,
    lane,
    rest_of,
    script,
    spelling,
    spoken,
    take_in,
)

ALIGN_ATT = replace(LIVE, policy=Policy.ALIGN_ATT, attention=samples(1))
EITHER = replace(LIVE, policy=Policy.EITHER, agreed_attention=samples(0.6), pause=samples(0.35))
PACES = [
    pytest.param(LIVE, id="local-agreement"),
    pytest.param(replace(LIVE, agreement=3), id="local-agreement-3"),
    pytest.param(ALIGN_ATT, id="align-att"),
    pytest.param(EITHER, id="either"),
    pytest.param(FILE, id="file"),
]
MESSAGE_S = 0.1

SLUR_S = 0.25


def transcribed(
    words: Sequence[Word],
    end: int | None = None,
    *,
    cadence: Cadence = LIVE,
    slur_s: float = SLUR_S,
) -> History:
    """A lane in small messages; it goes on for a second after the last word."""
    end = ending(words) if end is None else end
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    return follow(
        Transcriber(cadence, language_code="en"), ScriptedRecognizer(words, slur_s), pieces
    )


def assert_once_and_exact(history: History, words: Sequence[Word]) -> None:
    assert text_of(history.words) == text_of(words)
    assert history.words == list(words)


@pytest.mark.parametrize("cadence", PACES)
@pytest.mark.parametrize("slur_s", [0, SLUR_S])
def test_words_come_once_in_order_and_where_they_were_said(cadence: Cadence, slur_s: float) -> None:
    words = chatter(250)
    history = transcribed(words, cadence=cadence, slur_s=slur_s)
    assert_once_and_exact(history, words)
    assert all(len(window.samples) <= cadence.window for window in history.windows)


def test_live_words_come_within_a_step_and_a_hold_of_being_said() -> None:
    words = chatter(100)
    history = transcribed(words)
    for heard, event in history.events:
        if isinstance(event, Committed) and heard < ending(words):
            # Agreement needs two hypotheses, a step apart, of which the first may lack the word.
            late = heard - event.words[0].end_sample
            assert late <= LIVE.agreed_attention + 2 * STEP + samples(0.2)
    assert len(history.commits) > 25


def test_words_on_which_no_two_hypotheses_agree_are_not_committed() -> None:
    words = chatter(20)
    end = ending(words)
    model = ScriptedRecognizer(words)
    model.amiss = lambda window, heard: replace(
        heard,
        words=tuple(
            replace(word, text=f" {len(window.samples)}") if n == 3 else word
            for n, word in enumerate(heard.words)
        ),
    )
    transcriber = Transcriber(LIVE, language_code="en")
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)), finish=False)
    assert history.words == words[:3]


def test_attention_commits_a_word_from_a_single_hypothesis() -> None:
    words = script([0.5] * 4)
    end = words[-2].end_sample + samples(1)
    transcriber = Transcriber(ALIGN_ATT, language_code="en")
    piece = Piece(0, end, spoken(words, end))
    history = follow(transcriber, ScriptedRecognizer(words), [piece], finish=False)
    assert len(history.windows) == 1
    assert history.words == words[:3]


@pytest.mark.parametrize("hypotheses", [2, 3, 4])
def test_agreement_takes_as_many_hypotheses_as_it_is_told(hypotheses: int) -> None:
    words = script([0.5])
    end = samples(9)
    cadence = replace(LIVE, agreement=hypotheses, agreed_attention=0)
    transcriber = Transcriber(cadence, language_code="en")
    audio = spoken(words, end)
    pieces = [Piece(n * STEP, STEP, audio[n * STEP : (n + 1) * STEP]) for n in range(9)]
    history = follow(transcriber, ScriptedRecognizer(words), pieces, finish=False)
    assert [heard for heard, event in history.events if isinstance(event, Committed)] == [
        hypotheses * STEP
    ]


@pytest.mark.parametrize(("probability", "committed"), [(0.9, True), (0.89, False)])
@pytest.mark.parametrize("unsure", [0, 1])
def test_words_that_are_all_probable_are_committed_while_it_is_quiet(
    unsure: int, probability: float, committed: bool
) -> None:
    words = script([0.4, 0.1])
    words[unsure] = replace(words[unsure], probability=probability)
    end = samples(1.5)
    transcriber = Transcriber(replace(LIVE, pause=samples(0.35)), language_code="en")
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    history = follow(transcriber, ScriptedRecognizer(words), pieces, finish=False)
    # The first step is after a second; the second one is due to the pause.
    assert len(history.windows) == 2
    assert history.words == (words if committed else [])


@pytest.mark.parametrize(
    ("pause_s", "then_s", "committed"),
    [
        pytest.param(0.3, 0.0, False, id="it is not long enough yet"),
        pytest.param(0.4, 0.0, True, id="it becomes long enough"),
        pytest.param(0.3, 0.2, False, id="somebody speaks on too soon"),
        pytest.param(0.4, 0.2, True, id="somebody speaks on later"),
    ],
)
def test_a_pause_is_decoded_before_it_is_so_long_that_its_words_are_certain(
    pause_s: float, then_s: float, committed: bool
) -> None:
    words = script([0.4, 0.1, pause_s])
    said, end = words[:2], words[2].first_sample + samples(then_s)
    decoded = said[-1].end_sample + samples(0.2)
    [early, late] = cut([Piece(0, end, spoken(words, end))], [decoded])
    cadence = replace(LIVE, pause=samples(0.2), sure=samples(0.4))
    transcriber, history = Transcriber(cadence, language_code="en"), History()
    take_in(transcriber, early)
    step = transcriber.next_step(end)
    assert step is not None
    assert step.window is not None
    [hypothesis] = ScriptedRecognizer(words).recognize([step.window])
    take_in(transcriber, late)  # while it is decoded
    history.events += [(end, event) for event in transcriber.complete(step, hypothesis)]
    assert history.words == (said if committed else [])


def test_a_pause_that_was_decoded_early_is_not_decoded_again_when_its_words_are_certain() -> None:
    words = script([0.4, 0.1])
    end = words[-1].end_sample + samples(0.45)
    pieces = cut([Piece(0, end, spoken(words, end))], every(0.05, end))
    cadence = replace(LIVE, pause=samples(0.2), sure=samples(0.4))
    transcriber = Transcriber(cadence, language_code="en")
    history = follow(transcriber, ScriptedRecognizer(words), pieces, finish=False)
    assert len(history.windows) == 2, "one is due after a second, one to the pause"
    [(heard, event)] = [(h, e) for h, e in history.events if isinstance(e, Committed)]
    assert event.words == tuple(words)
    assert 0 <= heard - (words[-1].end_sample + cadence.sure) <= samples(0.05)


QUIET = replace(LIVE, pause=samples(0.35))


def doubted(pauses_s: Iterable[float]) -> list[Word]:
    """Words that no pause alone makes certain."""
    return [replace(word, probability=0.5) for word in script(pauses_s)]


def test_words_are_committed_once_it_has_been_quiet_for_long_and_nothing_is_decoded_for_it() -> (
    None
):
    words = doubted([0.4, 0.1])
    end = words[-1].end_sample + samples(0.7)
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    transcriber = Transcriber(QUIET, language_code="en")
    history = follow(transcriber, ScriptedRecognizer(words), pieces, finish=False)
    assert len(history.windows) == 2, "one is due after a second, one to the pause"
    [(heard, event)] = [(h, e) for h, e in history.events if isinstance(e, Committed)]
    assert event.words == tuple(words)
    assert 0 <= heard - (words[-1].end_sample + QUIET.quiet) <= samples(MESSAGE_S)
    assert history.of(Tail)[-1] == Tail((), transcriber.state.through_sample)


def test_a_flush_in_a_pause_that_was_decoded_is_answered_from_it() -> None:
    words = doubted([0.4, 0.1])
    end = words[-1].end_sample + samples(0.5)
    transcriber = Transcriber(QUIET, language_code="en")
    model = ScriptedRecognizer(words)
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    history = follow(transcriber, model, pieces, finish=False)
    assert history.words == []
    transcriber.flush(3)
    decode(transcriber, model, history)
    assert len(history.windows) == 2
    assert history.words == words
    assert history.of(Flushed) == [Flushed(3)]
    assert transcriber.backlog_samples == 0


def test_who_speaks_on_after_a_short_pause_is_decoded_again_before_words_are_certain() -> None:
    words = doubted([0.4, 0.5])
    end = words[-1].end_sample
    transcriber = Transcriber(QUIET, language_code="en")
    model = ScriptedRecognizer(words, slur_s=0)
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    history = follow(transcriber, model, pieces, finish=False)
    assert history.words == []
    transcriber.flush(1)
    decode(transcriber, model, history)
    assert history.words == words
    assert len(history.windows[-1].samples) == end


def soft_behind_loud(*soft: tuple[float, float]) -> tuple[list[Word], int]:
    """A loud word, soft ones that are as loud as each other, words beyond the end; and the end."""
    loud = Word(" loud", samples(0.4), samples(0.7), 0.5)
    words = [Word(spelling(n), samples(b), samples(e), 0.5) for n, (b, e) in enumerate(soft)]
    end = words[-1].end_sample
    beyond = [Word(" never", end, end + 1)]
    return [*beyond * 30, *words, *beyond * 570, loud], end


@pytest.mark.parametrize(
    "soft",
    [
        pytest.param([(1.15, 1.4)], id="a word that is louder than the pause"),
        pytest.param([(0.8, 1.1), (1.12, 1.4), (1.42, 1.7), (1.72, 2.0)], id="going on"),
    ],
)
def test_soft_speech_behind_loud_speech_is_decoded_at_a_flush(
    soft: list[tuple[float, float]],
) -> None:
    words, end = soft_behind_loud(*soft)
    model, transcriber = ScriptedRecognizer(words), Transcriber(QUIET, language_code="en")
    pieces = cut([Piece(0, end, spoken(words, end))], every(MESSAGE_S, end))
    history = follow(transcriber, model, pieces, finish=False)
    transcriber.flush(1)
    decode(transcriber, model, history)
    assert history.words == [words[-1], *words[30 : 30 + len(soft)]]


def test_quiet_makes_no_word_certain_whose_language_is_not_known() -> None:
    words = doubted([0.4, 0.1])
    end = words[-1].end_sample + samples(0.7)
    pieces = list(cut(lane(words, end), every(MESSAGE_S, end)))
    model = ScriptedRecognizer(words)
    assert follow(Transcriber(QUIET), model, pieces, finish=False).words == []
    assert follow(Transcriber(QUIET), model, pieces).words == words


def stepped(words: Sequence[Word], end_s: float) -> tuple[Transcriber, Step, History]:
    """A transcriber whose first step is being decoded while it hears on to the end."""
    transcriber, end = Transcriber(QUIET, language_code="en"), samples(end_s)
    pieces = cut(lane(words, end), every(MESSAGE_S, end))
    history, step = History(), None
    for piece in pieces:
        take_in(transcriber, piece)
        step = step or transcriber.next_step(STEP)
    assert step is not None
    return transcriber, step, history


@pytest.mark.parametrize(
    ("pauses_s", "end_s", "overtaken"),
    [
        pytest.param([0.2] * 4, 1.5, True, id="somebody speaks on"),
        pytest.param([0.1], 1.5, False, id="nobody has spoken since, and what is decoded will do"),
        pytest.param([0.2] * 60, 25.0, False, id="beyond the end of the window"),
    ],
)
def test_a_step_is_overtaken_if_all_is_to_be_committed_and_more_was_said(
    pauses_s: list[float], end_s: float, overtaken: bool
) -> None:
    transcriber, step, _ = stepped(script(pauses_s), end_s)
    assert not transcriber.is_overtaken(step), "nobody has asked for anything"
    transcriber.flush(1)
    assert transcriber.is_overtaken(step) is overtaken


def test_a_step_that_was_overtaken_is_never_completed_and_nothing_is_lost() -> None:
    words = script([0.2] * 4)
    transcriber, step, history = stepped(words, 1.5)
    transcriber.flush(1)
    final = transcriber.next_step(STEP)
    assert final is not None
    assert final.end_sample > step.end_sample
    assert final.final
    assert not transcriber.is_overtaken(final)
    decode(transcriber, ScriptedRecognizer(words), history)
    assert history.words == [word for word in words if word.end_sample <= samples(1.5)]
    assert history.of(Flushed) == [Flushed(1)]
    assert len(history.windows) == 1


def test_one_pause_is_decoded_once() -> None:
    words = script([0.2])
    end = samples(0.95)
    transcriber = Transcriber(replace(LIVE, pause=samples(0.35)), language_code="en")
    pieces = cut(lane(words, end), every(0.02, end))
    history = follow(transcriber, ScriptedRecognizer(words), pieces, finish=False)
    assert len(history.windows) == 1


def test_what_leaves_the_window_becomes_its_context() -> None:
    words = [replace(word, token_ids=(2 * n, 2 * n + 1)) for n, word in enumerate(chatter(150))]
    history = transcribed(words, cadence=replace(LIVE, context=9))
    said = [token for word in words for token in word.token_ids]
    assert history.words == words
    assert history.windows[0].prompt == ()
    for window in history.windows:
        inside = [w for w in words if w.first_sample >= window.first_sample]
        before = said[: 2 * (len(words) - len(inside))]
        assert list(window.prompt) == before[-9:]
    assert len(history.windows[-1].prompt) == 9


def test_the_draft_is_what_the_window_said_last() -> None:
    words = [replace(word, token_ids=(n,)) for n, word in enumerate(chatter(40))]
    history = transcribed(words, slur_s=0)
    for window, later in pairwise(history.windows):
        heard = [n for n in later.draft if words[n].first_sample >= later.first_sample]
        assert list(later.draft) == heard
        if later.first_sample == window.first_sample:
            end = window.first_sample + len(window.samples)
            assert [words[n] for n in heard] == [
                word
                for word in words
                if window.first_sample <= word.first_sample and word.end_sample <= end
            ]


def test_a_window_that_is_refused_is_decoded_again_without_prompt_and_draft() -> None:
    words = [replace(word, token_ids=(n,)) for n, word in enumerate(chatter(20))]
    end = ending(words)
    model = ScriptedRecognizer(words)
    loop = tuple(Word(" no", n, n + 1) for n in range(9))
    model.amiss = lambda window, heard: replace(heard, words=loop) if window.draft else heard
    transcriber = Transcriber(LIVE, language_code="en", prompt=(99,))
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert history.words == words
    refused = [window for window in history.windows if window.draft]
    again = [window for window in history.windows[1:] if not window.draft]
    assert len(refused) == len(again) > 5
    assert {window.prompt for window in refused} == {(99,)}
    assert {window.prompt for window in again} == {()}


def test_a_file_is_decoded_in_full_windows_without_a_tail_of_agreement() -> None:
    words = chatter(300)
    history = transcribed(words, cadence=FILE)
    assert_once_and_exact(history, words)
    assert len(history.windows) <= 8
    lengths = [len(window.samples) for window in history.windows[:-1]]
    assert lengths == [FILE.window] * len(lengths)


@pytest.mark.parametrize("cadence", PACES)
def test_the_same_steps_give_the_same_commits_however_the_audio_is_cut(cadence: Cadence) -> None:
    words = [*chatter(60), *chatter(60, first_s=45, seed=1)]
    words = [replace(word, text=spelling(n)) for n, word in enumerate(words)]
    end = ending(words)
    steps = set(anywhere(0.3, 3, end, seed=5))
    histories = [
        follow(
            Transcriber(cadence, language_code="en"),
            ScriptedRecognizer(words, SLUR_S),
            cut(lane(words, end), [*steps, *anywhere(low, high, end, seed=9)]),
            decode_at=lambda position: position in steps,
        )
        for low, high in ((0.01, 0.05), (0.1, 0.1), (0.4, 7), (100, 100))
    ]
    assert histories[0].words == words
    for history in histories[1:]:
        assert history.events == histories[0].events


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 16), low=st.sampled_from([0.04, 0.4, 3]))
def test_the_size_of_deliveries_changes_no_word(seed: int, low: float) -> None:
    words = chatter(90, seed=seed)
    end = words[-1].end_sample + samples(1)
    history = follow(
        Transcriber(LIVE, language_code="en"),
        ScriptedRecognizer(words, SLUR_S),
        cut(lane(words, end), anywhere(low, 10 if low > 0.1 else 0.5, end, seed=seed)),
    )
    assert_once_and_exact(history, words)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    pauses_s=st.lists(st.floats(0.3, 20), min_size=3, max_size=8),
    turns=st.integers(1, 4),
    cadence=st.sampled_from([LIVE, FILE]),
)
def test_pauses_of_any_length_move_no_word_and_lose_none(
    pauses_s: list[float], turns: int, cadence: Cadence
) -> None:
    words = script(pause for long in pauses_s for pause in (long, *[0.2] * turns))
    end = words[-1].end_sample + samples(0.8)
    history = follow(
        Transcriber(cadence, language_code="en"),
        ScriptedRecognizer(words, SLUR_S),
        cut(lane(words, end), every(0.25, end)),
    )
    assert_once_and_exact(history, words)


@pytest.mark.parametrize("tail_s", [0.0, 0.8, 1.9])
@pytest.mark.parametrize("pause_s", [5.0, 8.0])
def test_silence_behind_the_last_word_is_no_drift(tail_s: float, pause_s: float) -> None:
    """Three pauses, each after speech that ends some time behind its last word."""
    words = script([0.5, 0.2, pause_s + tail_s, 0.2, pause_s + tail_s, 0.2, pause_s + tail_s])
    end = words[-1].end_sample + samples(1)
    audio = spoken(words, end)
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    pieces, position = [], 0
    for word in words[1:-1:2]:
        gap_from = word.end_sample + samples(tail_s)
        gap = samples(pause_s - 0.3)
        pieces.append(Piece(position, gap_from - position, audio[position:gap_from]))
        pieces.append(Piece(gap_from, gap, None))
        position = gap_from + gap
    pieces.append(Piece(position, end - position, audio[position:]))
    assert_once_and_exact(follow(transcriber, model, cut(pieces, every(0.1, end))), words)


def test_noise_between_two_pauses_moves_nothing() -> None:
    words = script([0.5, 0.2, 0.2, 18.5, 0.2])
    end = words[-1].end_sample + samples(1)
    pieces = lane(words, end)
    begin, noisy = samples(10), samples(2)
    gap = next(piece for piece in pieces if piece.heard is None)
    noise = np.full(noisy, NOISE / 32768, np.float32)
    place = pieces.index(gap)
    pieces[place : place + 1] = [
        gap.part(gap.first_sample, begin),
        Piece(begin, noisy, noise),
        gap.part(begin + noisy, gap.end_sample),
    ]
    history = follow(
        Transcriber(LIVE, language_code="en"),
        ScriptedRecognizer(words),
        cut(pieces, every(0.1, end)),
    )
    assert_once_and_exact(history, words)


@pytest.mark.parametrize(
    ("pause_s", "windows"), [(1.0, 1), (1.9, 1), (2.3, 1), (2.7, 2), (4.0, 2), (3600.0, 2)]
)
def test_a_long_gap_starts_a_new_window_and_a_short_one_stays_inside(
    pause_s: float, windows: int
) -> None:
    """Of a pause, 0.6 s around speech are played."""
    words = script([0.3, 0.1, 0.1, pause_s, 0.1, 0.1])
    end = words[-1].end_sample + samples(0.5)
    pieces = []
    position = 0
    for piece in _without_long_silence(words, end):
        pieces.append(piece)
        position = piece.end_sample
    assert position == end
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    history = follow(transcriber, model, pieces)
    assert_once_and_exact(history, words)
    assert len({window.first_sample for window in history.windows}) == windows
    assert transcriber.state.window_first_sample == (words[3].first_sample - samples(0.3)) * (
        windows > 1
    )


def _without_long_silence(words: Sequence[Word], end: int) -> list[Piece]:
    """Like ``lane``, but an hour of silence is never in memory."""
    before, after = words[2].end_sample + samples(0.3), words[3].first_sample - samples(0.3)
    if after - before < samples(60):
        return lane(words, end)
    shifted = [
        replace(word, first_sample=word.first_sample - after, end_sample=word.end_sample - after)
        for word in words[3:]
    ]
    levels = [*words[:3], *shifted]
    late = spoken(levels, end - after)
    late[: samples(0.3)] = 0
    for number, word in enumerate(shifted, start=3):
        late[word.first_sample : word.end_sample] = (number + 1) / 32768
    return [
        Piece(0, before, spoken(words[:3], before)),
        Piece(before, after - before, None),
        Piece(after, end - after, late),
    ]


@pytest.mark.parametrize("cadence", PACES)
def test_a_gap_told_in_pieces_is_the_same_gap(cadence: Cadence) -> None:
    words = script([0.2, 0.2, 7, 0.2, 0.2])
    end = words[-1].end_sample + samples(1)
    pieces = lane(words, end)
    for step_s in (0.05, 0.7, 1.99, 100):
        history = follow(
            Transcriber(cadence, language_code="en"),
            ScriptedRecognizer(words),
            cut(pieces, every(step_s, end)),
            decode_at=lambda _position: False,
        )
        assert_once_and_exact(history, words)
        behind = words[2].first_sample - samples(0.3)
        assert {window.first_sample for window in history.windows} == {0, behind}


def test_a_flush_commits_everything_heard_and_is_answered_behind_it() -> None:
    words = chatter(40)
    end = ending(words)
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    history = History()
    flushed: list[int] = []
    for number, piece in enumerate(cut(lane(words, end), every(0.1, end))):
        take_in(transcriber, piece)
        decode(transcriber, model, history)
        if number % 37 == 36:
            transcriber.flush(number)
            decode(transcriber, model, history)
            flushed.append(number)
            done = [word for word in words if word.end_sample <= piece.end_sample]
            assert history.words == done, "nothing waits behind a flush"
            assert history.events[-1][1] == Flushed(number)
            assert history.of(Tail)[-1] == Tail((), piece.end_sample)
    assert [e.flush_id for e in history.of(Flushed) if isinstance(e, Flushed)] == flushed
    assert len(flushed) == 6


@pytest.mark.parametrize("pause_s", [0, 0.04, 0.2])
@pytest.mark.parametrize("flush_s", [0.02, 0.08, 0.16, 0.5])
def test_no_rhythm_of_flushes_leaves_anything_unsaid(flush_s: float, pause_s: float) -> None:
    words = script([0.3] * 8, word_s=0.02)
    end = samples(4)
    cadence = replace(LIVE, pause=samples(pause_s), sure=samples(0.2))
    transcriber, model = Transcriber(cadence, language_code="en"), ScriptedRecognizer(words)
    history = History()
    for number, piece in enumerate(cut(lane(words, end), every(flush_s, end))):
        take_in(transcriber, piece)
        transcriber.flush(number)
        decode(transcriber, model, history)
    transcriber.finish()
    decode(transcriber, model, history)
    assert {event.flush_id for event in history.of(Flushed) if isinstance(event, Flushed)} == set(
        range(number + 1)
    )
    heard = {word.text for word in history.words}
    # A word that a flush cuts in two is nobody's: all others are there.
    cut_in_two = {
        word.text
        for word in words
        for place in every(flush_s, end)
        if word.first_sample < place < word.end_sample
    }
    assert heard >= {word.text for word in words} - cut_in_two


@pytest.mark.parametrize("pause_s", [0.05, 0.12, 0.2, 0.35])
@pytest.mark.parametrize("message_s", [0.02, 0.05, 0.08, 0.1])
def test_a_flush_anywhere_in_a_pause_leaves_nothing_to_decode_in_it(
    pause_s: float, message_s: float
) -> None:
    words = script([0.4, 0.1])
    said = words[-1].end_sample
    cadence = replace(LIVE, pause=samples(pause_s), sure=samples(max(0.2, pause_s)))
    for flush_at in range(said, said + samples(0.5), samples(0.01)):
        transcriber, model = Transcriber(cadence, language_code="en"), ScriptedRecognizer(words)
        history = History()
        end = flush_at + samples(0.4)
        [before, behind] = cut([Piece(0, end, spoken(words, end))], [flush_at])
        take_in(transcriber, before)
        transcriber.flush(1)
        decode(transcriber, model, history)
        assert history.words == words
        num_windows = len(history.windows)
        for piece in cut([behind], every(message_s, end)):
            take_in(transcriber, piece)
            decode(transcriber, model, history)
        assert len(history.windows) == num_windows


def test_flushes_are_answered_in_order_around_a_gap() -> None:
    words = script([0.3, 0.1, 6, 0.1])
    end = words[-1].end_sample + samples(0.5)
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    history = History()
    for number, piece in enumerate(cut(lane(words, end), every(0.5, end))):
        take_in(transcriber, piece)
        transcriber.flush(number)
    assert history.events == []
    transcriber.finish()
    decode(transcriber, model, history)
    assert_once_and_exact(history, words)
    assert history.of(Flushed) == [Flushed(n) for n in range(number + 1)]


def test_a_flush_of_nothing_is_answered_without_the_model() -> None:
    transcriber = Transcriber(LIVE)
    model = ScriptedRecognizer([])
    transcriber.flush(5)
    transcriber.flush(6)
    transcriber.finish()
    history = History()
    decode(transcriber, model, history)
    assert [event for _, event in history.events] == [Flushed(5), Flushed(6)]
    assert model.batches == []


@pytest.mark.parametrize("cadence", PACES)
@pytest.mark.parametrize("end_s", [0.7, 0.9, 1.0, 1.7, 2.0, 3.1, 23.9, 24.0, 24.05, 28.0, 30.0])
def test_nothing_said_is_unsaid_after_finish(cadence: Cadence, end_s: float) -> None:
    words = [word for word in chatter(70) if word.end_sample <= samples(end_s)]
    history = transcribed(words, samples(end_s), cadence=cadence, slur_s=0)
    assert words
    assert_once_and_exact(history, words)


@pytest.mark.parametrize("cadence", PACES)
def test_a_backlog_is_decoded_in_windows_that_the_model_takes(cadence: Cadence) -> None:
    words = chatter(230)
    end = ending(words)
    history = follow(
        Transcriber(cadence, language_code="en"),
        model := ScriptedRecognizer(words, SLUR_S),
        cut(lane(words, end), every(0.1, end)),
        decode_at=lambda position: not samples(10) < position < samples(100),
    )
    assert_once_and_exact(history, words)
    assert max(len(w.samples) for [w] in model.batches) <= model.max_window_samples


@pytest.mark.parametrize("prompted", [False, True])
def test_a_first_word_before_the_language_is_known_is_not_lost(prompted: bool) -> None:
    words = [*script([0.3]), *chatter(60, first_s=8.6)]
    words = [replace(word, text=spelling(n)) for n, word in enumerate(words)]
    end = ending(words)
    model = ScriptedRecognizer(words, SLUR_S, language_codes=("en", "de"), spoken_language="de")
    transcriber = Transcriber(LIVE, prompt=(1, 2) if prompted else ())
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert_once_and_exact(history, words)
    assert history.of(LanguageKnown) == [LanguageKnown("de", 0.9)]
    given_codes = [window.language_code for window in history.windows]
    known = given_codes.index("de")
    assert given_codes == [""] * known + ["de"] * (len(given_codes) - known)
    kept = transcriber_prompt(prompted)
    assert all(window.prompt[: len(kept)] == kept for window in history.windows)


def transcriber_prompt(prompted: bool) -> tuple[int, ...]:
    return (1, 2) if prompted else ()


def test_a_language_that_was_named_is_not_announced() -> None:
    words = chatter(20)
    history = transcribed(words)
    assert history.of(LanguageKnown) == []
    assert {window.language_code for window in history.windows} == {"en"}


def test_noise_has_no_language() -> None:
    words = chatter(20, first_s=6)
    end = ending(words)
    model = ScriptedRecognizer(words)
    audio = spoken(words, end)
    audio[: samples(5.5)] = NOISE / 32768

    def hallucinate(window: Window, heard: Hypothesis) -> Hypothesis:
        if heard.words:
            return heard
        return replace(
            heard,
            words=(Word(" Thanks!", window.first_sample, window.first_sample + 1000),),
            language_code="cy",
            language_probability=0.8,
            no_speech_probability=0.9,
            avg_log_probability=-1.5,
        )

    model.amiss = hallucinate
    history = follow(Transcriber(LIVE), model, cut([Piece(0, end, audio)], every(0.1, end)))
    assert history.of(LanguageKnown) == [LanguageKnown("en", 0.9)]
    assert_once_and_exact(history, words)
    assert GuardFired(Verdict.NO_SPEECH) in history.of(GuardFired)


def loop(window: Window, heard: Hypothesis) -> Hypothesis:
    """The model gets lost after three words."""
    if len(heard.words) < 3:
        return heard
    last = heard.words[2]
    words = [
        replace(last, first_sample=last.end_sample + n * 100, end_sample=last.end_sample + n * 100)
        for n in range(20)
    ]
    return replace(heard, words=(*heard.words[:3], *words))


@pytest.mark.parametrize("cadence", PACES)
@pytest.mark.parametrize("cured_by", ["prompt", "chance"])
def test_a_loop_is_decoded_again_until_it_is_none(cadence: Cadence, cured_by: str) -> None:
    words = chatter(150)
    end = ending(words)
    model = ScriptedRecognizer(words, SLUR_S)

    def amiss(window: Window, heard: Hypothesis) -> Hypothesis:
        cured = not window.prompt if cured_by == "prompt" else window.temperature > 0
        return heard if cured else loop(window, heard)

    model.amiss = amiss
    transcriber = Transcriber(cadence, language_code="en", prompt=(1, 2, 3))
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert_once_and_exact(history, words)
    fired = history.of(GuardFired)
    assert set(fired) == {GuardFired(Verdict.REPETITION)}
    place = next(n for n, window in enumerate(history.windows) if not window.prompt)
    first, second, third = history.windows[place - 1 : place + 2]
    assert (first.prompt, first.temperature) == ((1, 2, 3), 0)
    assert (second.prompt, second.temperature) == ((), 0)
    if cured_by == "chance":
        assert (third.prompt, third.temperature) == ((), 0.4)
        assert {commit.temperature for commit in history.commits} == {0.4}


def test_a_loop_that_nothing_cures_costs_only_itself() -> None:
    """Its first round stays, its audio stays in the window, and what follows is heard."""
    words = chatter(150)
    end = ending(words)
    model = ScriptedRecognizer(words)
    bad = range(samples(20), samples(30))
    model.amiss = lambda window, heard: (
        loop(window, heard) if window.first_sample + len(window.samples) in bad else heard
    )
    history = follow(
        Transcriber(LIVE, language_code="en"), model, cut(lane(words, end), every(0.1, end))
    )
    assert_once_and_exact(history, words)
    assert len(history.of(GuardFired)) >= 3


def test_what_is_repeated_in_every_decoding_was_said() -> None:
    refrain = [word.text for word in chatter(12)]
    words = [replace(word, text=refrain[n % 12]) for n, word in enumerate(chatter(150))]
    end = ending(words)
    cadence = replace(LIVE, context=0)
    transcriber = Transcriber(cadence, language_code="en")
    pieces = cut(lane(words, end), every(0.1, end))
    history = follow(transcriber, ScriptedRecognizer(words), pieces)
    assert_once_and_exact(history, words)
    assert GuardFired(Verdict.REPETITION) in history.of(GuardFired)


def test_more_words_than_anybody_says_are_decoded_again() -> None:
    words = chatter(40)
    end = ending(words)
    model = ScriptedRecognizer(words)
    model.amiss = lambda window, heard: (
        replace(
            heard,
            words=tuple(
                Word(spelling(n), window.first_sample + n, window.first_sample + n + 1)
                for n in range(300)
            ),
        )
        if window.prompt
        else heard
    )
    transcriber = Transcriber(LIVE, language_code="en", prompt=(1,))
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert_once_and_exact(history, words)
    assert set(history.of(GuardFired)) == {GuardFired(Verdict.RATE)}


def test_what_repeats_its_prompt_is_decoded_without_it() -> None:
    words = chatter(150)
    end = ending(words)
    said = {word.token_ids[0]: word for word in words}
    model = ScriptedRecognizer(words)

    def echo(window: Window, heard: Hypothesis) -> Hypothesis:
        again = [said[token] for token in window.prompt]
        first = window.first_sample
        again = [replace(word, first_sample=first, end_sample=first + 1) for word in again]
        return replace(heard, words=(*again, *heard.words))

    model.amiss = echo
    transcriber = Transcriber(LIVE, language_code="en")
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert_once_and_exact(history, words)
    fired = history.of(GuardFired)
    assert set(fired) == {GuardFired(Verdict.ECHO)}
    echoed = {window.first_sample for window in history.windows if len(window.prompt) >= 6}
    assert len(fired) == len(echoed), "once per window: it is forgotten"


@pytest.mark.parametrize(
    "cadence", [*PACES, pytest.param(replace(EITHER, quiet=samples(0.4)), id="quiet")]
)
def test_who_takes_a_pause_for_the_end_hears_what_follows_in_a_window_of_its_own(
    cadence: Cadence,
) -> None:
    words = script([*[0.1] * 8, 0.6, *[0.1] * 7])
    pause = slice(words[7].end_sample, words[8].first_sample)
    end = ending(words)
    model = ScriptedRecognizer(words)
    model.amiss = lambda _window, heard: replace(
        heard,
        words=tuple(w for w in heard.words if w.end_sample <= pause.start) or heard.words,
    )
    transcriber = Transcriber(cadence, language_code="en")
    history = follow(transcriber, model, cut(lane(words, end), every(0.1, end)))
    assert_once_and_exact(history, words)
    assert history.of(GuardFired) == [GuardFired(Verdict.EARLY)]
    firsts = {window.first_sample for window in history.windows}
    assert len(firsts) == 2
    assert pause.start <= max(firsts) < pause.stop


@pytest.mark.parametrize("cadence", PACES)
def test_noise_behind_words_is_decoded_once_more_and_says_nothing(cadence: Cadence) -> None:
    words = script([0.1] * 8)
    noise_s, end = seconds(words[-1].end_sample) + 0.5, words[-1].end_sample + samples(2.5)
    audio = spoken(words, end)
    audio[samples(noise_s) :] = NOISE / 32768
    transcriber = Transcriber(replace(cadence, pause=0), language_code="en")
    model = ScriptedRecognizer(words)
    history = follow(transcriber, model, cut([Piece(0, end, audio)], every(0.1, end)))
    assert_once_and_exact(history, words)
    assert history.of(GuardFired).count(GuardFired(Verdict.EARLY)) <= 1
    assert len([w for w in history.windows if w.first_sample > 0]) <= 1


@pytest.mark.parametrize("cadence", PACES)
def test_a_full_window_of_noise_moves_on(cadence: Cadence) -> None:
    words = chatter(40, first_s=200)
    end = ending(words)
    audio = spoken(words, end)
    audio[: samples(199.5)] = NOISE / 32768
    transcriber, model = Transcriber(cadence, language_code="en"), ScriptedRecognizer(words)
    history = follow(transcriber, model, cut([Piece(0, end, audio)], every(0.1, end)))
    assert_once_and_exact(history, words)
    moved = [event.state for event in history.of(Moved) if isinstance(event, Moved)]
    assert len(moved) >= 6
    firsts = [state.window_first_sample for state in moved]
    assert all(b - a >= STEP for a, b in pairwise(firsts))


@pytest.mark.parametrize("loud", ["before", "behind"])
def test_a_cut_at_a_short_word_keeps_to_its_own_pause(loud: str) -> None:
    """The quietest place is on the other side of a word: there, it would be doubled or lost."""
    words = [*chatter(45), *script([0, 0.06, 0.06, 0.06, 0.06], word_s=0.1, first_s=25.55)]
    words = [replace(word, text=spelling(n)) for n, word in enumerate(words)]
    last = next(n for n, word in enumerate(words) if word.end_sample > samples(26)) - 1
    words[last] = replace(words[last], text=" stop.")
    words += chatter(30, first_s=27)
    words = [w if w.text == " stop." else replace(w, text=spelling(n)) for n, w in enumerate(words)]
    end = ending(words)
    audio = spoken(words, end)
    noisy = (
        slice(words[last].end_sample, words[last + 1].first_sample)
        if loud == "behind"
        else slice(words[last - 1].end_sample, words[last].first_sample)
    )
    audio[noisy] = NOISE / 32768
    if loud == "before":
        audio[words[last].end_sample : words[last + 1].first_sample] = NOISE / 64 / 32768
    model = ScriptedRecognizer(words)
    history = follow(Transcriber(FILE, language_code="en"), model, [Piece(0, end, audio)])
    assert_once_and_exact(history, words)


@pytest.mark.parametrize(
    ("window_s", "resumed_s", "noise_s", "quiet_s"),
    [
        pytest.param(8, 6, (4.98, 5.6), (5.6, 6.0), id="it is quietest there"),
        pytest.param(5, 5.5, (4.98, 5.05), (5.05, 5.5), id="behind the end of the window"),
    ],
)
def test_a_cut_is_where_a_pause_is_quietest_and_a_place_to_resume_from(
    window_s: float,
    resumed_s: float,
    noise_s: tuple[float, float],
    quiet_s: tuple[float, float],
) -> None:
    words = [Word(" stop.", samples(4.7), samples(4.98)), *chatter(15, first_s=resumed_s)]
    end = ending(words)
    audio = spoken(words, end)
    audio[: samples(4.7)] = audio[slice(*map(samples, noise_s))] = NOISE / 32768
    history = follow(
        Transcriber(replace(FILE, keep=0, window=samples(window_s)), language_code="en"),
        ScriptedRecognizer(words),
        [Piece(0, end, audio)],
    )
    assert_once_and_exact(history, words)
    _, state = history.places[0]
    assert samples(quiet_s[0]) < state.window_first_sample < samples(quiet_s[1])
    assert checkpoint.decode(checkpoint.encode(state)) == state


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize(
    "cadence",
    [*PACES, pytest.param(replace(LIVE, keep=samples(0.6), window=samples(5)), id="short")],
)
def test_a_successor_goes_on_from_every_checkpoint_as_if_nothing_had_happened(
    cadence: Cadence, stretch: bool
) -> None:
    rng = random.Random(3)
    words = script(rng.choice([0.1, 0.15, 0.2, 0.3, 1.5, 1.8, 2.4, 2.8, 5]) for _ in range(120))
    end = words[-1].end_sample + samples(1)
    pieces = lane(words, end)
    steps = set(anywhere(0.3, 2, end, seed=1)) | {end}
    model = ScriptedRecognizer(words, SLUR_S, stretch=stretch)
    whole = follow(
        Transcriber(cadence),
        model,
        cut(pieces, steps),
        decode_at=lambda position: position in steps,
    )
    assert [word.text for word in whole.words] == [word.text for word in words]
    assert len(whole.places) > 15
    for number, (heard, event) in enumerate(whole.events):
        if not isinstance(event, Committed | Moved):
            continue
        first = event.state.window_first_sample
        resumed = follow(
            Transcriber(
                cadence,
                first_sample=first,
                state=checkpoint.decode(checkpoint.encode(event.state)),
            ),
            model,
            cut(rest_of(pieces, first), [*steps, *every(0.37, end)]),
            decode_at=lambda position, heard=heard: position in steps and position >= heard,  # type: ignore[misc]
        )
        later = [e.words for _, e in whole.events[number + 1 :] if isinstance(e, Committed)]
        assert [commit.words for commit in resumed.commits] == later, heard


def test_a_successor_says_nothing_until_it_has_heard_as_much_as_its_predecessor() -> None:
    words = chatter(30)
    end = ending(words)
    pieces = list(cut(lane(words, end), every(0.1, end)))
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    before = follow(transcriber, model, pieces[:100], finish=False)
    state = transcriber.state
    successor = Transcriber(LIVE, first_sample=state.window_first_sample, state=state)
    after = follow(successor, model, rest_of(pieces, state.window_first_sample))
    assert all(at > samples(10) for at, _ in after.events)
    assert [*before.words, *after.words] == words


def test_a_successor_that_hears_less_than_its_predecessor_finishes_all_the_same() -> None:
    words = chatter(30)
    pieces = list(cut(lane(words, ending(words)), every(0.1, ending(words))))
    transcriber, model = Transcriber(LIVE, language_code="en"), ScriptedRecognizer(words)
    before = follow(transcriber, model, pieces[:102], finish=False)
    state = transcriber.state
    successor = Transcriber(LIVE, first_sample=state.window_first_sample, state=state)
    after = follow(successor, model, rest_of(pieces[:98], state.window_first_sample))
    said = [word for word in words if word.end_sample <= pieces[97].end_sample]
    assert [*before.words, *after.words] == said


@pytest.mark.parametrize("cadence", PACES)
def test_an_hour_of_speech_keeps_states_small(cadence: Cadence) -> None:
    words = chatter(100)
    minute = samples(60)
    assert words[-1].end_sample < minute
    audio = spoken(words, minute)
    model = ScriptedRecognizer(words)
    transcriber = Transcriber(cadence, language_code="en")
    largest = spoke = 0
    for number in range(60):
        for part in cut([Piece(0, minute, audio)], every(5, minute)):
            assert part.heard is not None
            transcriber.push(number * minute + part.first_sample, part.heard)
            history = History()
            decode(transcriber, model, history)
            spoke += len(history.words)
            largest = max(
                [largest, *(len(checkpoint.encode(state)) for _, state in history.places)]
            )
    assert spoke > 59 * len(words)
    assert 0 < largest < 8000


def test_a_window_is_cut_at_a_sentence_where_there_is_one() -> None:
    words = chatter(80)
    place = next(n for n, word in enumerate(words) if word.end_sample > samples(14))
    words[place] = replace(words[place], text=" stop.")
    history = transcribed(words)
    assert_once_and_exact(history, words)
    _, first, *_ = sorted({window.first_sample for window in history.windows})
    assert words[place].end_sample < first < words[place + 1].first_sample


@pytest.mark.parametrize("cadence", PACES)
@pytest.mark.parametrize("seed", range(6))
def test_a_cut_between_short_words_loses_none_and_doubles_none(cadence: Cadence, seed: int) -> None:
    rng = random.Random(seed)
    words = script((rng.uniform(0.045, 0.12) for _ in range(500)), word_s=0.1)
    assert_once_and_exact(transcribed(words, cadence=cadence, slur_s=0.1), words)


def test_times_that_run_backwards_are_put_in_order() -> None:
    words = chatter(60)
    end = ending(words)
    model = ScriptedRecognizer(words)
    model.amiss = lambda _window, heard: replace(
        heard,
        words=tuple(
            replace(word, first_sample=word.first_sample - samples(1)) for word in heard.words
        ),
    )
    history = follow(
        Transcriber(LIVE, language_code="en"), model, cut(lane(words, end), every(0.1, end))
    )
    assert text_of(history.words) == text_of(words)
    for one, other in pairwise(history.words):
        assert one.first_sample < one.end_sample <= other.first_sample < other.end_sample


def test_a_hole_is_refused() -> None:
    transcriber = Transcriber(LIVE, first_sample=10)
    zeros = np.zeros(5, np.float32)
    with pytest.raises(InvalidRequestError, match="expected sample 10, got 0"):
        transcriber.push(0, zeros)
    transcriber.push(10, zeros)
    for wrong in (10, 14, 16):
        with pytest.raises(InvalidRequestError, match=f"expected sample 15, got {wrong}"):
            transcriber.push(wrong, zeros)
        with pytest.raises(InvalidRequestError, match=f"expected sample 15, got {wrong}"):
            transcriber.skip(wrong, 5)
    transcriber.skip(15, 5)
    assert transcriber.heard_sample == 20


def test_a_state_is_for_the_place_where_its_window_starts() -> None:
    state = checkpoint.State(100, 200, 100)
    with pytest.raises(InvalidRequestError, match="needs audio from sample 100, not from 0"):
        Transcriber(LIVE, state=state)
