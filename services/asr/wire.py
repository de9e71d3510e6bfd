"""Protos <-> the domain: what clients ask for, checked, and what they are told."""

from dataclasses import replace

from services.asr import checkpoint
from services.asr.checkpoint import State
from services.asr.events import Committed, LanguageKnown, Tail
from services.asr.policies.policy import Policy
from services.asr.recognizer import Recognizer, Task
from services.asr.transcriber import Cadence, samples_of_frames
from services.common.errors import InvalidRequestError, NotFoundError
from services.common.words import words_to_proto
from voxmesh.asr.v1 import asr_pb2 as pb
from voxmesh.common.v1 import stage_pb2

_TASKS = {
    pb.TASK_UNSPECIFIED: Task.TRANSCRIBE,
    pb.TASK_TRANSCRIBE: Task.TRANSCRIBE,
    pb.TASK_TRANSLATE: Task.TRANSLATE,
}
_POLICIES = {
    pb.POLICY_UNSPECIFIED: None,
    pb.POLICY_LOCAL_AGREEMENT: Policy.LOCAL_AGREEMENT,
    pb.POLICY_ALIGN_ATT: Policy.ALIGN_ATT,
    pb.POLICY_EITHER: Policy.EITHER,
}
_MAX_HOTWORDS = 100
_MAX_HOTWORD_CHARACTERS = 100
_MAX_FRAME_THRESHOLD = 200
_TASKS_TO_PROTO = {Task.TRANSCRIBE: pb.TASK_TRANSCRIBE, Task.TRANSLATE: pb.TASK_TRANSLATE}


def check_config(config: pb.TranscribeConfig, recognizer: Recognizer, model: str) -> Task:
    """Check what a stream asks for against what the model can do, and say its task.

    Raises:
        NotFoundError: Another model is wanted.
        InvalidRequestError: A language or task the model lacks, or a temperature out of range.

    """
    if config.model not in ("", model):
        raise NotFoundError(f"this replica serves {model!r}, not {config.model!r}")
    if config.language_code and config.language_code not in recognizer.language_codes:
        known = ", ".join(recognizer.language_codes)
        raise InvalidRequestError(
            f"the model {model!r} has no language {config.language_code!r}; it has: {known}"
        )
    task = _TASKS.get(config.task)
    if task not in recognizer.tasks:
        raise InvalidRequestError(f"the model {model!r} cannot do task {config.task}")
    if not 0 <= config.temperature <= 1:
        raise InvalidRequestError(f"config.temperature is {config.temperature:g}, not 0 to 1")
    return task


def prompt_text(config: pb.TranscribeConfig) -> str:
    """What could be written before the speech: the hotwords, then the prompt.

    Raises:
        InvalidRequestError: There are too many hotwords, or too long ones.

    """
    longest = max(map(len, config.hotwords), default=0)
    if len(config.hotwords) > _MAX_HOTWORDS or longest > _MAX_HOTWORD_CHARACTERS:
        raise InvalidRequestError(
            f"config.hotwords has {len(config.hotwords)} of at most {longest} characters, "
            f"not {_MAX_HOTWORDS} of {_MAX_HOTWORD_CHARACTERS}"
        )
    parts = (", ".join(config.hotwords), config.prompt)
    return " ".join(part for part in parts if part)


def cadence_of(config: pb.TranscribeConfig, usual: Cadence) -> Cadence:
    """The replica's cadence with what a stream wants otherwise.

    Raises:
        InvalidRequestError: A policy that is not known, or a threshold out of range.

    """
    if config.policy not in _POLICIES:
        raise InvalidRequestError(f"config.policy is {config.policy}, which is none")
    attention = usual.attention
    if config.HasField("frame_threshold"):
        if not 0 <= config.frame_threshold <= _MAX_FRAME_THRESHOLD:
            raise InvalidRequestError(
                f"config.frame_threshold is {config.frame_threshold}, "
                f"not 0 to {_MAX_FRAME_THRESHOLD}"
            )
        attention = samples_of_frames(config.frame_threshold)
    policy = _POLICIES[config.policy] or usual.policy
    return replace(usual, policy=policy, attention=attention)


def description(recognizer: Recognizer, model: str, max_streams: int) -> pb.DescribeResponse:
    """What a replica can do."""
    return pb.DescribeResponse(
        model=model,
        engine=recognizer.engine,
        language_codes=recognizer.language_codes,
        tasks=[_TASKS_TO_PROTO[task] for task in recognizer.tasks],
        max_streams=max_streams,
    )


def checkpoint_to_proto(state: State, format_name: str) -> stage_pb2.Checkpoint:
    """A place to resume from."""
    return stage_pb2.Checkpoint(
        format=format_name,
        replay_from_sample=state.window_first_sample,
        through_sample=state.through_sample,
        state=checkpoint.encode(state),
    )


def commit_to_proto(committed: Committed, format_name: str) -> pb.TranscribeResponse:
    """Words that will not change."""
    return pb.TranscribeResponse(
        commit=pb.Commit(
            words=words_to_proto(committed.words),
            checkpoint=checkpoint_to_proto(committed.state, format_name),
            decoding=pb.Decoding(
                avg_log_probability=committed.hypothesis.avg_log_probability,
                no_speech_probability=committed.hypothesis.no_speech_probability,
                temperature=committed.temperature,
            ),
        )
    )


def tail_to_proto(tail: Tail) -> pb.TranscribeResponse:
    """Words that may change."""
    return pb.TranscribeResponse(
        tail=pb.Tail(words=words_to_proto(tail.words), through_sample=tail.through_sample)
    )


def language_to_proto(language: LanguageKnown) -> pb.TranscribeResponse:
    """The language that was detected."""
    return pb.TranscribeResponse(
        language=pb.LanguageDetected(
            language_code=language.language_code, probability=language.probability
        )
    )
