"""A transcript as the results of Riva."""

from collections.abc import Iterator, Sequence

from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from services.common.words import Word, text_of
from services.gateway.pools import ModelInfo
from services.gateway.protocols.riva_request import Wish
from services.gateway.segments import segments
from services.gateway.transcript import Transcript
from voxmesh.foreign.riva import riva_asr_pb2 as pb
from voxmesh.foreign.riva import riva_common_pb2 as common_pb

_CHANNEL = 1
_LONG_SAMPLES = samples(20)
"""Who speaks for so long without a pause gets final results at ends of sentences."""


class Results:
    """A live transcript as messages: what one client has been sent of it.

    Every word is in exactly one final result. A result is final when the speaker has paused for as
    long as the client says, and when all has been said.
    """

    def __init__(self, transcript: Transcript, wish: Wish, request_id: str = "") -> None:
        self._transcript = transcript
        self._wish = wish
        self._request_id = request_id
        self._first = 0
        """Index of the first word that is in no final result yet."""
        self._looked = 0
        """Index of the first word before which no pause has been looked for."""
        self._shown = ""

    @property
    def waiting(self) -> bool:
        """Whether words become final by the mere passing of silence."""
        return self._first < len(self._transcript.words)

    def news(self, *, all_final: bool = False) -> list[pb.StreamingRecognizeResponse]:
        """What has changed since the last call, to be sent in this order.

        Args:
            all_final: Whether every word that is certain is to be in a final result now.

        """
        responses = [self._final(end) for end in self._ends()]
        if all_final and self.waiting:
            responses.append(self._final(len(self._transcript.words)))
        if self._wish.interim_results:
            responses += self._interim()
        return responses

    def _ends(self) -> Iterator[int]:
        """Indices of the words behind which a final result ends."""
        words = self._transcript.words
        for index in range(max(self._looked, self._first + 1), len(words)):
            if words[index].first_sample - words[index - 1].end_sample >= self._wish.stop_samples:
                yield index
        self._looked = len(words)
        if not self.waiting:
            return
        if self._quiet_samples() >= self._wish.stop_samples:
            yield len(words)
        elif words[-1].end_sample - words[self._first].first_sample > _LONG_SAMPLES:
            first = self._first
            for part in list(segments(words[first:]))[:-1]:
                yield first + part.end_word

    def _quiet_samples(self) -> int:
        """How long nothing is said behind the committed words, as far as it is known."""
        transcript = self._transcript
        if not transcript.tail_known:
            return 0
        end = transcript.tail[0].first_sample if transcript.tail else transcript.decoded_sample
        return end - transcript.words[-1].end_sample

    def _final(self, end: int) -> pb.StreamingRecognizeResponse:
        words = self._transcript.words[self._first : end]
        self._first = end
        self._shown = ""
        result = pb.StreamingRecognitionResult(
            alternatives=[_alternative(words, self._transcript, self._wish)], is_final=True
        )
        return self._response(result)

    def _interim(self) -> Iterator[pb.StreamingRecognizeResponse]:
        certain, tail = self._transcript.words[self._first :], self._transcript.tail
        text = text_of((*certain, *tail)).strip()
        if not text or text == self._shown or not self._transcript.tail_known:
            return
        self._shown = text
        alternative = pb.SpeechRecognitionAlternative(
            transcript=text, language_code=_language_codes(self._transcript, self._wish)
        )
        stability = len(certain) / (len(certain) + len(tail))
        yield self._response(
            pb.StreamingRecognitionResult(alternatives=[alternative], stability=stability)
        )

    def _response(self, result: pb.StreamingRecognitionResult) -> pb.StreamingRecognizeResponse:
        result.channel_tag = _CHANNEL
        result.audio_processed = seconds(self._transcript.decoded_sample)
        return pb.StreamingRecognizeResponse(results=[result], id=_id(self._request_id))


def recording(transcript: Transcript, wish: Wish, request_id: str = "") -> pb.RecognizeResponse:
    """A finished transcript as the answer to ``Recognize``."""
    results = []
    for segment in segments(transcript.words):
        words = transcript.words[segment.first_word : segment.end_word]
        results.append(
            pb.SpeechRecognitionResult(
                alternatives=[_alternative(words, transcript, wish)],
                channel_tag=_CHANNEL,
                audio_processed=seconds(words[-1].end_sample),
            )
        )
    return pb.RecognizeResponse(results=results, id=_id(request_id))


def catalogue(
    models: Sequence[ModelInfo], *, only: str = ""
) -> pb.RivaSpeechRecognitionConfigResponse:
    """What can be asked for, by the name that is asked with; empty: everything."""
    response = pb.RivaSpeechRecognitionConfigResponse()
    for info in models:
        if only not in {"", info.name}:
            continue
        for use in ("online", "offline"):
            config = response.model_config.add(model_name=info.name)
            config.parameters["type"] = use
            config.parameters["language_code"] = ",".join(info.language_codes)
    return response


def _alternative(
    words: Sequence[Word], transcript: Transcript, wish: Wish
) -> pb.SpeechRecognitionAlternative:
    return pb.SpeechRecognitionAlternative(
        # Clients put the results together as they come.
        transcript=text_of(words).strip() + " ",
        confidence=sum(word.probability for word in words) / len(words),
        words=[_word(word) for word in words] if wish.with_words else [],
        language_code=_language_codes(transcript, wish),
    )


def _word(word: Word) -> pb.WordInfo:
    return pb.WordInfo(
        start_time=_ms(word.first_sample),
        end_time=_ms(word.end_sample),
        word=word.text.strip(),
        confidence=word.probability,
        speaker_tag=word.speaker,
    )


def _ms(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE_HZ


def _language_codes(transcript: Transcript, wish: Wish) -> list[str]:
    known = wish.language_code or transcript.language_code
    return [known] if known else []


def _id(request_id: str) -> common_pb.RequestId | None:
    return common_pb.RequestId(value=request_id) if request_id else None
