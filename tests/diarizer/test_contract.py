"""What every engine promises, whatever it runs on."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ, samples
from services.diarizer.diarizer import Diarizer, Step, Wishes
from services.diarizer.stream import Event, Turns
from tests.diarizer.harness import (
    LOOK_AHEAD,
    Part,
    Span,
    follow,
    length_of,
    rest_of,
    running,
    said,
    settled,
    snapshots,
    tell,
)

ENGINES = ("online", "sortformer", *(["nemo_sortformer"] if find_spec("nemo") else []))
"""Fixtures of all engines; NeMo has an environment of its own: ``test_nemo_sortformer.py``."""
TRAINED = ("online",)
"""Of those whose weights are there: they tell voices apart."""

PAUSE = samples(10)
NEAR = samples(0.08)
"""A frame of the coarsest engine: borders are to be told no worse."""
BREATH = samples(0.3)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Diarizer:
    diarizer: Diarizer = request.getfixturevalue(request.param)
    return diarizer


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest) -> Diarizer:
    diarizer: Diarizer = request.getfixturevalue(request.param)
    return diarizer


@pytest.fixture(scope="module")
def one(reader: FloatArray) -> FloatArray:
    """Two and a half seconds of somebody."""
    return reader[samples(2) : samples(4.5)]


@pytest.fixture(scope="module")
def other(call: FloatArray) -> FloatArray:
    """Two and a half seconds of somebody else."""
    return call[samples(22.5) : samples(25)]


@pytest.fixture(scope="module")
def parts(call: FloatArray, reader: FloatArray) -> list[Part]:
    """A telephone call in messages of odd lengths, with a short gap, a long one, and a reader."""
    return [
        *np.split(call[: samples(12)], [1, 9000, 9001, 70_000]),
        samples(0.7),
        call[samples(12) : samples(16)],
        PAUSE,
        reader[samples(5) : samples(9)],
    ]


@pytest.fixture(scope="module")
def events(engine: Diarizer, parts: list[Part]) -> list[Event]:
    """What is said of them: enough that the tests below have something to look at."""
    events = asyncio.run(follow(engine, *parts))
    assert len({speaker for speaker, *_ in settled(events)}) >= 2
    return events


def end_of(parts: Sequence[Part]) -> int:
    return sum(map(length_of, parts))


def quiet_before(speech: FloatArray) -> FloatArray:
    """Speech as it is sent: with a little of what was heard before it."""
    hum = np.random.default_rng(0).normal(0, 1e-4, BREATH).astype(np.float32)
    return np.concatenate([hum, speech])


def who(spans: Sequence[Span], first: int, end: int) -> int:
    """Who speaks longest in a stretch; 0: nobody."""
    spoken = {0: 0}
    for speaker, begin, stop in spans:
        common = min(stop, end) - max(begin, first)
        spoken[speaker] = spoken.get(speaker, 0) + max(0, common)
    return max(spoken, key=lambda speaker: spoken[speaker])


def test_steps_lie_on_a_grid_that_the_context_holds(engine: Diarizer) -> None:
    assert 0.2 * SAMPLE_RATE_HZ <= engine.step_samples <= 2 * SAMPLE_RATE_HZ
    assert engine.context_samples % engine.step_samples == 0


def test_a_batch_says_of_each_stream_what_it_would_say_alone(
    engine: Diarizer, call: FloatArray, reader: FloatArray
) -> None:
    length = 6 * engine.step_samples
    heard = [call[9 * SAMPLE_RATE_HZ :], reader, reader[samples(7) :], np.zeros_like(reader)]
    memories = [engine.start(()), engine.start((reader[: samples(5)],)), *[engine.start(())] * 2]
    steps = [
        Step(memory, audio[:length], length, LOOK_AHEAD, Wishes(20))
        for memory, audio in zip(memories, heard, strict=True)
    ]
    assert len({engine.bucket(step) for step in steps}) == 1
    for step, together in zip(steps, engine.advance(steps), strict=True):
        [alone] = engine.advance([step])
        assert (together.edges == alone.edges).all()
        assert len(together.edges) == len(together.activity) + 1
        np.testing.assert_allclose(together.activity, alone.activity, atol=1e-4)
        assert together.memory.settled_sample == alone.memory.settled_sample
        assert len(together.memory.dump()) == len(alone.memory.dump())


def test_stretches_follow_one_another_and_nothing_settled_is_said_again(
    events: list[Event], parts: list[Part]
) -> None:
    stretches = said(events)
    assert stretches[0].first_sample == 0
    assert stretches[-1].through_sample == stretches[-1].settled_sample == end_of(parts)
    for before, after in pairwise(stretches):
        assert after.first_sample == before.settled_sample <= after.settled_sample
        assert before.through_sample <= after.through_sample
    for stretch in stretches:
        assert stretch.settled_sample <= stretch.through_sample
        for turn in stretch.turns:
            assert stretch.first_sample <= turn.first_sample < turn.end_sample
            assert turn.end_sample <= stretch.through_sample
            assert 0 < turn.probability <= 1


def test_nobody_speaks_in_what_was_left_out(events: list[Event], parts: list[Part]) -> None:
    position = 0
    for part in parts:
        end = position + length_of(part)
        if isinstance(part, int):
            for stretch in said(events):
                assert all(
                    turn.end_sample <= position or turn.first_sample >= end
                    for turn in stretch.turns
                )
        position = end


def test_turns_come_no_later_than_they_may(engine: Diarizer, events: list[Event]) -> None:
    """A stretch is settled once the look-ahead and a step have been heard behind it."""
    late = LOOK_AHEAD + engine.step_samples
    waits = [
        stretch.through_sample - stretch.settled_sample
        for stretch in said(events)
        if stretch.through_sample > samples(2)
    ]
    # A frame more, for those that are not complete; and the short gap, which takes no time.
    assert max(waits) <= late + samples(0.7)
    assert sorted(waits)[len(waits) // 2] <= late


async def test_how_audio_is_cut_does_not_matter(
    engine: Diarizer, parts: list[Part], events: list[Event]
) -> None:
    whole: list[Part] = []
    for part in parts:
        if isinstance(part, np.ndarray) and whole and isinstance(whole[-1], np.ndarray):
            whole[-1] = np.concatenate([whole[-1], part])
        else:
            whole.append(part)
    assert len(whole) < len(parts)
    assert settled(await follow(engine, *whole)) == settled(events)


async def test_a_successor_says_what_its_predecessor_would_have_said(
    engine: Diarizer, call: FloatArray, reader: FloatArray
) -> None:
    """From every checkpoint: amid speech, and behind a pause; with a short gap to hear again."""
    parts: list[Part] = [
        call[: samples(14)],
        samples(0.7),
        call[samples(14) : samples(24)],
        PAUSE,
        reader[: samples(3)],
        samples(12),
        reader[samples(3) : samples(5)],
    ]
    events = await follow(engine, *parts)
    places = snapshots(events)
    assert len(places) >= 2
    assert any(place.replay_from_sample < place.through_sample for place in places)
    assert any(place.replay_from_sample == place.through_sample for place in places)
    async with running(engine) as batcher:
        for place in places:
            rest = rest_of(parts, place.replay_from_sample)
            resumed = await tell(batcher, rest, resumed=place)
            later = events[events.index(place) + 1 :]
            assert settled(resumed) == settled(later)
            # Its first stretch takes nothing back that was settled before.
            assert said(resumed)[0].settled_sample == said(later)[0].settled_sample
            before = said(events[: events.index(place)])
            assert said(resumed)[0].first_sample >= before[-1].settled_sample
            assert [one.through_sample for one in snapshots(resumed)] == [
                one.through_sample for one in snapshots(later)
            ]


async def test_a_flush_leaves_nothing_undecided_and_moves_nothing(
    engine: Diarizer, call: FloatArray
) -> None:
    heard = call[samples(9) : samples(15)]
    at = 4 * engine.step_samples + 1234
    plain = said(await follow(engine, heard))
    async with running(engine) as batcher:
        flushed = said(await tell(batcher, [heard[:at], None, None, heard[at:]]))
    [place] = [n for n, stretch in enumerate(flushed) if stretch.through_sample == at]
    assert flushed[place].settled_sample == at
    before = [stretch for stretch in plain if stretch.through_sample < at]
    assert [strip(stretch) for stretch in flushed[:place]] == [strip(one) for one in before]
    ends = [stretch.through_sample for stretch in flushed]
    assert ends[:place] + ends[place + 1 :] == [stretch.through_sample for stretch in plain]
    assert flushed[place + 1].first_sample == at


def strip(stretch: Turns) -> Turns:
    """Without what floats."""
    return replace(stretch, turns=tuple(replace(turn, probability=1) for turn in stretch.turns))


async def test_two_people_with_a_pause_between_are_two_and_lie_where_they_spoke(
    trained: Diarizer, one: FloatArray, other: FloatArray
) -> None:
    """P13: neither is moved by the pause that was left out."""
    found = settled(await follow(trained, one, PAUSE, other))
    begin = len(one) + PAUSE
    before = [span for span in found if span[1] < len(one)]
    after = [span for span in found if span[1] >= len(one)]
    assert {speaker for speaker, *_ in before} == {1}
    borders = [
        *(before[0][1], max(end for *_, end in before)),
        *(after[0][1], max(end for *_, end in after)),
    ]
    expected = [0, len(one), begin, begin + len(other)]
    np.testing.assert_allclose(borders, expected, atol=NEAR)
    # The first moment is decided before a voice that is new can be known.
    assert {speaker for speaker, _, end in after if end > begin + NEAR} == {2}


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [(Wishes(20), [1, 2, 1]), (Wishes(1), [1, 1, 1]), (Wishes(20, 2), [1, 2, 1])],
)
async def test_numbers_count_from_one_in_order_and_stay_within_what_was_asked_for(
    wishes: Wishes,
    expected: list[int],
    trained: Diarizer,
    one: FloatArray,
    other: FloatArray,
    reader: FloatArray,
) -> None:
    turns = [quiet_before(one), quiet_before(other), quiet_before(reader[samples(6) : samples(8)])]
    parts: list[Part] = [turns[0], PAUSE, turns[1], PAUSE, turns[2]]
    async with running(trained) as batcher:
        found = settled(await tell(batcher, parts, wishes=wishes))
    starts = np.cumsum([0, *map(length_of, parts)])
    heard = [who(found, int(starts[n]), int(starts[n + 1])) for n in (0, 2, 4)]
    assert heard == expected
    assert {speaker for speaker, *_ in found} == set(expected)


async def test_those_who_are_enrolled_keep_their_numbers(
    trained: Diarizer, one: FloatArray, other: FloatArray, call: FloatArray, reader: FloatArray
) -> None:
    enrolled = (reader[samples(10) : samples(15)], call[samples(23) : samples(27)])
    parts: list[Part] = [quiet_before(other), PAUSE, quiet_before(one)]
    async with running(trained) as batcher:
        found = settled(await tell(batcher, parts, enrolled=enrolled))
        assert who(found, 0, length_of(parts[0])) == 2
        assert who(found, length_of(parts[0]), end_of(parts)) == 1
        with pytest.raises(InvalidRequestError, match="speaker 2 is enrolled with less than"):
            await tell(batcher, [], enrolled=(enrolled[0], np.zeros(samples(3), np.float32)))


async def test_a_stream_without_speech_has_no_turns(trained: Diarizer) -> None:
    silence = np.zeros(samples(4), np.float32)
    events = await follow(trained, silence, 7, silence[:1], PAUSE, silence[:500], None, silence[:3])
    assert settled(events) == []
    assert said(events)[-1].settled_sample == len(silence) + 7 + 1 + PAUSE + 500 + 3
    assert await follow(trained) == []
    assert said(await follow(trained, 5, PAUSE)) == []


async def test_a_long_session_keeps_a_small_checkpoint_and_its_two_speakers(
    trained: Diarizer, one: FloatArray, other: FloatArray
) -> None:
    """Twenty minutes, of which little is speech."""
    parts: list[Part] = []
    for number in range(20):
        parts += [quiet_before((one, other)[number % 2][: samples(1.5)]), samples(60)]
    events = await follow(trained, *parts)
    assert {speaker for speaker, *_ in settled(events)} == {1, 2}
    sizes = [len(place.state) for place in snapshots(events)]
    assert len(sizes) >= 15
    assert max(sizes) == sizes[3] < 10_000
    assert all(place.replay_from_sample == place.through_sample for place in snapshots(events))
