"""Speech of speakers who are known by name -> what a session compares voices with."""

from services.common.audio import BYTES_PER_SAMPLE
from services.common.errors import InvalidRequestError, StreamTooLongError
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.decoder import ContainerFormat, open_decoder
from services.gateway.protocols.openai_form import KnownSpeaker, Wish, refused_reference
from services.gateway.session_config import Diarization

_MIN_S = 1
_MAX_S = 30


async def diarization_of(wish: Wish) -> Diarization | None:
    """What is known of the speakers; None if they are not to be told apart.

    Raises:
        RefusedError: What is to be a speaker's speech is none, or too short or too long.

    """
    if not wish.diarized:
        return None
    speech = [await _speech(*numbered) for numbered in enumerate(wish.known_speakers, 1)]
    return Diarization(wish.max_speakers, wish.num_speakers, tuple(speech))


async def _speech(number: int, known: KnownSpeaker) -> bytes:
    """All of a reference, s16le 16 kHz mono."""
    audio_format = ContainerFormat(known.mime_type)
    try:
        async with open_decoder(audio_format, max_duration_s=_MAX_S) as decoder:
            await decoder.write(known.file)
            decoder.close()
            pcm = b"".join([block async for block in decoder.blocks()])
    except StreamTooLongError:
        raise refused_reference(number, f"is longer than {_MAX_S} s") from None
    except InvalidRequestError as error:
        raise refused_reference(number, f"cannot be decoded: {error}") from error
    if len(pcm) < _MIN_S * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE:
        raise refused_reference(number, f"is shorter than {_MIN_S} s")
    return pcm
