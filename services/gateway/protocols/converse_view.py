"""A transcript as the messages of ``Converse``."""

from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration

from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import text_of
from services.gateway.transcript import Transcript
from voxmesh.gateway.v1 import gateway_pb2 as pb


class Captions:
    """A transcript as messages: what one client has been sent of it."""

    def __init__(
        self, transcript: Transcript, start: pb.Resume, *, names: Mapping[int, str]
    ) -> None:
        """Create the view of a client.

        Args:
            transcript: What it is shown.
            start: How much of it the client has from an earlier connection.
            names: What speakers are called, by their numbers.

        """
        self._transcript = transcript
        self._num_words = start.num_words
        self._num_pieces = dict(start.num_pieces)
        self._translated_tails: dict[str, str] = {}
        self._num_notices = 0
        self._seq = 0
        self._tail = ""
        self._language = ("", 0.0)
        self._lag = (0, 0)
        self._names = names

    def news(self) -> list[pb.ConverseResponse]:
        """What has changed since the last call, to be sent in this order."""
        transcript = self._transcript
        responses = []
        for notice in transcript.notices[self._num_notices :]:
            self._num_notices += 1
            told = pb.Notice(
                stage=notice.stage,
                code=notice.code,
                message=notice.message,
                retryable=notice.retryable,
                target_language_code=notice.target,
            )
            responses.append(pb.ConverseResponse(notice=told))
        language = (transcript.language_code, transcript.language_probability)
        if language != self._language:
            self._language = language
            detected = pb.LanguageDetected(language_code=language[0], probability=language[1])
            responses.append(pb.ConverseResponse(language=detected))
        words = transcript.words[self._num_words :]
        tail = text_of(transcript.tail)
        if words or tail != self._tail:
            first_word = self._num_words
            self._num_words += len(words)
            self._tail = tail
            self._seq += 1
            captions = pb.Captions(
                seq=self._seq,
                first_word=first_word,
                words=[
                    pb.Word(
                        text=word.text,
                        start_offset=offset(word.first_sample),
                        end_offset=offset(word.end_sample),
                        probability=word.probability,
                        speaker=word.speaker,
                        speaker_name=self._names.get(word.speaker, ""),
                        overlapped=word.overlapped,
                    )
                    for word in words
                ],
                tail=tail,
            )
            responses.append(pb.ConverseResponse(captions=captions))
        return [*responses, *self._translated()]

    def _translated(self) -> Iterator[pb.ConverseResponse]:
        for target, translation in self._transcript.translations.items():
            first_piece = self._num_pieces.get(target, 0)
            pieces = translation.pieces[first_piece:]
            tail = translation.tail
            if not pieces and tail == self._translated_tails.get(target, ""):
                continue
            self._num_pieces[target] = first_piece + len(pieces)
            self._translated_tails[target] = tail
            translated = pb.Translated(
                language_code=target,
                first_piece=first_piece,
                pieces=[
                    pb.TranslatedPiece(
                        text=piece.text,
                        start_offset=offset(piece.first_sample),
                        end_offset=offset(piece.end_sample),
                    )
                    for piece in pieces
                ],
                tail=tail,
            )
            yield pb.ConverseResponse(translated=translated)

    def lag(self) -> list[pb.ConverseResponse]:
        """How far behind the transcript is, if that has changed."""
        transcript = self._transcript
        undecoded = max(0, transcript.received_sample - transcript.decoded_sample)
        uncommitted = max(0, transcript.decoded_sample - transcript.committed_sample)
        if (undecoded, uncommitted) == self._lag:
            return []
        self._lag = (undecoded, uncommitted)
        lag = pb.Lag(undecoded=offset(undecoded), uncommitted=offset(uncommitted))
        return [pb.ConverseResponse(lag=lag)]


def offset(sample: int) -> Duration:
    """A position as time from the start of the session."""
    whole, rest = divmod(sample, SAMPLE_RATE_HZ)
    return Duration(seconds=whole, nanos=rest * 1_000_000_000 // SAMPLE_RATE_HZ)
