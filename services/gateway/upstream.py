"""The streams behind the gateway: what differs from one stage to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc.aio

from services.common.telemetry import trace_metadata
from services.common.words import Word, words_from_proto, words_to_proto
from services.gateway.route import End, FlushMark, Gap, Heard, Sound
from services.gateway.session_config import Pace, Policy, SessionConfig, Task
from services.gateway.source_text import Spoken, Text
from services.gateway.speakers import Speakers, Turn
from services.gateway.speech_map import SpeechMap
from services.gateway.transcript import Scores, Transcript
from services.gateway.translation import TranslationPiece
from voxmesh.asr.v1 import asr_pb2, asr_pb2_grpc
from voxmesh.common.v1 import audio_pb2, stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2, diarizer_pb2_grpc
from voxmesh.translator.v1 import translator_pb2, translator_pb2_grpc
from voxmesh.vad.v1 import vad_pb2, vad_pb2_grpc

TASKS = {
    Task.TRANSCRIBE: asr_pb2.TASK_TRANSCRIBE,
    Task.TRANSLATE: asr_pb2.TASK_TRANSLATE,
}
_POLICIES = {
    None: asr_pb2.POLICY_UNSPECIFIED,
    Policy.LOCAL_AGREEMENT: asr_pb2.POLICY_LOCAL_AGREEMENT,
    Policy.ALIGN_ATT: asr_pb2.POLICY_ALIGN_ATT,
    Policy.EITHER: asr_pb2.POLICY_EITHER,
}
_PACES = {Pace.LIVE: asr_pb2.PACE_LIVE, Pace.FILE: asr_pb2.PACE_FILE}
_DIARIZER_PACES = {Pace.LIVE: diarizer_pb2.PACE_LIVE, Pace.FILE: diarizer_pb2.PACE_FILE}
_FILE_LATENCY_S = 4
"""Nobody waits for the speakers of a recording."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The stage learnt something, and the session knows it now."""

    through_sample: int | None = None
    """Position through which the input has been worked on; None: the answer does not say."""
    checkpoint: stage_pb2.Checkpoint | None = None
    """Where a successor would go on."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything before a mark is decided."""

    sample: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The replica is about to stop."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing that was said remains unsaid."""


StageEvent: TypeAlias = Opened | Answer | Flushed | GoAway | Finished

PieceT = TypeVar("PieceT", bound=Heard | Text)
_PieceT_contra = TypeVar("_PieceT_contra", contravariant=True)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Call: TypeAlias = "grpc.aio.StreamStreamCall[RequestT, ResponseT]"


class Upstream(Protocol[_PieceT_contra, RequestT, ResponseT]):
    """One stage's streams. Flush ids are the positions of the marks."""

    name: str
    """The stage, as in metrics and notices."""

    def call(self) -> "Call[RequestT, ResponseT]":
        """Start a stream; nothing is sent yet."""

    def open(self, checkpoint: stage_pb2.Checkpoint | None, first_sample: int) -> RequestT:
        """The first message."""

    def afresh(self, replay_sample: int) -> int:
        """Where to start over when nobody understands the checkpoint any more.

        Args:
            replay_sample: Where the checkpoint would have started.

        """

    def request(self, piece: _PieceT_contra) -> RequestT:
        """The message that says a piece."""

    def receive(self, response: ResponseT) -> StageEvent:
        """Tell the session what the stage says, and the stage's caller what it means."""


class VadUpstream:
    """The VAD: its events draw the speech map."""

    name = "vad"

    def __init__(self, channel: grpc.aio.Channel, config: SessionConfig, speech: SpeechMap) -> None:
        self._stub = vad_pb2_grpc.VadServiceStub(channel)
        self._config = config
        self._speech = speech

    def call(self) -> "Call[vad_pb2.DetectRequest, vad_pb2.DetectResponse]":
        """Start a stream; nothing is sent yet."""
        return self._stub.Detect(metadata=trace_metadata())

    def open(
        self, checkpoint: stage_pb2.Checkpoint | None, first_sample: int
    ) -> vad_pb2.DetectRequest:
        """The first message."""
        config = vad_pb2.DetectConfig(onset_threshold=self._config.onset_threshold)
        if self._config.hangover_ms is not None:
            config.hangover.FromMilliseconds(self._config.hangover_ms)
        return vad_pb2.DetectRequest(
            open=vad_pb2.Open(
                session_id=self._config.session_id,
                config=config,
                checkpoint=checkpoint,
                first_sample=first_sample,
            )
        )

    def afresh(self, replay_sample: int) -> int:
        """Where the checkpoint stood: the map ignores what it knows already."""
        return replay_sample

    def request(self, piece: Heard) -> vad_pb2.DetectRequest:
        """The message that says a piece."""
        return vad_pb2.DetectRequest(**_said(piece))

    def receive(self, response: vad_pb2.DetectResponse) -> StageEvent:
        """Draw the event into the speech map."""
        match response.WhichOneof("event"):
            case "opened":
                return Opened()
            case "started":
                self._speech.started(response.started.first_sample)
            case "ended":
                self._speech.ended(response.ended.end_sample)
            case "heard":
                heard = response.heard
                self._speech.heard(heard.through_sample, heard.settled_through_sample)
                return Answer(heard.through_sample)
            case "checkpoint":
                return Answer(checkpoint=response.checkpoint)
            case "flushed":
                return Flushed(response.flushed.flush_id)
            case "go_away":
                return GoAway()
            case "finished":
                return Finished()
        return Answer()


class AsrUpstream:
    """The recogniser: its words make the transcript."""

    name = "asr"

    def __init__(
        self,
        channel: grpc.aio.Channel,
        config: SessionConfig,
        transcript: Transcript,
        *,
        committed: Callable[[Sequence[Word], Scores], None],
    ) -> None:
        """Create the streams of one session.

        Args:
            channel: The pool that serves the model.
            config: What the client asked for; ``model`` is what the replica calls it.
            transcript: Gets what else is recognised.
            committed: Gets the words of every commit.

        """
        self._stub = asr_pb2_grpc.AsrServiceStub(channel)
        self._config = config
        self._transcript = transcript
        self._committed = committed
        self._end_sample = 0
        """Position after the last committed word."""
        self.promised = False
        """Whether the client was let in: its session is not refused for want of speed any more."""

    def call(
        self,
    ) -> "Call[asr_pb2.TranscribeRequest, asr_pb2.TranscribeResponse]":
        """Start a stream; nothing is sent yet."""
        return self._stub.Transcribe(metadata=trace_metadata())

    def open(
        self, checkpoint: stage_pb2.Checkpoint | None, first_sample: int
    ) -> asr_pb2.TranscribeRequest:
        """The first message."""
        config = asr_pb2.TranscribeConfig(
            model=self._config.model,
            language_code=self._config.language_code,
            task=TASKS[self._config.task],
            prompt=self._config.prompt,
            pace=_PACES[self._config.pace],
            temperature=self._config.temperature,
            hotwords=self._config.hotwords,
            policy=_POLICIES[self._config.policy],
            frame_threshold=self._config.frame_threshold,
        )
        return asr_pb2.TranscribeRequest(
            open=asr_pb2.Open(
                session_id=self._config.session_id,
                config=config,
                checkpoint=checkpoint,
                first_sample=first_sample,
                moved=self.promised,
            )
        )

    def afresh(self, replay_sample: int) -> int:
        """Behind the last committed word, so that nothing is lost and nothing is said twice."""
        return max(replay_sample, self._end_sample)

    def request(self, piece: Heard) -> asr_pb2.TranscribeRequest:
        """The message that says a piece."""
        return asr_pb2.TranscribeRequest(**_said(piece))

    def receive(self, response: asr_pb2.TranscribeResponse) -> StageEvent:
        """Write what was recognised into the transcript."""
        match response.WhichOneof("event"):
            case "opened":
                self._transcript.model = response.opened.model
                return Opened()
            case "commit":
                return self._commit(response.commit)
            case "tail":
                tail = response.tail
                self._transcript.replace_tail(words_from_proto(tail.words), tail.through_sample)
                return Answer(tail.through_sample)
            case "language":
                language = response.language
                self._transcript.detect(language.language_code, language.probability)
            case "checkpoint":
                return Answer(response.checkpoint.through_sample, response.checkpoint)
            case "flushed":
                return Flushed(response.flushed.flush_id)
            case "go_away":
                return GoAway()
            case "finished":
                return Finished()
        return Answer()

    def _commit(self, commit: asr_pb2.Commit) -> Answer:
        words = words_from_proto(commit.words)
        if words:
            self._end_sample = words[-1].end_sample
        self._committed(
            words,
            Scores(
                commit.decoding.avg_log_probability,
                commit.decoding.no_speech_probability,
                commit.decoding.temperature,
            ),
        )
        return Answer(commit.checkpoint.through_sample, commit.checkpoint)


class DiarizerUpstream:
    """The diarizer: its turns say who said which word."""

    name = "diarizer"

    def __init__(
        self, channel: grpc.aio.Channel, config: SessionConfig, speakers: Speakers
    ) -> None:
        self._stub = diarizer_pb2_grpc.DiarizerServiceStub(channel)
        self._config = config
        self._speakers = speakers

    def call(self) -> "Call[diarizer_pb2.DiarizeRequest, diarizer_pb2.DiarizeResponse]":
        """Start a stream; nothing is sent yet."""
        return self._stub.Diarize(metadata=trace_metadata())

    def open(
        self, checkpoint: stage_pb2.Checkpoint | None, first_sample: int
    ) -> diarizer_pb2.DiarizeRequest:
        """The first message."""
        wanted = self._config.diarization
        assert wanted is not None
        config = diarizer_pb2.DiarizeConfig(
            max_speakers=wanted.max_speakers,
            num_speakers=wanted.num_speakers,
            enrolled=wanted.enrolled if checkpoint is None else (),
            pace=_DIARIZER_PACES[self._config.pace],
        )
        if self._config.pace is Pace.FILE:
            config.max_latency.FromSeconds(_FILE_LATENCY_S)
        return diarizer_pb2.DiarizeRequest(
            open=diarizer_pb2.Open(
                session_id=self._config.session_id,
                config=config,
                checkpoint=checkpoint,
                first_sample=first_sample,
            )
        )

    def afresh(self, replay_sample: int) -> int:
        """Where the checkpoint would have started: speakers are numbered anew."""
        return replay_sample

    def request(self, piece: Heard) -> diarizer_pb2.DiarizeRequest:
        """The message that says a piece."""
        return diarizer_pb2.DiarizeRequest(**_said(piece))

    def receive(self, response: diarizer_pb2.DiarizeResponse) -> StageEvent:
        """Say who spoke."""
        match response.WhichOneof("event"):
            case "opened":
                return Opened()
            case "turns":
                turns = response.turns
                self._speakers.hear(
                    [
                        Turn(turn.speaker, turn.first_sample, turn.end_sample)
                        for turn in turns.turns
                    ],
                    turns.first_sample,
                    turns.settled_sample,
                    turns.through_sample,
                )
                return Answer(turns.through_sample)
            case "checkpoint":
                return Answer(checkpoint=response.checkpoint)
            case "flushed":
                return Flushed(response.flushed.flush_id)
            case "go_away":
                return GoAway()
            case "finished":
                return Finished()
        return Answer()


class TranslatorUpstream:
    """A translator: its commits and tails make one translation."""

    name = "translator"

    def __init__(
        self,
        channel: grpc.aio.Channel,
        session_id: str,
        source_language_code: Callable[[], str],
        target_language_code: str,
        *,
        committed: Callable[[TranslationPiece], None],
        showed: Callable[[str], None],
    ) -> None:
        """Create the streams of one translation.

        Args:
            channel: The translator.
            session_id: Names the session in logs and traces.
            source_language_code: The language spoken, known when the first stream is opened.
            target_language_code: The language wanted, as the client calls it.
            committed: Gets text that will not change.
            showed: Gets what follows it and may change.

        """
        self._stub = translator_pb2_grpc.TranslatorServiceStub(channel)
        self._session_id = session_id
        self._source_language_code = source_language_code
        self._target_language_code = target_language_code
        self._committed = committed
        self._showed = showed
        self._end_sample = 0
        """Position after the last word of which the translation is certain."""

    def call(self) -> "Call[translator_pb2.TranslateRequest, translator_pb2.TranslateResponse]":
        """Start a stream; nothing is sent yet."""
        return self._stub.Translate(metadata=trace_metadata())

    def open(
        self, checkpoint: stage_pb2.Checkpoint | None, first_sample: int
    ) -> translator_pb2.TranslateRequest:
        """The first message."""
        return translator_pb2.TranslateRequest(
            open=translator_pb2.Open(
                session_id=self._session_id,
                source_language_code=self._source_language_code(),
                target_language_code=self._target_language_code,
                checkpoint=checkpoint,
            )
        )

    def afresh(self, replay_sample: int) -> int:
        """Behind the last word that was translated: those in the checkpoint come again."""
        return self._end_sample

    def request(self, piece: Text) -> translator_pb2.TranslateRequest:
        """The message that says a piece."""
        match piece:
            case Spoken(words=words, tail=tail):
                source = translator_pb2.Source(
                    words=words_to_proto(words), tail=words_to_proto(tail)
                )
                return translator_pb2.TranslateRequest(source=source)
            case FlushMark(sample):
                return translator_pb2.TranslateRequest(flush=stage_pb2.Flush(flush_id=sample))
            case End():
                return translator_pb2.TranslateRequest(finish=stage_pb2.Finish())

    def receive(self, response: translator_pb2.TranslateResponse) -> StageEvent:
        """Write the text into the translation."""
        match response.WhichOneof("event"):
            case "opened":
                return Opened()
            case "commit":
                commit = response.commit
                self._end_sample = commit.end_sample
                self._committed(
                    TranslationPiece(commit.text, commit.first_sample, commit.end_sample)
                )
                return Answer(commit.checkpoint.through_sample, commit.checkpoint)
            case "tail":
                self._showed(response.tail.text)
                return Answer(response.tail.through_sample)
            case "flushed":
                return Flushed(response.flushed.flush_id)
            case "go_away":
                return GoAway()
            case "finished":
                return Finished()
        return Answer()


def _said(piece: Heard) -> dict[str, Any]:
    """A piece as the field of a request, which all stages that hear share."""
    match piece:
        case Sound(first_sample=first, pcm=pcm):
            return {"audio": audio_pb2.AudioFrame(first_sample=first, pcm=pcm)}
        case Gap(first_sample=first, end_sample=end):
            return {"gap": audio_pb2.Gap(first_sample=first, num_samples=end - first)}
        case FlushMark(sample):
            return {"flush": stage_pb2.Flush(flush_id=sample)}
        case End():
            return {"finish": stage_pb2.Finish()}
