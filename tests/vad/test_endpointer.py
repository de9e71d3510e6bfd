"""Tables read: a string has one character per window, ``.`` silence to ``9`` certain speech."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.timeline import samples
from services.vad.endpointer import Endpointer, Endpointing, Event, SpeechEnded, SpeechStarted

W = 512
SETTINGS = Endpointing(0.5, 0.3, min_speech=3 * W, hangover=4 * W, max_speech=samples(60))

probability_lists = st.lists(st.floats(0, 1, width=32), max_size=80)


def probabilities(windows: str) -> list[float]:
    return [0.0 if window == "." else int(window) / 10 for window in windows]


def start(window: float) -> SpeechStarted:
    return SpeechStarted(round(window * W))


def end(window: float) -> SpeechEnded:
    return SpeechEnded(round(window * W))


def hear(endpointer: Endpointer, windows: str) -> list[Event]:
    events = []
    for probability in probabilities(windows):
        events += endpointer.push(probability)
    return events


@pytest.mark.parametrize(
    ("windows", "events"),
    [
        ("......", []),
        ("..44444444..", []),  # never reaches the onset threshold
        ("..99......", []),  # too short
        ("..999.....", [start(2), end(5)]),  # just long enough
        ("..999...", [start(2)]),  # not silent for long enough
        ("..533333....", [start(2), end(8)]),  # between the thresholds it goes on
        ("..599...9..", [start(2)]),  # a pause shorter than the hangover
        ("..599....9999....", [start(2), end(5), start(9), end(13)]),
        ("..9.9.9.9.999", [start(10)]),  # what breaks off too early never counts
        ("999....", [start(0), end(3)]),
    ],
)
def test_speech_starts_and_ends_with_hysteresis(windows: str, events: list[Event]) -> None:
    assert hear(Endpointer.starting_at(0, SETTINGS), windows) == events


def test_positions_count_from_the_streams_first_sample() -> None:
    endpointer = Endpointer.starting_at(1000, SETTINGS)
    assert hear(endpointer, "..999....") == [
        SpeechStarted(1000 + 2 * W),
        SpeechEnded(1000 + 5 * W),
    ]


@pytest.mark.parametrize(
    ("windows", "settled", "speaking"),
    [
        ("...", 3, False),
        ("..9", 2, False),  # may become speech
        ("..94", 2, False),
        ("..99.", 5, False),  # did not
        ("..999", 5, True),
        ("..999..", 7, True),  # a pause belongs to speech until it is too long
        ("..999....", 9, False),
    ],
)
def test_a_possible_start_holds_back_what_is_settled(
    windows: str, settled: int, speaking: bool
) -> None:
    endpointer = Endpointer.starting_at(0, SETTINGS)
    hear(endpointer, windows)
    assert endpointer.heard.through_sample == len(windows) * W
    assert endpointer.heard.settled_through_sample == settled * W
    assert endpointer.heard.speaking is speaking


@pytest.mark.parametrize(
    ("windows", "partial", "events"),
    [
        ("..", None, []),
        ("..", 0.4, []),
        ("..", 0.5, [start(2)]),
        ("..9", None, [start(2)]),
        ("..9", 0.3, [start(2)]),
        ("..9", 0.2, []),
        ("..999.", 0.0, [start(2)]),  # flushing ends nothing
    ],
)
def test_a_flush_decides_everything(
    windows: str, partial: float | None, events: list[Event]
) -> None:
    endpointer = Endpointer.starting_at(0, SETTINGS)
    position = len(windows) * W + (0 if partial is None else 100)
    assert hear(endpointer, windows) + endpointer.flush(position, partial) == events
    assert endpointer.heard.through_sample == position
    assert endpointer.heard.settled_through_sample == position


def test_a_start_in_the_window_of_a_flush_is_where_the_flush_was() -> None:
    endpointer = Endpointer.starting_at(0, SETTINGS)
    hear(endpointer, "..")
    assert endpointer.flush(2 * W + 100, 0.0) == []
    # The start is 100 samples short of three windows then.
    assert hear(endpointer, "9999....") == [SpeechStarted(2 * W + 100), end(6)]


@pytest.mark.parametrize(
    ("windows", "partial", "events"),
    [
        ("..999", None, [start(2), end(5)]),
        ("..999.", None, [start(2), end(5)]),
        ("..999", 0.9, [start(2), SpeechEnded(5 * W + 100)]),
        ("..999", 0.1, [start(2), end(5)]),
        ("..99", 0.9, []),  # shorter than it would have to be, and nothing follows
        ("..", 0.9, []),
    ],
)
def test_finishing_ends_open_speech_where_it_was_last_heard(
    windows: str, partial: float | None, events: list[Event]
) -> None:
    endpointer = Endpointer.starting_at(0, SETTINGS)
    position = len(windows) * W + (0 if partial is None else 100)
    assert hear(endpointer, windows) + endpointer.finish(position, partial) == events
    assert endpointer.heard.settled_through_sample == position
    assert not endpointer.heard.speaking


def test_speech_that_is_too_long_is_cut_at_its_quietest_recent_window() -> None:
    settings = replace(SETTINGS, max_speech=40 * W)
    # Window 10 is quieter, but too long ago: recent is the last half of the longest speech.
    windows = "9" * 10 + "1" + "9" * 19 + "6" + "9" * 20
    assert hear(Endpointer.starting_at(0, settings), windows) == [start(0), end(30), start(30)]


def test_speech_is_never_longer_than_allowed() -> None:
    settings = replace(SETTINGS, max_speech=40 * W)
    endpointer = Endpointer.starting_at(0, settings)
    events = hear(endpointer, "9" * 300)
    events += endpointer.finish(300 * W, None)
    starts = [event.first_sample for event in events if isinstance(event, SpeechStarted)]
    ends = [event.end_sample for event in events if isinstance(event, SpeechEnded)]
    assert starts[1:] == ends[:-1], "what is cut goes on where it was cut"
    assert (starts[0], ends[-1]) == (0, 300 * W)
    assert all(last - first <= 40 * W for first, last in zip(starts, ends, strict=True))


def test_a_pause_at_the_longest_speech_is_where_it_is_cut() -> None:
    settings = replace(SETTINGS, max_speech=40 * W)
    windows = "9" * 39 + ".." + "9" * 5
    assert hear(Endpointer.starting_at(0, settings), windows) == [start(0), end(40), start(40)]


@given(before=probability_lists, num_windows=st.integers(1, 60), after=probability_lists)
def test_skipping_windows_is_hearing_silence(
    before: list[float], num_windows: int, after: list[float]
) -> None:
    skipping, hearing = (Endpointer.starting_at(0, SETTINGS) for _ in range(2))
    skipped: list[Event] = [event for p in before for event in skipping.push(p)]
    skipped += skipping.skip(num_windows)
    skipped += [event for p in after for event in skipping.push(p)]
    heard = [event for p in [*before, *[0.0] * num_windows, *after] for event in hearing.push(p)]
    assert skipped == heard
    assert skipping.state == hearing.state


def test_skipping_a_year_costs_nothing() -> None:
    endpointer = Endpointer.starting_at(0, SETTINGS)
    hear(endpointer, "999")
    year = samples(365 * 86_400) // W
    assert endpointer.skip(year) == [end(3)]
    assert hear(endpointer, "999") == [start(year + 3)]


@given(probabilities=probability_lists, max_windows=st.integers(160, 200))
def test_no_start_before_what_was_settled_and_no_end_without_a_start(
    probabilities: list[float], max_windows: int
) -> None:
    settings = replace(SETTINGS, max_speech=max_windows * W)
    endpointer = Endpointer.starting_at(0, settings)
    settled = open_start = -1
    for probability in probabilities:
        for event in endpointer.push(probability):
            match event:
                case SpeechStarted(first):
                    assert first >= settled
                    open_start = first
                case SpeechEnded(last):
                    assert last > open_start >= 0
                    open_start = -1
        heard = endpointer.heard
        assert settled <= heard.settled_through_sample <= heard.through_sample
        assert heard.speaking is (open_start >= 0)
        settled = heard.settled_through_sample


@given(before=probability_lists, after=probability_lists)
def test_a_successor_goes_on_as_its_predecessor_would_have(
    before: list[float], after: list[float]
) -> None:
    predecessor = Endpointer.starting_at(0, SETTINGS)
    for probability in before:
        predecessor.push(probability)
    successor = Endpointer(SETTINGS, predecessor.state)
    for probability in after:
        assert successor.push(probability) == predecessor.push(probability)
        assert successor.heard == predecessor.heard
