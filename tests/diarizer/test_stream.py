"""What a stream makes of its engine's answers, with one that needs no weights."""

import asyncio
import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError
from services.common.wire import MAX_POSITION
from services.diarizer.diarizer import Wishes
from services.diarizer.stream import Stream
from tests.diarizer.harness import (
    FRAME,
    LevelDiarizer,
    Part,
    Span,
    follow,
    length_of,
    levels,
    rest_of,
    running,
    said,
    settled,
    snapshots,
    tell,
)

pieces = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 30)).map(lambda piece: (*piece, "audio"))
    | st.tuples(st.just(0), st.sampled_from([1, 50, 400])).map(lambda piece: (*piece, "gap")),
    max_size=12,
)


def parts_of(pieces: list[tuple[int, int, str]]) -> list[Part]:
    return [
        num * FRAME if kind == "gap" else levels((level, num * FRAME))
        for level, num, kind in pieces
    ]


def spoken(parts: list[Part]) -> list[Span]:
    """Who speaks where, by the levels: numbered as they appear."""
    known: list[int] = []
    found: list[Span] = []
    position = 0
    for part in parts:
        end = position + length_of(part)
        level = round(float(part[0]) * 10) if isinstance(part, np.ndarray) else 0
        if level:
            if level not in known:
                known.append(level)
            speaker = known.index(level) + 1
            if found and found[-1][0] == speaker and found[-1][2] == position:
                found[-1] = (speaker, found[-1][1], end)
            else:
                found.append((speaker, position, end))
        position = end
    return found


@hypothesis_settings(max_examples=60)
@given(pieces=pieces)
def test_what_is_settled_is_what_was_spoken(pieces: list[tuple[int, int, str]]) -> None:
    parts = parts_of(pieces)
    assert settled(asyncio.run(follow(LevelDiarizer(), *parts))) == spoken(parts)


@hypothesis_settings(max_examples=60)
@given(pieces=pieces, sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_how_audio_is_cut_does_not_matter(
    pieces: list[tuple[int, int, str]], sizes: list[int]
) -> None:
    whole = parts_of(pieces)
    cut: list[Part] = []
    for part in whole:
        if isinstance(part, np.ndarray):
            position = 0
            while position < len(part):
                cut.append(part[position : position + sizes[len(cut) % len(sizes)]])
                position += length_of(cut[-1])
        else:
            cut.append(part)
    first, second = (asyncio.run(follow(LevelDiarizer(), *parts)) for parts in (whole, cut))
    assert first == second


@hypothesis_settings(max_examples=40)
@given(pieces=pieces, places=st.lists(st.integers(0, 12), max_size=4))
def test_flushes_change_nothing_that_is_settled(
    pieces: list[tuple[int, int, str]], places: list[int]
) -> None:
    parts = parts_of(pieces)
    expected = spoken(parts)
    for place in sorted(places, reverse=True):
        parts.insert(place, None)
    assert settled(asyncio.run(follow(LevelDiarizer(), *parts))) == expected


async def test_a_successor_says_what_its_predecessor_would_have_said() -> None:
    numbers = np.random.default_rng(0)
    parts: list[Part] = []
    for _ in range(60):
        level, length = numbers.integers(0, 5), numbers.integers(1, 30_000)
        parts.append(levels((int(level), int(length) // FRAME * FRAME + FRAME)))
        if numbers.random() < 0.4:
            parts.append(int(numbers.choice([300, 9000, 40_000])))
    events = await follow(LevelDiarizer(), *parts)
    places = snapshots(events)
    assert len(places) > 3
    async with running(LevelDiarizer()) as batcher:
        for place in places:
            later = events[events.index(place) + 1 :]
            before = said(events[: events.index(place)])
            rest = rest_of(parts, place.replay_from_sample)
            resumed = await tell(batcher, rest, resumed=place)
            assert settled(resumed) == settled(later)
            assert said(resumed)[0].first_sample >= before[-1].settled_sample
            assert said(resumed)[1:] == said(later)[1:]


async def test_a_successor_takes_nothing_back_that_was_settled() -> None:
    """Audio that it hears again was decided before: it is no part of its first stretch."""
    heard = levels(*[(1 + n % 2, 16_000) for n in range(25)])
    events = await follow(LevelDiarizer(), heard)
    place = snapshots(events)[0]
    [*_, before], [after, *_] = (
        said(events[: events.index(place)]),
        said(events[events.index(place) :]),
    )
    assert place.replay_from_sample < before.settled_sample
    async with running(LevelDiarizer()) as batcher:
        rest = rest_of([heard], place.replay_from_sample)
        [first, *_] = said(await tell(batcher, rest, resumed=place))
    assert first == after


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([("audio", 1, 5)], "audio.first_sample is 1, but 0 comes next"),
        ([("audio", 0, 5), ("gap", 4, 5)], "gap.first_sample is 4, but 5 comes next"),
        ([("gap", 0, MAX_POSITION), ("audio", MAX_POSITION, 1)], "audio goes beyond position"),
        ([("gap", 0, MAX_POSITION + 1)], "gap goes beyond position"),
    ],
)
async def test_what_does_not_follow_is_refused(
    parts: list[tuple[str, int, int]], reason: str
) -> None:
    async with running(LevelDiarizer()) as batcher:
        with batcher.seat(live=True) as seat:
            stream = Stream(
                batcher,
                seat,
                look_ahead=16_000,
                wishes=Wishes(20),
                enrolled=(),
                first_sample=0,
                state=None,
            )
            await stream.start()
            with pytest.raises(InvalidRequestError, match=reason):
                for kind, first, length in parts:
                    if kind == "gap":
                        await stream.gap(first, length)
                    else:
                        await stream.audio(first, np.zeros(length, np.float32))


async def test_a_stream_of_many_hours_needs_no_more_memory_than_one_of_minutes() -> None:
    words = [levels((level, 4 * FRAME)) for level in (1, 2, 3)]
    grown: list[int] = []
    async with running(diarizer := LevelDiarizer()) as batcher:
        with batcher.seat(live=True) as seat:
            stream = Stream(
                batcher,
                seat,
                look_ahead=16_000,
                wishes=Wishes(20),
                enrolled=(),
                first_sample=0,
                state=None,
            )
            await stream.start()
            tracemalloc.start()
            try:
                for number in range(1600):
                    await stream.audio(stream.end_sample, words[number % 3])
                    await stream.gap(stream.end_sample, 320_000 if number % 4 == 0 else 640)
                    if number % 400 == 399:
                        diarizer.batches.clear()
                        gc.collect()
                        grown.append(tracemalloc.get_traced_memory()[0])
            finally:
                tracemalloc.stop()
    assert grown[-1] - grown[-2] < 20_000
