"""``response_format=diarized_json``."""

import asyncio
import base64
from dataclasses import replace
from typing import Any

import pytest

from services.common.errors import DeviceError
from services.common.words import Word
from services.gateway.protocols.openai_diarized import Labels, diarized_body
from services.gateway.protocols.openai_view import Spoken
from tests.gateway.fakes import FakeAsr, FakeDiarizer, FakeVad, running, served, words_at
from tests.gateway.test_openai import (
    BOTH,
    DURATION_S,
    RATE,
    TEXT,
    WORDS,
    Client,
    events_of,
    refusal,
    serving,
    until,
    wav,
)

TURNS = ((1, 0, 2 * RATE), (2, 9 * RATE // 4, 5 * RATE))
DIARIZED: dict[str, Any] = {"response_format": "diarized_json"}
SEGMENTS = [
    {
        "type": "transcript.text.segment",
        "id": "seg_001",
        "start": 0.5,
        "end": 1.375,
        "text": "Hello there.",
        "speaker": "A",
    },
    {
        "type": "transcript.text.segment",
        "id": "seg_002",
        "start": 2.5,
        "end": 3.375,
        "text": "How are you?",
        "speaker": "B",
    },
]


def data_url(file: bytes, head: str = "data:audio/wav;base64") -> str:
    return f"{head},{base64.b64encode(file).decode()}"


def known(*speakers: tuple[str, bytes]) -> dict[str, Any]:
    return DIARIZED | {
        "known_speaker_names[]": [name for name, _ in speakers],
        "known_speaker_references[]": [data_url(file) for _, file in speakers],
    }


async def test_every_segment_has_its_speaker() -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(**DIARIZED, chunking_strategy="auto")
    assert answer.json() == {
        "task": "transcribe",
        "duration": DURATION_S,
        "text": "A: Hello there.\nB: How are you?",
        "segments": SEGMENTS,
        "usage": {"type": "duration", "seconds": 5.0},
    }


async def test_a_stream_has_each_segment_when_it_has_ended() -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(**DIARIZED, stream="true")
    *events, done = events_of(answer.text)
    deltas, told = events[::2], events[1::2]
    assert told == SEGMENTS
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert [delta["segment_id"] for delta in deltas] == ["seg_001", "seg_002"]
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert done["type"] == "transcript.text.done"
    assert done["text"] == "A: Hello there.\nB: How are you?"


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_nothing_said_has_no_segment(stream: str) -> None:
    async with serving([], diarizer=FakeDiarizer()) as (client, _):
        answer = await client.transcribe(**DIARIZED, stream=stream)
    if stream == "true":
        assert events_of(answer.text) == [{"type": "transcript.text.done", "text": ""}]
    else:
        assert (answer.json()["text"], answer.json()["segments"]) == ("", [])


@pytest.mark.parametrize(
    ("response_format", "body"),
    [
        ("text", "Speaker 1: Hello there.\nSpeaker 2: How are you?\n"),
        (
            "srt",
            "1\n00:00:00,500 --> 00:00:01,650\nSpeaker 1: Hello there.\n\n"
            "2\n00:00:02,500 --> 00:00:03,650\nSpeaker 2: How are you?\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.500 --> 00:00:01.650\nSpeaker 1: Hello there.\n\n"
            "00:00:02.500 --> 00:00:03.650\nSpeaker 2: How are you?\n\n",
        ),
    ],
)
async def test_what_people_read_begins_each_turn_with_its_speaker(
    response_format: str, body: str
) -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(response_format=response_format, diarize="true")
    assert answer.text == body


async def test_a_stream_of_text_names_its_speakers_as_the_text_does() -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(response_format="text", diarize="true", stream="true")
    *events, done = events_of(answer.text)
    assert [segment["speaker"] for segment in events[1::2]] == ["Speaker 1", "Speaker 2"]
    assert done["text"] == "Speaker 1: Hello there.\nSpeaker 2: How are you?"


async def test_json_with_speakers_is_diarized_json() -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(diarize="true", include="logprobs")
    assert answer.json()["segments"] == SEGMENTS


async def test_segments_and_words_of_verbose_json_have_speakers() -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, _):
        answer = await client.transcribe(
            timestamp_granularities="word", response_format="verbose_json", diarize="true"
        )
    body = answer.json()
    assert body["text"] == TEXT
    assert [segment["speaker"] for segment in body["segments"]] == ["A", "B"]
    assert [word["speaker"] for word in body["words"]] == ["A", "A", "B", "B", "B"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (DIARIZED, (0, 0)),
        (DIARIZED | {"num_speakers": "2"}, (0, 2)),
        ({"diarize": "true", "max_speakers": "60", "num_speakers": "0"}, (60, 0)),
    ],
)
async def test_what_is_known_of_the_number_of_speakers_reaches_the_diarizer(
    fields: dict[str, Any], expected: tuple[int, int]
) -> None:
    diarizer = FakeDiarizer(TURNS)
    async with serving(diarizer=diarizer) as (client, _):
        await client.transcribe(**fields)
    config = diarizer.opens[0].config
    assert (config.max_speakers, config.num_speakers) == expected


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"num_speakers": "two"}, "num_speakers", "'two' is not a whole number from 0 to 60"),
        ({"max_speakers": "61"}, "max_speakers", "'61' is not a whole number from 0 to 60"),
        ({"max_speakers": "-1"}, "max_speakers", "'-1' is not a whole number from 0 to 60"),
        ({"diarize": "maybe"}, "diarize", "neither true nor false"),
        (
            {"num_speakers": "3", "max_speakers": "2"},
            "num_speakers",
            "there are 3 speakers, and no more than 2",
        ),
        (
            known(("Ann", wav(2)), ("Bob", wav(2))) | {"num_speakers": "1"},
            "known_speaker_names",
            "2 of 1 speakers cannot be known",
        ),
    ],
)
async def test_numbers_that_cannot_be_are_refused(
    fields: dict[str, Any], param: str, reason: str
) -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, mesh):
        answer = await client.transcribe(**DIARIZED | fields)
        assert answer.status_code == 400
        assert refusal(answer)["param"] == param
        assert reason in refusal(answer)["message"]
        assert not mesh.asr.streams


async def test_nobody_is_told_apart_unless_that_is_asked_for() -> None:
    diarizer = FakeDiarizer(TURNS)
    async with serving(diarizer=diarizer) as (client, _):
        answer = await client.transcribe(
            model="gpt-4o-transcribe-diarize", response_format="verbose_json"
        )
    assert len(answer.json()["segments"]) == 2
    assert not diarizer.opens


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_without_a_diarizer_everybody_is_one_speaker_whom_nobody_recognised(
    stream: str,
) -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(**known(("Ann", wav(2))), stream=stream)
    if stream == "true":
        *events, done = events_of(answer.text)
        found, text = events[1::2], done["text"]
    else:
        found, text = answer.json()["segments"], answer.json()["text"]
    assert [segment["speaker"] for segment in found] == ["A", "A"]
    assert text == f"A: {TEXT}"


async def test_a_diarizer_that_dies_costs_speakers_and_no_words() -> None:
    diarizer = FakeDiarizer(TURNS)
    diarizer.faults.always[RATE] = DeviceError("it died")
    async with serving(diarizer=diarizer, diarizer_patience_s=0.2, open_timeout_s=0.5) as (
        client,
        _,
    ):
        answer = await client.transcribe(**DIARIZED)
    assert answer.json()["text"] == f"A: {TEXT}"


async def test_speakers_who_are_known_are_called_by_their_names() -> None:
    diarizer = FakeDiarizer([(2, 0, 2 * RATE), (3, 9 * RATE // 4, 5 * RATE)])
    async with serving(diarizer=diarizer) as (client, _):
        answer = await client.transcribe(**known(("Ann", wav(2)), ("A", wav(3.5))))
    assert answer.json()["text"] == "A: Hello there.\nB: How are you?"
    assert list(diarizer.opens[0].config.enrolled) == [bytes(4 * RATE), bytes(7 * RATE)]


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"known_speaker_names[]": ["Ann"]}, "names", "1 names of speakers, and 0 references"),
        (known(("", wav(2))), "names", "1 to 100 characters"),
        (known(("n" * 101, wav(2))), "names", "1 to 100 characters"),
        (known(*(("Ann", wav(2)),) * 5), "names", "no more than 4"),
        (known(("Ann", wav(0.9))), "references", "shorter than 1 s"),
        (
            known(("Ann", wav(2)), ("Bob", wav(30.1))),
            "references",
            "reference 2 is longer than 30 s",
        ),
        (known(("Ann", b"")), "references", "cannot be decoded"),
        (known(("Ann", b"this is no audio" * 100)), "references", "cannot be decoded"),
        (known(("Ann", wav(0))), "references", "cannot be decoded"),
        *(
            (
                {"known_speaker_names": "Ann", "known_speaker_references": reference},
                "references",
                reason,
            )
            for reference, reason in [
                ("https://example.org/ann.wav", "no data URL"),
                ("data:audio/wav;base64", "no data URL"),
                ("data:audio/wav,ab", "no data URL"),
                ("data:audio/wav;base64,a", "Base64"),
                ("data:audio/wav;base64,ä", "Base64"),
            ]
        ),
    ],
)
async def test_a_speaker_who_cannot_be_known_is_refused(
    fields: dict[str, Any], param: str, reason: str
) -> None:
    async with serving(diarizer=FakeDiarizer(TURNS)) as (client, mesh):
        answer = await client.transcribe(**DIARIZED | fields)
        assert answer.status_code == 400
        error = refusal(answer)
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
        assert error["param"] == f"known_speaker_{param}"
        assert reason in error["message"]
        assert not mesh.asr.streams


@pytest.mark.parametrize("head", ["data:audio/webm;base64", "DATA:;base64", "data:x/y;z=1;base64"])
async def test_a_reference_may_be_called_anything_and_have_lines(head: str) -> None:
    diarizer = FakeDiarizer([(1, 0, 5 * RATE)])
    reference = f"{head},\r\n{base64.encodebytes(wav(2)).decode()}"
    fields = DIARIZED | {
        "known_speaker_names": '["Ann"]',
        "known_speaker_references": reference,
    }
    async with serving(diarizer=diarizer) as (client, _):
        answer = await client.transcribe(**fields)
    assert answer.json()["text"] == f"Ann: {TEXT}"


@pytest.mark.parametrize(
    ("fields", "param"), [(DIARIZED, "response_format"), ({"diarize": "true"}, "diarize")]
)
async def test_translations_do_not_say_who_speaks(fields: dict[str, Any], param: str) -> None:
    async with serving(asr=FakeAsr(WORDS, tasks=BOTH)) as (client, _):
        answer = await client.transcribe(path="/v1/audio/translations", **fields)
    assert answer.status_code == 400
    assert refusal(answer)["param"] == param


async def test_words_of_a_recording_wait_for_a_diarizer_that_is_slow() -> None:
    diarizer = FakeDiarizer(TURNS)
    diarizer.faults.gate.clear()
    async with serving(diarizer=diarizer, speaker_wait_s=0.05) as (client, mesh):
        asked = asyncio.create_task(client.transcribe(**DIARIZED), name="test.asked")
        await until(lambda: bool(mesh.asr.streams) and mesh.asr.streams[0].finished)
        await asyncio.sleep(0.2)  # longer than a live word waits
        diarizer.faults.gate.set()
        answer = await asked
    assert answer.json()["segments"] == SEGMENTS


def test_labels_are_letters_in_order_of_appearance() -> None:
    labels = Labels()
    assert [labels.of(speaker) for speaker in (3, 1, 3, 2)] == ["A", "B", "A", "C"]
    many = Labels(["Ann", "C", "AB"])
    called = [many.of(speaker) for speaker in range(1, 33)]
    assert called[:3] == ["Ann", "C", "AB"]
    assert called[3:6] == ["A", "B", "D"]
    assert called[-5:] == ["Z", "AA", "AC", "AD", "AE"]
    many.forget_names()
    assert many.of(2) == "AF"
    numbered = Labels(["Speaker 1"], numbered=True)
    assert [numbered.of(speaker) for speaker in (3, 1, 2)] == [
        "Speaker 2",
        "Speaker 1",
        "Speaker 3",
    ]


def test_a_turn_is_a_line_however_many_segments_it_has() -> None:
    words = [
        replace(word, speaker=speaker) for word, speaker in zip(WORDS, (4, 4, 4, 4, 2), strict=True)
    ]
    body = diarized_body(Spoken([*words, Word("我", 90000, 95000, speaker=2)], [], "", 5), Labels())
    assert body["text"] == "A: Hello there. How are\nB: you?我"
    assert [segment["speaker"] for segment in body["segments"]] == ["A", "A", "B", "B"]
    assert body["segments"][-1]["end"] == 5.0


async def test_every_word_is_in_a_segment_however_short_the_recording_is() -> None:
    """P2: nothing stays behind with the diarizer."""
    words = words_at(*(tenths / 10 for tenths in range(30)), length_s=0.09)
    diarizer = FakeDiarizer([(1 + at % 3, at * RATE // 2, (at + 1) * RATE // 2) for at in range(6)])
    async with (
        running(FakeVad([(0, 3 * RATE)]), FakeAsr(words), diarizer) as mesh,
        served(mesh.gateway) as port,
        Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client,
    ):
        for tenths in range(1, 31):
            answer = await client.transcribe(wav(tenths / 10), **DIARIZED)
            said = " ".join(segment["text"] for segment in answer.json()["segments"])
            assert said.split() == [word.text.strip() for word in words[:tenths]]
