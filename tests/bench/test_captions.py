import json
import math

from bench.captions import Screen, heard, screens
from bench.converse import Heard


def _heard(*screens: tuple[float, str, str]) -> Heard:
    return heard(
        [Screen(*shown) for shown in screens], language_code="en", end_s=5.0, finished_s=5.5
    )


def test_only_what_changes_the_screen_is_kept() -> None:
    state = {
        "lines": [
            {"speaker": 1, "text": "One two."},
            {"speaker": -2, "text": None},
            {"speaker": 1, "text": "Three"},
        ],
        "buffer_transcription": "four",
        "buffer_diarization": "",
    }
    messages = [
        (0.0, '{"type": "config", "useAudioWorklet": true}'),
        (1.5, json.dumps(state)),
        (1.6, json.dumps(state | {"remaining_time_transcription": 0.1})),
        (9.0, '{"type": "ready_to_stop"}'),
    ]
    [shown] = screens(messages)
    assert (shown.at_s, shown.lines.split(), shown.buffer.split()) == (
        1.5,
        ["One", "two.", "Three"],
        ["four"],
    )


def test_each_word_is_final_once_and_what_follows_is_tail() -> None:
    told = _heard((1.0, "", "one too"), (2.0, "One", "two three"), (3.0, "One two three.", ""))
    assert told.text == " One two three."
    assert [told.final_at_s(word) for word in range(3)] == [2.0, 3.0, 3.0]
    assert [captions.tail for captions in told.captions] == ["one too", "two three", ""]
    assert (told.end_s, told.finished_s) == (5.0, 5.5)


def test_a_word_that_the_lines_take_back_is_final_when_it_comes_again() -> None:
    told = _heard((1.0, "one two", ""), (2.0, "one", "too"), (3.0, "one two", ""))
    assert [told.final_at_s(word) for word in range(2)] == [1.0, 3.0]
    assert [captions.tail for captions in told.captions] == ["two", "too", ""]


def test_a_comma_that_joins_a_word_later_does_not_make_it_new() -> None:
    told = _heard((1.0, "one two", ""), (2.0, "one two, three", ""))
    assert told.final_at_s(1) == 1.0


def test_when_words_were_spoken_is_not_told() -> None:
    assert all(math.isnan(word.end_s) for word in _heard((1.0, "one", "")).words)


def test_a_session_that_showed_nothing_has_no_words() -> None:
    assert _heard().words == []
