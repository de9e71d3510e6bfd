import wave
from itertools import combinations, pairwise

import numpy as np
import pytest

from bench.corpus import Recording, TimedWord
from bench.mixtures import Conversation, conversation, speech
from services.common.audio import FloatArray, float_to_pcm
from services.common.timeline import SAMPLE_RATE_HZ, samples

PEOPLE = ("ada", "grace", "mary", "sofya")


def voice(number: int, length_s: float = 6.0) -> FloatArray:
    """A tone of one's own, with a pause in the middle."""
    times = np.arange(samples(length_s)) / SAMPLE_RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * times)
    tone[samples(2.5) : samples(3.5)] = 0
    return tone.astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("voices")
    found = []
    for number, person in enumerate(PEOPLE):
        path = folder / f"{person}.wav"
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
            out.writeframes(float_to_pcm(voice(number)))
        # Aligned words take the silence before them along.
        words = (TimedWord("before", 0.0, 2.5), TimedWord("after", 2.6, 5.9))
        found.append(Recording(person, path, "", "en", words, speaker=person))
    return found


def talk(recordings: list[Recording], seed: int = 1, overlap: float = 0.1) -> Conversation:
    return conversation(recordings, seed=seed, speakers=3, overlap=overlap, length_s=40)


def test_speech_is_where_a_recording_is_loud() -> None:
    [first, second] = speech(voice(0))
    assert first == pytest.approx((0, samples(2.5)), abs=samples(0.04))
    assert second == pytest.approx((samples(3.5), samples(6)), abs=samples(0.04))


def test_a_short_breath_parts_no_speech() -> None:
    audio = voice(0)
    audio[samples(1.0) : samples(1.2)] = 0
    assert len(speech(audio)) == 2


def test_the_same_seed_makes_the_same_conversation_and_another_one_another(
    recordings: list[Recording],
) -> None:
    first, again, other = talk(recordings), talk(recordings), talk(recordings, seed=2)
    assert np.array_equal(first.audio, again.audio)
    assert first.turns == again.turns
    assert first.turns != other.turns
    assert first.speakers == 3


def test_each_person_is_heard_where_the_truth_says_and_nowhere_else(
    recordings: list[Recording],
) -> None:
    said = talk(recordings, overlap=0.0)
    for number, person in enumerate(PEOPLE):
        spectrum = [
            np.abs(np.fft.rfft(said.audio[at : at + 1600]))[20 * (number + 1)]
            for at in range(0, len(said.audio) - 1600, 1600)
        ]
        for at, strength in enumerate(spectrum):
            begin_s, end_s = at / 10, (at + 1) / 10
            spoken = [turn for turn in said.turns if turn.speaker == person]
            inside = any(t.start_s <= begin_s and end_s <= t.end_s for t in spoken)
            outside = all(t.end_s <= begin_s or end_s <= t.start_s for t in spoken)
            if inside:
                assert strength > 50
            elif outside:
                assert strength < 5


@pytest.mark.parametrize(("overlap", "least", "most"), [(0.0, 0.0, 0.0), (0.2, 0.05, 0.3)])
def test_people_talk_over_each_other_about_as_much_as_asked(
    recordings: list[Recording], overlap: float, least: float, most: float
) -> None:
    turns = talk(recordings, overlap=overlap).turns
    both_s = sum(
        max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
        for a, b in combinations(turns, 2)
        if a.speaker != b.speaker
    )
    assert least <= both_s / 40 <= most


def test_words_are_said_where_their_speaker_speaks(recordings: list[Recording]) -> None:
    said = talk(recordings)
    assert list(said.words) == sorted(said.words, key=lambda word: word.start_s)
    assert {word.text for word in said.words} == {"before", "after"}
    for word in said.words:
        assert any(
            turn.speaker == word.speaker
            and turn.start_s - 1e-3 <= word.start_s
            and word.end_s <= turn.end_s + 1e-3
            for turn in said.turns
        )


def test_pauses_may_be_long(recordings: list[Recording]) -> None:
    said = conversation(
        recordings, seed=1, speakers=3, overlap=0.0, length_s=120, longest_pause_s=20
    )
    pauses_s = [after.start_s - before.end_s for before, after in pairwise(said.turns)]
    assert 5 < max(pauses_s) < 20.1
