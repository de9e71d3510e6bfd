"""Who is who, by rules that need no model."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.audio import FloatArray
from services.diarizer.engines.voices import Rules, Somebody, Voice, identify, joined, unit

RULES = Rules(same=0.3, same_missed=0.45, past=0.2, new_s=1.2)


def sound(angle: float) -> FloatArray:
    """A voice in a world of two dimensions; likeness is the cosine of the angle between."""
    radians = np.deg2rad(angle)
    return np.array([np.cos(radians), np.sin(radians)], np.float32)


def voice(angle: float, seconds: float = 3) -> Voice:
    return Voice(sound(angle) * np.float32(seconds), seconds)


def person(
    angle: float | None,
    seconds: float = 2,
    past: tuple[float, ...] = (0, 0),
    *,
    apart: bool = False,
) -> Somebody:
    heard = None if angle is None else sound(angle)
    return Somebody(heard, seconds, np.array(past, np.float32), (apart,) * 4)


KNOWN = [voice(0), voice(90)]


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([], []),
        ([person(5)], [0]),
        ([person(85)], [1]),
        ([person(5), person(85)], [0, 1]),
        ([person(85), person(5)], [1, 0]),
        # Like the first both, but no two people are one.
        ([person(1), person(20)], [0, 1]),
        ([person(20), person(1)], [1, 0]),
        # Like nobody.
        ([person(180)], [2]),
        ([person(180), person(5)], [2, 0]),
        ([person(180), person(200), person(5)], [2, 3, 0]),
        # Like nobody, and hardly heard: whoever is nearest.
        ([person(170, 1.1)], [1]),
        # Never heard alone: whoever the past says, else whoever is left.
        ([person(None, 0, (0, 1))], [1]),
        ([person(None, 0, (0, 1)), person(80)], [0, 1]),
        # The past decides between voices that are equally like.
        ([person(45, 2, (1, 0))], [0]),
        ([person(45, 2, (0, 1))], [1]),
        # Past speech of a voice keeps somebody from being new.
        ([person(-80, 2, (0, 0))], [2]),
        ([person(-80, 2, (1, 0))], [0]),
    ],
)
def test_people_are_those_they_are_like(people: list[Somebody], expected: list[int | None]) -> None:
    assert identify(people, KNOWN, RULES, room=18, missed=False) == expected


@pytest.mark.parametrize(
    ("room", "expected"),
    [(0, [0, 1, None]), (1, [0, 2, 1]), (2, [0, 2, 3])],
)
def test_nobody_is_new_without_room(room: int, expected: list[int | None]) -> None:
    people = [person(0), person(180), person(220)]
    assert identify(people, KNOWN, RULES, room=room, missed=False) == expected


@pytest.mark.parametrize(
    ("apart", "angles", "expected"),
    [
        # One person told apart into two, who never speak at once, is one all the same ...
        (True, (0, 85, 10), [0, 1, 0]),
        # ... but not two who speak at once, nor somebody who is like nobody.
        (False, (0, 85, 10), [0, 1, 2]),
        (True, (0, 85, 200), [0, 1, 2]),
        # Who is left over has no other's voice.
        (True, (0, 10, 20), [0, 0, 0]),
        (False, (10, 0, 95), [2, 0, 1]),
        # Somebody new may be told apart into two as well.
        (True, (180, 200, 0), [2, 2, 0]),
        (True, (285, 0, 165), [2, 0, 3]),
        (False, (180, 200, 0), [2, 3, 0]),
    ],
)
def test_people_who_never_speak_at_once_may_be_one(
    apart: bool, angles: tuple[float, ...], expected: list[int]
) -> None:
    people = [person(angle, apart=apart) for angle in angles]
    assert identify(people, KNOWN, RULES, room=18, missed=False) == expected


@pytest.mark.parametrize(("angle", "missed", "expected"), [
    (-68, False, 0),
    (-68, True, 2),
    (-60, True, 0),
])  # fmt: skip
def test_somebody_who_is_missed_is_found_sooner(angle: float, missed: bool, expected: int) -> None:
    assert identify([person(angle)], KNOWN, RULES, room=1, missed=missed) == [expected]


@pytest.mark.parametrize("seconds", [0.0, 0.1, 5.0])
def test_the_first_to_speak_is_new_however_short(seconds: float) -> None:
    first = person(None if not seconds else 10, seconds, ())
    assert identify([first], [], RULES, room=20, missed=False) == [0]


def test_those_who_speak_first_are_numbered_in_order() -> None:
    people = [person(120, past=()), person(0, past=())]
    assert identify(people, [], RULES, room=20, missed=False) == [0, 1]


@pytest.mark.parametrize(
    ("known", "least", "expected"),
    [
        ([], 0, []),
        ([voice(0)], 0, [0]),
        ([voice(0), voice(90)], 0, [0, 1]),
        ([voice(0), voice(40)], 0, [0, 0]),
        ([voice(0), voice(50)], 0, [0, 1]),
        # However little was heard of one of them.
        ([voice(0, 60), voice(90), voice(10, 1)], 0, [0, 1, 0]),
        # Of those like two, the likest; and through one another.
        ([voice(0), voice(60), voice(35)], 0, [0, 1, 1]),
        ([voice(0), voice(30), voice(65)], 0, [0, 0, 2]),
        ([voice(0), voice(42), voice(60)], 0, [0, 0, 0]),
        # There must be as many: the likest alone are one.
        ([voice(0), voice(40), voice(90), voice(95)], 3, [0, 1, 2, 2]),
        ([voice(0), voice(40)], 2, [0, 1]),
        # One that is gone is nobody.
        ([voice(0), Voice(np.zeros(2, np.float32), -1)], 0, [0, 1]),
        ([voice(0), Voice(np.zeros(2, np.float32), -1), voice(5)], 2, [0, 1, 2]),
    ],
)
def test_voices_that_have_become_alike_are_one(
    known: list[Voice], least: int, expected: list[int]
) -> None:
    assert joined(known, Rules(joined=0.7), least=least) == expected


@pytest.mark.parametrize("room", [0, 3])
def test_nobody_has_a_voice_that_is_gone(room: int) -> None:
    gone = Voice(np.zeros(2, np.float32), -1.0)
    people = [person(180, past=(0, 1)), person(None, 0, (0, 1))]
    found = identify(people, [voice(0), gone], RULES, room=room, missed=False)
    assert 1 not in found


angles = st.floats(0, 360)
crowds = st.lists(
    st.tuples(angles | st.none(), st.floats(0, 4), st.floats(0, 1), st.floats(0, 1)), max_size=4
)


@given(crowd=crowds, num_known=st.integers(0, 4), room=st.integers(0, 3), missed=st.booleans())
def test_no_two_people_have_one_voice_and_new_ones_come_in_order(
    crowd: list[tuple[float | None, float, float, float]],
    num_known: int,
    room: int,
    missed: bool,
) -> None:
    known = [voice(90 * number) for number in range(num_known)]
    people = [person(angle, s, (a, b, 0, 0)[:num_known]) for angle, s, a, b in crowd]
    found = identify(people, known, RULES, room=room, missed=missed)
    given_ = [number for number in found if number is not None]
    assert len(found) == len(people)
    assert len(set(given_)) == len(given_)
    new = [number for number in given_ if number >= num_known]
    assert new == list(range(num_known, num_known + len(new)))
    assert len(new) <= room


@given(pieces=st.lists(st.tuples(angles, st.floats(0.125, 4)), min_size=1, max_size=8))
def test_a_voice_is_the_mean_of_what_was_heard_of_it(pieces: list[tuple[float, float]]) -> None:
    heard = Voice(np.zeros(2, np.float32), 0.0)
    for angle, seconds in pieces:
        heard = heard.with_more(sound(angle), seconds)
    total = sum(sound(angle).astype(float) * seconds for angle, seconds in pieces)
    np.testing.assert_allclose(heard.total, total, atol=1e-4)
    assert heard.seconds == pytest.approx(sum(seconds for _, seconds in pieces))


def test_what_has_a_length_gets_length_one() -> None:
    for vector in (sound(30) * np.float32(7), sound(200) / np.float32(9)):
        assert np.linalg.norm(unit(vector)) == pytest.approx(1, abs=1e-6)
    assert not unit(np.zeros(2, np.float32)).any()
    lengths = [float(unit(np.full(3, level).astype(np.float32))[0]) for level in (0.1, 10.0)]
    assert all(before == pytest.approx(after) for before, after in pairwise(lengths))
