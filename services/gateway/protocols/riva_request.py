"""What a client of Riva asks for, in the gateway's words.

Without effect are ``max_alternatives``, ``profanity_filter``, ``verbatim_transcripts``,
``enable_automatic_punctuation``, ``custom_configuration``, and of ``endpointing_config`` all but
``stop_history``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ, samples_of_ms
from services.gateway.audio_input import AudioFormat, ContainerFormat, Encoding, RawFormat
from services.gateway.languages import language_code
from services.gateway.session_config import MAX_SPEAKERS, Diarization, Pace, SessionConfig
from voxmesh.foreign.riva import riva_asr_pb2 as pb
from voxmesh.foreign.riva import riva_common_pb2 as common_pb

PROTOCOL = "riva"

_RAW: dict[int, Encoding] = {
    common_pb.LINEAR_PCM: "linear16",
    common_pb.MULAW: "mulaw",
    common_pb.ALAW: "alaw",
}
_CONTAINERS = {common_pb.ENCODING_UNSPECIFIED, common_pb.FLAC, common_pb.OGGOPUS}
_ANY = "multi"
_STOP_MS = 800
"""Silence behind which an utterance is final, if the client does not say."""
_MIN_STOP_MS = 100
_MAX_HOTWORDS = 100
_MAX_HOTWORD_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """What a stream or a recording is, and what is to be said about it."""

    audio_format: AudioFormat
    language_code: str = ""
    """BCP-47, as the client wrote it; empty: the gateway's default, or detect it."""
    model: str = ""
    hotwords: tuple[str, ...] = ()
    with_words: bool = False
    """Whether final results have words."""
    interim_results: bool = False
    stop_samples: int = samples_of_ms(_STOP_MS)
    """Silence behind which an utterance is final."""
    diarization: Diarization | None = None
    """None: who speaks does not matter."""

    def session_config(self, session_id: str, caller: str, pace: Pace) -> SessionConfig:
        """The session that grants it.

        Raises:
            InvalidRequestError: The language is none that is known.

        """
        code = language_code(self.language_code)
        if code is None:
            raise InvalidRequestError(f"unknown language_code {self.language_code!r}")
        return SessionConfig(
            session_id=session_id,
            protocol=PROTOCOL,
            caller=caller,
            language_code=code,
            model=self.model,
            pace=pace,
            hotwords=self.hotwords,
            diarization=self.diarization,
        )


def read_wish(config: pb.RecognitionConfig, *, interim_results: bool = False) -> Wish:
    """Understand a configuration.

    Raises:
        InvalidRequestError: It asks for what is not served.

    """
    if config.enable_separate_recognition_per_channel and config.audio_channel_count > 1:
        raise InvalidRequestError("channels are mixed: they are not recognised one by one")
    stop_ms = config.endpointing_config.stop_history
    apart = diarization(
        config.diarization_config.max_speaker_count,
        wanted=config.diarization_config.enable_speaker_diarization,
    )
    return Wish(
        audio_format=_format(config),
        language_code="" if config.language_code == _ANY else config.language_code,
        model=config.model,
        hotwords=_hotwords(config.speech_contexts),
        with_words=config.enable_word_time_offsets or apart is not None,
        interim_results=interim_results,
        stop_samples=samples_of_ms(max(stop_ms, _MIN_STOP_MS) if stop_ms > 0 else _STOP_MS),
        diarization=apart,
    )


def diarization(max_speakers: int, *, wanted: bool) -> Diarization | None:
    """What is said of the speakers; a number that cannot be met is none."""
    known = 0 < max_speakers <= MAX_SPEAKERS
    return Diarization(max_speakers if known else 0) if wanted else None


def _format(config: pb.RecognitionConfig) -> AudioFormat:
    if config.encoding in _CONTAINERS:
        return ContainerFormat()
    if (encoding := _RAW.get(config.encoding)) is None:
        raise InvalidRequestError(f"unknown encoding {config.encoding}")
    return RawFormat(
        encoding, config.sample_rate_hertz or SAMPLE_RATE_HZ, config.audio_channel_count or 1
    )


def _hotwords(contexts: Iterable[pb.SpeechContext]) -> tuple[str, ...]:
    """The phrases that are to be heard more often, as many as a recogniser takes.

    Those with the highest boost come first; such lists are made for models that take thousands.
    """
    wanted = sorted((c for c in contexts if c.boost >= 0), key=lambda c: c.boost, reverse=True)
    phrases = dict.fromkeys(phrase.strip() for context in wanted for phrase in context.phrases)
    fit = [phrase for phrase in phrases if 0 < len(phrase) <= _MAX_HOTWORD_CHARACTERS]
    return tuple(fit[:_MAX_HOTWORDS])
