"""What the recogniser hears, given what the VAD says."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.words import Word
from services.gateway.route import Audio, End, FlushMark, Gap, Piece, Route
from services.gateway.speech_map import (
    DEAF_PAUSE_SAMPLES,
    GAP_SAMPLES,
    POST_ROLL_SAMPLES,
    RECORDED_POST_ROLL_SAMPLES,
    SpeechMap,
)
from services.gateway.transcript import Speech, Transcript

PRE_ROLL = 4800
S = 16_000


def pieces(route: Route, position: int = 0, flushed: int = -1) -> list[Piece]:
    found: list[Piece] = []
    while (piece := route.next_piece(position, flushed)) is not None:
        found.append(piece)
        match piece:
            case Audio(_, end) | Gap(_, end):
                position = end
            case FlushMark(sample):
                flushed = sample
            case End():
                break
    return found


def speech_map(*, live: bool = True) -> SpeechMap:
    return SpeechMap(Transcript(), pre_roll_samples=PRE_ROLL, live=live)


def test_speech_is_heard_with_what_stands_before_and_after_it() -> None:
    speech = speech_map()
    speech.heard(2 * S, 2 * S)
    speech.started(2 * S)
    speech.heard(3 * S, 3 * S)
    speech.ended(3 * S)
    speech.heard(4 * S, 4 * S)
    speech.finish(5 * S)
    end = 3 * S + POST_ROLL_SAMPLES
    assert pieces(speech.route) == [
        Gap(0, 2 * S - PRE_ROLL),
        Audio(2 * S - PRE_ROLL, end),
        FlushMark(end),
        Gap(end, 5 * S),
        End(),
    ]


def test_while_somebody_speaks_everything_goes_on_at_once() -> None:
    speech = speech_map()
    speech.started(512)
    speech.heard(1024, 1024)
    assert pieces(speech.route) == [Audio(0, 1024)]
    speech.heard(1536, 1536)
    assert pieces(speech.route, 1024) == [Audio(1024, 1536)]


def test_a_possible_start_holds_the_gap_back() -> None:
    speech = speech_map()
    speech.heard(10 * S, 8 * S)
    assert pieces(speech.route) == [Gap(0, 8 * S - PRE_ROLL)]
    speech.started(8 * S)
    speech.heard(10 * S + 512, 10 * S + 512)
    assert pieces(speech.route, 8 * S - PRE_ROLL) == [Audio(8 * S - PRE_ROLL, 10 * S + 512)]


def test_silence_is_told_of_four_times_a_second_at_most() -> None:
    speech = speech_map()
    told = set()
    for through in range(512, 60 * S, 512):
        speech.heard(through, through)
        told.add(speech.route.end_sample)
    assert len(told) <= 60 * S / GAP_SAMPLES


def test_speech_cut_for_its_length_goes_on_without_a_mark() -> None:
    speech = speech_map()
    speech.started(0)
    speech.heard(30 * S, 30 * S)
    speech.ended(28 * S)
    speech.started(28 * S)
    speech.heard(31 * S, 31 * S)
    assert pieces(speech.route) == [Audio(0, 31 * S)]


def test_a_pause_shorter_than_what_is_heard_around_speech_leaves_no_gap() -> None:
    speech = speech_map()
    speech.started(0)
    speech.heard(S, S)
    speech.ended(S)
    speech.heard(S + 4096, S + 4096)
    speech.started(S + 6000)
    speech.heard(2 * S, 2 * S)
    assert [type(piece) for piece in pieces(speech.route)] == [Audio, FlushMark, Audio]


def test_recordings_get_no_marks() -> None:
    speech = speech_map(live=False)
    speech.started(0)
    speech.heard(S, S)
    speech.ended(S)
    speech.heard(9 * S, 9 * S)
    speech.finish(9 * S)
    assert [type(piece) for piece in pieces(speech.route)] == [Audio, Gap, End]


@pytest.mark.parametrize(("speaking", "heard"), [(True, 3 * S + 100), (False, 0)])
def test_a_flush_marks_everything_that_is_speech(speaking: bool, heard: int) -> None:
    speech = speech_map()
    if speaking:
        speech.started(S)
    speech.heard(3 * S, 3 * S)
    mark = speech.flush(3 * S + 100)
    assert mark == speech.route.end_sample
    if heard:
        assert mark == heard
    assert FlushMark(mark) in pieces(speech.route)
    assert speech.flush(3 * S + 100) == mark


def test_without_a_vad_everything_is_speech_from_where_it_was_lost() -> None:
    speech = speech_map()
    speech.heard(2 * S, 2 * S)
    speech.listen_to_all()
    speech.received(7 * S)
    speech.heard(8 * S, 8 * S)
    speech.finish(9 * S)
    here = 2 * S - PRE_ROLL
    assert pieces(speech.route) == [Gap(0, here), Audio(here, 9 * S), End()]


# In windows: 0.5 s, which is less than what of a recording is heard behind speech, and 0.7 s.
@pytest.mark.parametrize("hangover", [16, 22])
@given(
    # Windows of a pause (none: the speech was cut for its length) and of the speech behind it.
    spans=st.lists(st.tuples(st.integers(0, 80), st.integers(4, 200)), min_size=1, max_size=5),
    reports=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_a_recording_is_heard_the_same_however_the_vad_reports(
    hangover: int, spans: list[tuple[int, int]], reports: list[int]
) -> None:
    edges, at = [], 0
    for pause, length in spans:
        # A pause is one only when it outlasts the hangover.
        first = at + (pause + hangover if pause else 0) * 512
        at = first + length * 512
        edges.append((first, at))
    by_window, by_report = speech_map(live=False), speech_map(live=False)
    report_all(by_window, edges, [1], hangover)
    report_all(by_report, edges, reports, hangover)
    assert pieces(by_report.route) == pieces(by_window.route)
    heard = [piece for piece in pieces(by_window.route) if isinstance(piece, Audio)]
    for first, end in edges:
        [piece] = [piece for piece in heard if piece.first_sample <= first < piece.end_sample]
        assert piece.first_sample <= max(0, first - PRE_ROLL)
        assert piece.end_sample >= end + RECORDED_POST_ROLL_SAMPLES


def report_all(
    speech: SpeechMap, edges: list[tuple[int, int]], reports: list[int], hangover: int
) -> None:
    """Be the VAD of a lane with speech in some places, reporting every so many windows in turn."""
    events: list[tuple[int, Callable[[int], None], int]] = []
    for number, (first, end) in enumerate(edges):
        cut = number + 1 < len(edges) and edges[number + 1][0] == end
        joined = number > 0 and edges[number - 1][1] == first
        events.append((first + (10 if joined else 4) * 512, speech.started, first))
        events.append((end + (10 if cut else hangover) * 512, speech.ended, end))
    through, end_sample = 0, edges[-1][1] + 3 * S
    for windows in itertools.cycle(reports):
        if through >= end_sample:
            break
        through = min(through + windows * 512, end_sample)
        while events and events[0][0] <= through:
            _, tell, sample = events.pop(0)
            tell(sample)
        pending = [first for first, _ in edges if first < through < first + 4 * 512]
        speech.heard(through, min([through, *pending]))
    speech.finish(end_sample)


Event = tuple[Callable[[SpeechMap, int], None], int]


def _started(speech: SpeechMap, sample: int) -> None:
    speech.started(sample)


def _ended(speech: SpeechMap, sample: int) -> None:
    speech.ended(sample)


def _heard(speech: SpeechMap, sample: int) -> None:
    speech.heard(sample, sample)


def history(edges: list[int]) -> list[Event]:
    """The events of a VAD that hears speech between every second pair of edges, in order."""
    events: list[Event] = []
    at = 0
    for number, step in enumerate(edges):
        for _ in range(step):
            at += 512
            events.append((_heard, at))
        if number % 2 == 0:
            events.append((_started, at))
        else:
            events.append((_ended, at - 512 * min(step - 1, 6)))
    events.append((_heard, at + 512))
    return events


@given(
    edges=st.lists(st.integers(1, 60), max_size=12),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4),
)
def test_events_that_are_repeated_change_nothing(
    edges: list[int], cuts: list[tuple[float, float]]
) -> None:
    events = history(edges)
    once = speech_map()
    for apply, sample in events:
        apply(once, sample)
    again = speech_map()
    position = 0
    for until, back in sorted(cuts):
        stop = max(position, round(until * len(events)))
        for apply, sample in events[position:stop]:
            apply(again, sample)
        position = round(back * stop)
    for apply, sample in events[position:]:
        apply(again, sample)
    assert pieces(again.route) == pieces(once.route)


@given(
    edges=st.lists(st.integers(1, 60), max_size=12), start=st.floats(0, 1), forget=st.floats(0, 1)
)
def test_a_route_read_again_from_anywhere_is_the_same(
    edges: list[int], start: float, forget: float
) -> None:
    speech = speech_map()
    for apply, sample in history(edges):
        apply(speech, sample)
    speech.finish(speech.route.end_sample + 700)
    position = round(start * speech.route.end_sample)
    whole = [
        p for p in pieces(speech.route) if not (isinstance(p, FlushMark) and p.sample <= position)
    ]
    speech.route.forget(round(forget * position))
    later = pieces(speech.route, position, position)
    expected: list[Piece] = []
    for piece in whole:
        match piece:
            case Audio(first, end) | Gap(first, end):
                if end > position:
                    expected.append(type(piece)(max(first, position), end))
            case _:
                expected.append(piece)
    assert later == expected


def test_what_was_forgotten_cannot_be_read() -> None:
    route = Route()
    route.add_audio(100)
    route.add_gap(200)
    route.forget(100)
    with pytest.raises(IndexError):
        route.next_piece(50, -1)
    assert route.next_piece(100, -1) == Gap(100, 200)


def test_audio_that_nobody_needs_is_found() -> None:
    route = Route()
    route.add_gap(100)
    route.add_audio(200)
    route.add_gap(300)
    assert [route.first_audio(p) for p in (0, 100, 150, 200, 250, 300)] == [
        100,
        100,
        150,
        300,
        300,
        300,
    ]


def test_the_transcript_is_told_where_somebody_speaks() -> None:
    transcript = Transcript()
    speech = SpeechMap(transcript, pre_roll_samples=PRE_ROLL)
    for _ in range(2):  # a VAD that was restarted says it again
        speech.started(2 * S)
        speech.ended(3 * S)
    speech.started(5 * S)
    speech.listen_to_all()
    assert transcript.speech == [Speech(2 * S, 3 * S), Speech(5 * S, None)]


def test_without_a_vad_somebody_speaks_all_the_time() -> None:
    transcript = Transcript()
    speech = SpeechMap(transcript, pre_roll_samples=PRE_ROLL)
    speech.heard(S, S)
    speech.listen_to_all()
    speech.started(2 * S)
    assert [spoken.end_sample for spoken in transcript.speech] == [None]


def deaf(*, live: bool = True) -> tuple[SpeechMap, Transcript]:
    transcript = Transcript()
    speech = SpeechMap(transcript, pre_roll_samples=PRE_ROLL, live=live)
    speech.listen_to_all()
    speech.received(10 * S)
    return speech, transcript


def test_without_a_vad_speech_ends_and_starts_with_words() -> None:
    speech, transcript = deaf()
    transcript.commit([Word(" a", S, 2 * S), Word(" b", 2 * S, 3 * S)])
    speech.follow_words()
    transcript.replace_tail([], 3 * S + DEAF_PAUSE_SAMPLES - 1)
    speech.follow_words()
    assert transcript.speech == [Speech(0, None)], "somebody may go on to speak"
    transcript.replace_tail([], 3 * S + DEAF_PAUSE_SAMPLES)
    speech.follow_words()
    speech.follow_words()
    assert transcript.speech == [Speech(0, 3 * S)]
    speech.received(12 * S)
    transcript.replace_tail([Word(" c", 6 * S, 7 * S)], 9 * S)
    speech.follow_words()
    transcript.replace_tail([Word(" cc", 6 * S, 7 * S)], 9 * S)
    speech.follow_words()
    assert transcript.speech == [Speech(0, 3 * S), Speech(6 * S, None)]
    transcript.commit([Word(" c", 6 * S, 7 * S)])
    transcript.replace_tail([], 12 * S)
    speech.follow_words()
    speech.finish(13 * S)
    assert transcript.speech == [Speech(0, 3 * S), Speech(6 * S, 7 * S)]
    assert pieces(speech.route) == [
        Audio(0, 10 * S),
        FlushMark(10 * S),
        Audio(10 * S, 12 * S),
        FlushMark(12 * S),
        Audio(12 * S, 13 * S),
        End(),
    ]


@pytest.mark.parametrize(
    ("words", "tail"),
    [([], []), ([Word(" a", S, 2 * S)], [Word(" b", 2 * S, 3 * S)])],
)
def test_without_a_vad_speech_goes_on_while_words_may_come(
    words: list[Word], tail: list[Word]
) -> None:
    speech, transcript = deaf()
    transcript.commit(words)
    speech.follow_words()
    transcript.replace_tail(tail, 10 * S)
    speech.follow_words()
    assert transcript.speech == [Speech(0, None)]


def test_a_recording_without_a_vad_is_not_cut() -> None:
    speech, transcript = deaf(live=False)
    transcript.commit([Word(" a", S, 2 * S)])
    transcript.replace_tail([], 10 * S)
    speech.follow_words()
    assert transcript.speech == [Speech(0, None)]
    assert pieces(speech.route) == [Audio(0, 10 * S)]


def test_with_a_vad_words_change_nothing() -> None:
    transcript = Transcript()
    speech = SpeechMap(transcript, pre_roll_samples=PRE_ROLL)
    transcript.commit([Word(" a", S, 2 * S)])
    transcript.replace_tail([], 10 * S)
    speech.follow_words()
    assert transcript.speech == []
