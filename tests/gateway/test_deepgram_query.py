"""How the parameters of ``/v1/listen`` are understood."""

from dataclasses import asdict
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from services.gateway.decoder import ContainerFormat, PacketFormat, RawFormat
from services.gateway.protocols.deepgram_query import Wish, read_wish
from services.gateway.protocols.deepgram_words import Replacement
from services.gateway.protocols.http_errors import RefusedError

MS = 16
"""Samples in a millisecond."""


def wish(query: str, *, live: bool = True, language: str = "") -> Wish:
    return read_wish(QueryParams(query), live=live, models=["base.en"], language=language)


@pytest.mark.parametrize(
    ("query", "understood"),
    [
        ("", {"model": "", "language_code": "en", "interim_results": False, "vad_events": False}),
        ("", {"punctuated": False, "endpointing_samples": 10 * MS, "utterance_end_samples": None}),
        *[
            (f"model={name}", {"model": ""})
            for name in (
                *("nova-3", "nova-2-phonecall", "enhanced", "base", "whisper-large"),
                *("None", "none", "", "2-general"),
            )
        ],
        ("model=base.en", {"model": "base.en"}),
        ("model=large-v3", {"model": "large-v3"}),
        ("language=de-DE", {"language_code": "de"}),
        ("language=multi", {"language_code": "", "detect_language": False}),
        ("language=None", {"language_code": "en"}),
        ("interim_results=true", {"interim_results": True}),
        ("interim_results=True&vad_events=TRUE", {"interim_results": True, "vad_events": True}),
        ("punctuate=1", {"punctuated": True}),
        (
            "punctuate=false&smart_format=false&diarize=false&diarize_model=None",
            {"punctuated": False, "diarize": False},
        ),
        ("diarize=true", {"punctuated": True, "diarize": True}),
        ("smart_format=true", {"punctuated": True, "paragraphs": True}),
        ("diarize_model=latest", {"punctuated": True, "diarize": True}),
        ("diarize_model=false&diarize_version=3", {"punctuated": False, "diarize": False}),
        ("endpointing=false", {"endpointing_samples": None}),
        ("endpointing=0", {"endpointing_samples": None}),
        ("endpointing=True", {"endpointing_samples": 10 * MS}),
        ("endpointing=300", {"endpointing_samples": 300 * MS}),
        ("utterance_end_ms=1000", {"utterance_end_samples": 1000 * MS}),
        ("utterance_end_ms=None", {"utterance_end_samples": None}),
        ("keyterm=one+two&keyterm=three", {"hotwords": ("one two", "three")}),
        ("keywords=a:5&keywords=b&keywords=c:-1.5", {"hotwords": ("a", "b")}),
        ("extra=k:v&extra=x:y:z", {"extra": {"k": "v", "x": "y:z"}}),
        ("detect_language=true", {"detect_language": False, "language_code": "en"}),
        ("redact=false&callback=", {"model": ""}),
        ("encoding=linear16&sample_rate=8000", {"audio_format": RawFormat("linear16", 8000)}),
        ("encoding=linear32&sample_rate=48000", {"audio_format": RawFormat("float32", 48000)}),
        ("encoding=MULAW&sample_rate=8000.0", {"audio_format": RawFormat("mulaw", 8000)}),
        ("encoding=opus&sample_rate=16000", {"audio_format": PacketFormat("opus", 48000)}),
        ("encoding=opus", {"audio_format": PacketFormat("opus", 48000)}),
        ("encoding=speex&sample_rate=16000", {"audio_format": PacketFormat("speex", 16000)}),
        ("encoding=g729&sample_rate=8000", {"audio_format": PacketFormat("g729", 8000)}),
        ("encoding=amr-wb", {"audio_format": PacketFormat("amr-wb", 16000)}),
        ("encoding=ogg-opus&sample_rate=48000", {"audio_format": ContainerFormat("ogg-opus")}),
        ("sample_rate=48000&channels=2&multichannel=true", {"lanes": 1}),
        (
            "encoding=alaw&sample_rate=8000&channels=2",
            {"audio_format": RawFormat("alaw", 8000, 2), "lanes": 1},
        ),
        ("encoding=alaw&sample_rate=8000&channels=2&multichannel=true", {"lanes": 2}),
        (
            "no_delay=x&tier=y&foo=bar&version=latest&diarize_version=3",
            {"model": ""},
        ),
        ("tag=a&tag=b&mip_opt_out=true&dictation=maybe", {"model": ""}),
        ("search=x+y&search=z&search=", {"queries": ("x y", "z")}),
        (
            "replace=Ape+X,:b:c&replace=a:&replace=None",
            {"replacements": [Replacement(("ape", "x"), "b:c"), Replacement(("a",), "")]},
        ),
    ],
)
def test_a_live_query_is_understood(query: str, understood: dict[str, Any]) -> None:
    asked = wish(query)
    read = asdict(asked) | {
        "audio_format": asked.audio_format,
        "replacements": list(asked.replacements),
    }
    assert {name: read[name] for name in understood} == understood


@pytest.mark.parametrize(
    ("query", "understood"),
    [
        ("detect_language=true", {"detect_language": True, "language_code": ""}),
        ("detect_language=en&detect_language=es", {"detect_language": True}),
        ("detect_language=false", {"detect_language": False, "language_code": "en"}),
        ("utterances=true&utt_split=1.5", {"utterances": True, "utt_split_samples": 1500 * MS}),
        ("paragraphs=true", {"paragraphs": True, "punctuated": False}),
        ("diarize_model=v2", {"punctuated": True, "diarize": True}),
    ],
)
def test_a_query_of_a_recording_is_understood(query: str, understood: dict[str, Any]) -> None:
    read = asdict(wish(query, live=False))
    assert {name: read[name] for name in understood} == understood


@pytest.mark.parametrize("codec", ["opus", "speex", "g729", "amr-nb", "amr-wb"])
def test_a_recording_comes_in_a_container_and_not_in_packets(codec: str) -> None:
    assert wish(f"encoding={codec}", live=False).audio_format == ContainerFormat(codec)


def test_what_a_recording_does_not_get_is_known() -> None:
    read = wish("summarize=v2&sentiment=true&topics=false&multichannel=true", live=False)
    assert [name for name, _ in read.warnings] == ["sentiment", "summarize"]


def test_the_language_of_the_gateway_is_meant_where_none_is_named() -> None:
    assert wish("", language="de").language_code == "de"
    assert wish("language=fr", language="de").language_code == "fr"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("encoding=banana", "encoding"),
        ("encoding=g729&sample_rate=16000", "sample_rate"),
        ("encoding=speex", "sample_rate"),
        ("encoding=linear16", "sample_rate"),
        ("encoding=linear16&sample_rate=fast", "sample_rate"),
        ("encoding=linear16&sample_rate=16000.5", "sample_rate"),
        ("encoding=linear16&sample_rate=1", "sample_rate"),
        ("encoding=linear16&sample_rate=16000&channels=100", "sample_rate"),
        ("encoding=linear16&sample_rate=16000&channels=nan", "channels"),
        ("interim_results=maybe", "interim_results"),
        ("endpointing=soon", "endpointing"),
        ("endpointing=-5", "endpointing"),
        ("utterance_end_ms=inf", "utterance_end_ms"),
        ("language=klingon", "language"),
        ("keywords=a:much", "keywords"),
        ("replace=a", "replace"),
        ("replace=:b", "replace"),
        ("replace=...:b", "replace"),
        ("&".join(f"replace={i}:x" for i in range(201)), "replace"),
        ("&".join(f"search={i}" for i in range(51)), "search"),
        ("redact=pci", "redact"),
        ("callback=https://example.org", "callback"),
        ("diarize_model=v2", "diarize_model"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_its_name(query: str, param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        wish(query)
    assert refused.value.param == param
    assert refused.value.code_name == "INVALID_QUERY_PARAMETER"
