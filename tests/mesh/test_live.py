"""Live sessions on ``/asr``, over real processes, with a real model, on real speech."""

import asyncio
from itertools import pairwise

import numpy as np

from tests.conftest import TWO_CITIES, ServedMesh
from tests.mesh.asr import BECKETT, BYTES_PER_S, SILENCE, Watched, silence, watch
from tests.mesh.wording import assert_same_words, difference

PAUSES_S = (0.5, 3.0, 8.0, 20.0)


def test_a_session_begins_with_its_configuration_and_ends_with_ready_to_stop(
    undisturbed: Watched,
) -> None:
    first, *between, last = undisturbed.messages
    assert first == {"type": "config", "useAudioWorklet": True, "mode": "diff"}
    assert last == {"type": "ready_to_stop"}
    assert [message["type"] for message in between] == ["snapshot"] + ["diff"] * (len(between) - 1)
    assert [message["seq"] for message in between] == list(range(1, len(between) + 1))


def test_everything_that_was_said_is_in_the_lines(undisturbed: Watched) -> None:
    assert_same_words(TWO_CITIES, undisturbed.text)
    assert undisturbed.messages[-2]["buffer_transcription"] == ""


def test_words_can_be_read_while_the_speech_goes_on(undisturbed: Watched) -> None:
    halfway = Watched()
    for received in undisturbed.received:
        if received.sent_s < 22:
            halfway.take(received)
    assert len(halfway.text.split()) > 20


def test_the_last_word_is_final_within_seconds_of_the_end(undisturbed: Watched) -> None:
    assert undisturbed.ready_after_s < 15


def test_lines_are_in_the_order_of_the_audio(undisturbed: Watched, two_cities: bytes) -> None:
    spans = [(seconds_of(line["start"]), seconds_of(line["end"])) for line in undisturbed.lines]
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[-1][1] <= len(two_cities) / BYTES_PER_S


async def test_full_mode_shows_what_diff_mode_shows(mesh_tiny: ServedMesh, beckett: bytes) -> None:
    full, diff = await asyncio.gather(
        watch(mesh_tiny.ws_url, beckett, query="language=en"), watch(mesh_tiny.ws_url, beckett)
    )
    assert full.messages[0]["mode"] == "full"
    assert all("lines" in state.message for state in full.states)
    assert difference(BECKETT, diff.text).wer_percent == 0
    assert difference(BECKETT, full.text).wer_percent == 0


async def test_silence_after_speech_changes_nothing_but_the_lag(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    """P5."""
    spoken_s = len(beckett) / BYTES_PER_S
    watched = await watch(mesh_tiny.ws_url, beckett + silence(20), speed=4)
    # The VAD is sure of the end after 0.7 s; at the latest then the last words are final.
    quiet = [state for state in watched.states if spoken_s + 6 < state.sent_s < spoken_s + 19.5]
    shown = [
        {key: state.message.get(key) for key in ("n_lines", "new_lines", "buffer_transcription")}
        for state in quiet
    ]
    number = len(watched.lines)
    assert shown == [{"n_lines": number, "new_lines": None, "buffer_transcription": ""}] * len(
        quiet
    )
    assert len(quiet) <= 5  # one a second; at four times the pace of speech this is 3.4 s
    assert difference(BECKETT, watched.text).wer_percent == 0


async def test_a_client_that_only_listens_to_silence_hears_nothing(
    mesh_tiny: ServedMesh,
) -> None:
    watched = await watch(mesh_tiny.ws_url, silence(20), speed=4)
    assert watched.lines == []
    assert {state.message["status"] for state in watched.states} == {"no_audio_detected"}
    assert all(state.message["buffer_transcription"] == "" for state in watched.states)
    assert len(watched.states) <= 7


async def test_no_word_is_lost_or_moved_by_a_pause(
    mesh_tiny: ServedMesh, two_cities: bytes
) -> None:
    """P3 and P7: the same speech, with silence put in where the speaker breathes."""
    cuts = [quietest(two_cities, at_s) for at_s in (8, 16, 24, 33)]
    parts = [two_cities[start:end] for start, end in pairwise([0, *cuts, len(two_cities)])]
    paused = b"".join(
        part + silence(pause_s) for part, pause_s in zip(parts, (*PAUSES_S, 0.0), strict=True)
    )
    watched = await watch(mesh_tiny.ws_url, paused)
    # Around each pause windows are decoded when the machine gets to it: another word or two is read
    # differently from run to run.
    assert_same_words(TWO_CITIES, watched.text, below_percent=6)
    # Pauses above 5 s are lines of their own, and stand where they are in the audio.
    pauses = [line for line in watched.lines if line["speaker"] == SILENCE]
    assert len(pauses) == 2
    for line, number in zip(pauses, (2, 3), strict=True):
        first_s = cuts[number] / BYTES_PER_S + sum(PAUSES_S[:number])
        assert abs(seconds_of(line["start"]) - first_s) < 1
        assert abs(seconds_of(line["end"]) - first_s - PAUSES_S[number]) < 1


def quietest(pcm: bytes, near_s: float) -> int:
    """Where the quietest 200 ms within 3 s of a position have their middle, in bytes."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float64) ** 2
    first = round((near_s - 3) * 16_000)
    energy = np.convolve(samples[first : first + 6 * 16_000], np.ones(3200), "valid")
    return 2 * (first + int(energy.argmin()) + 1600)


def seconds_of(clock: str) -> float:
    """``H:MM:SS.cc`` in seconds."""
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
