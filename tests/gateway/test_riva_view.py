"""What a client of Riva is told about a transcript."""

from collections.abc import Iterable

import pytest

from services.common.errors import InvalidRequestError
from services.common.timeline import samples
from services.common.words import Word
from services.gateway.audio_input import ContainerFormat, RawFormat
from services.gateway.pools import ModelInfo
from services.gateway.protocols.riva_request import Wish, read_wish
from services.gateway.protocols.riva_view import Results, catalogue, recording
from services.gateway.session_config import Diarization, Pace, Task
from services.gateway.transcript import Transcript
from voxmesh.foreign.riva import riva_asr_pb2 as pb
from voxmesh.foreign.riva import riva_common_pb2 as common_pb

RAW = RawFormat("linear16", 16_000)


def word(text: str, start_s: float, end_s: float, probability: float = 1.0) -> Word:
    return Word(f" {text}", samples(start_s), samples(end_s), probability)


def told(responses: Iterable[pb.StreamingRecognizeResponse]) -> list[tuple[str, bool]]:
    """Text of every result, and whether it is final."""
    shown = []
    for response in responses:
        [result] = response.results
        [alternative] = result.alternatives
        shown.append((alternative.transcript, result.is_final))
    return shown


def test_an_utterance_is_final_when_the_pause_behind_it_is_long_enough() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, interim_results=True, stop_samples=samples(0.5)))
    assert told(results.news()) == []
    transcript.replace_tail([word("To", 0, 0.2), word("bee", 0.3, 0.5)])
    assert told(results.news()) == [("To bee", False)]
    transcript.commit([word("To", 0, 0.2)])
    transcript.replace_tail([word("be", 0.3, 0.5)])
    [interim] = results.news()
    assert interim.results[0].alternatives[0].transcript == "To be"
    assert interim.results[0].stability == 0.5
    assert told(results.news()) == []
    transcript.commit([word("be", 0.3, 0.5)])
    transcript.decoded_sample = samples(2)
    assert told(results.news()) == []  # What follows may be told with the next message.
    transcript.replace_tail([])
    transcript.decoded_sample = samples(0.9)
    assert told(results.news()) == []
    assert results.waiting
    transcript.decoded_sample = samples(1.0)
    assert told(results.news()) == [("To be ", True)]
    assert not results.waiting
    assert told(results.news(all_final=True)) == []


def test_a_pause_between_words_ends_an_utterance_however_late_they_come() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, interim_results=True, stop_samples=samples(0.8)))
    transcript.commit(
        [word("one", 0, 0.4), word("two", 1.1, 1.4), word("three", 2.2, 2.4), word("four", 9, 9.3)]
    )
    transcript.replace_tail([word("five", 9.4, 9.6)])
    assert told(results.news()) == [("one two ", True), ("three ", True), ("four five", False)]


def test_words_before_a_tail_that_is_far_away_are_final() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, stop_samples=samples(0.8)))
    transcript.commit([word("one", 0, 0.4)])
    transcript.replace_tail([word("two", 3.0, 3.2)])
    assert told(results.news()) == [("one ", True)]


def test_without_interim_results_nothing_is_told_that_may_change() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW))
    transcript.commit([word("one", 0, 0.4)])
    transcript.replace_tail([word("two", 0.5, 0.7)])
    assert told(results.news()) == []
    transcript.finish()
    assert told(results.news(all_final=True)) == [("one ", True)]


def test_who_never_pauses_gets_results_at_ends_of_sentences() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW))
    texts = [f"w{i}." if i % 10 == 9 else f"W{i}" for i in range(50)]
    transcript.commit([word(text, i / 2, i / 2 + 0.5) for i, text in enumerate(texts)])
    finals = told(results.news())
    assert [text.split()[-1] for text, _ in finals] == ["w9.", "w19.", "w29.", "w39."]
    transcript.finish()
    finals += told(results.news(all_final=True))
    assert "".join(text for text, _ in finals).split() == texts


def test_a_commit_does_not_make_the_tail_flicker() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, interim_results=True))
    transcript.replace_tail([word("one", 0, 0.4), word("two", 0.5, 0.7)])
    assert told(results.news()) == [("one two", False)]
    transcript.commit([word("one", 0, 0.4)])
    assert told(results.news()) == []
    transcript.replace_tail([word("two", 0.5, 0.7)])
    assert told(results.news()) == []


def test_what_is_to_be_final_now_is_told_before_what_may_change() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, interim_results=True))
    transcript.commit([word("one", 0, 0.4)])
    transcript.replace_tail([word("two", 0.5, 0.7)])
    assert told(results.news(all_final=True)) == [("one ", True), ("two", False)]


def test_words_have_times_in_milliseconds_and_nobody_is_said_to_be_speaking() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, with_words=True, language_code="en-US"), "mine")
    transcript.commit([word("To", 1.0004, 1.2, 0.5), word("be.", 1.3, 1.5, 1.0)])
    transcript.finish()
    [response] = results.news(all_final=True)
    assert response.id.value == "mine"
    [result] = response.results
    assert (result.channel_tag, result.stability) == (1, 0)
    [alternative] = result.alternatives
    assert alternative.confidence == 0.75
    assert alternative.language_code == ["en-US"]
    assert [(w.word, w.start_time, w.end_time, w.speaker_tag) for w in alternative.words] == [
        ("To", 1000, 1200, 0),
        ("be.", 1300, 1500, 0),
    ]


@pytest.mark.parametrize(
    ("count", "most"), [(0, 0), (1, 1), (60, 60), (61, 0), (-1, 0), (2**31 - 1, 0)]
)
def test_no_more_is_concluded_from_a_number_of_speakers_than_there_can_be(
    count: int, most: int
) -> None:
    config = pb.RecognitionConfig()
    config.diarization_config.max_speaker_count = count
    assert read_wish(config).diarization is None
    config.diarization_config.enable_speaker_diarization = True
    wish = read_wish(config)
    assert wish.diarization == Diarization(most)
    assert wish.with_words


def test_the_language_that_is_detected_is_told_once_it_is_known() -> None:
    transcript = Transcript()
    results = Results(transcript, Wish(RAW, interim_results=True))
    transcript.replace_tail([word("Zwei", 0, 0.4)])
    [before] = results.news()
    transcript.detect("de", 0.9)
    transcript.replace_tail([word("Zwei", 0, 0.4), word("Tore", 0.5, 0.7)])
    [after] = results.news()
    codes = [r.results[0].alternatives[0].language_code for r in (before, after)]
    assert codes == [[], ["de"]]


def test_a_recording_is_told_sentence_by_sentence() -> None:
    transcript = Transcript()
    transcript.commit([word("To", 0, 0.2), word("be.", 0.3, 0.5), word("Or", 0.6, 0.8)])
    transcript.finish()
    response = recording(transcript, Wish(RAW), "mine")
    assert response.id.value == "mine"
    texts = [result.alternatives[0].transcript for result in response.results]
    assert texts == ["To be. ", "Or "]
    assert [result.audio_processed for result in response.results] == pytest.approx([0.5, 0.8])
    assert not response.results[0].alternatives[0].words


def test_every_model_is_there_for_streams_and_for_recordings() -> None:
    infos = [ModelInfo(name, "fake", ("en", "de"), (Task.TRANSCRIBE,)) for name in ("a", "b")]
    configs = [(c.model_name, dict(c.parameters)) for c in catalogue(infos).model_config]
    assert configs == [
        (name, {"type": use, "language_code": "en,de"})
        for name in ("a", "b")
        for use in ("online", "offline")
    ]
    assert [c.model_name for c in catalogue(infos, only="b").model_config] == ["b", "b"]


@pytest.mark.parametrize(
    ("config", "audio_format"),
    [
        (pb.RecognitionConfig(), ContainerFormat()),
        (pb.RecognitionConfig(encoding=common_pb.FLAC), ContainerFormat()),
        (pb.RecognitionConfig(encoding=common_pb.OGGOPUS), ContainerFormat()),
        (pb.RecognitionConfig(encoding=common_pb.LINEAR_PCM), RawFormat("linear16", 16_000)),
        (
            pb.RecognitionConfig(
                encoding=common_pb.LINEAR_PCM, sample_rate_hertz=48_000, audio_channel_count=2
            ),
            RawFormat("linear16", 48_000, 2),
        ),
        (
            pb.RecognitionConfig(encoding=common_pb.MULAW, sample_rate_hertz=8000),
            RawFormat("mulaw", 8000),
        ),
        (
            pb.RecognitionConfig(encoding=common_pb.ALAW, sample_rate_hertz=8000),
            RawFormat("alaw", 8000),
        ),
    ],
)
def test_the_audio_is_what_the_configuration_says(
    config: pb.RecognitionConfig, audio_format: object
) -> None:
    assert read_wish(config).audio_format == audio_format


@pytest.mark.parametrize(
    ("written", "code"),
    [("", ""), ("multi", ""), ("en-US", "en"), ("de", "de"), ("zh-CN", "zh"), ("nb-NO", "no")],
)
def test_a_language_is_understood_as_riva_writes_it(written: str, code: str) -> None:
    wish = read_wish(pb.RecognitionConfig(language_code=written))
    assert wish.session_config("id", "", Pace.LIVE).language_code == code


@pytest.mark.parametrize(("stop_ms", "stop_s"), [(0, 0.8), (-1, 0.8), (320, 0.32), (5, 0.1)])
def test_the_pause_is_the_clients_to_choose(stop_ms: int, stop_s: float) -> None:
    endpointing = pb.EndpointingConfig(stop_history=stop_ms)
    wish = read_wish(pb.RecognitionConfig(endpointing_config=endpointing))
    assert wish.stop_samples == samples(stop_s)


def test_the_phrases_with_the_highest_boost_are_listened_for() -> None:
    contexts = [
        pb.SpeechContext(phrases=["never"], boost=-4),
        pb.SpeechContext(phrases=[f"p{i}" for i in range(150)], boost=1),
        pb.SpeechContext(phrases=["Voxmesh", " Kubernetes ", "", "x" * 101, "p7"], boost=20),
    ]
    hotwords = read_wish(pb.RecognitionConfig(speech_contexts=contexts)).hotwords
    assert hotwords[:5] == ("Voxmesh", "Kubernetes", "p7", "p0", "p1")
    assert len(hotwords) == len(set(hotwords)) == 100


@pytest.mark.parametrize(
    "config",
    [
        pb.RecognitionConfig(encoding=77),  # type: ignore[arg-type]  # on purpose
        pb.RecognitionConfig(encoding=common_pb.LINEAR_PCM, sample_rate_hertz=1),
        pb.RecognitionConfig(encoding=common_pb.LINEAR_PCM, audio_channel_count=9),
        pb.RecognitionConfig(enable_separate_recognition_per_channel=True, audio_channel_count=2),
    ],
)
def test_what_is_not_served_is_refused(config: pb.RecognitionConfig) -> None:
    with pytest.raises(InvalidRequestError):
        read_wish(config)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="tlh"):
        read_wish(pb.RecognitionConfig(language_code="tlh")).session_config("id", "", Pace.FILE)
