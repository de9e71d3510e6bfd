"""Protos <-> the domain: what clients ask for, checked, and what they are told."""

from services.common.errors import InvalidRequestError
from services.translator.languages import resolve
from services.translator.stream import Commit, Event
from services.translator.translator import Pair
from voxmesh.common.v1 import stage_pb2
from voxmesh.translator.v1 import translator_pb2 as pb


def pair_of(opened: pb.Open) -> Pair:
    """From which language into which.

    Raises:
        InvalidRequestError: One of them is missing or unknown, or both are the same.

    """
    for name in ("source_language_code", "target_language_code"):
        if not getattr(opened, name):
            raise InvalidRequestError(f"open.{name} is missing")
    pair = Pair(resolve(opened.source_language_code), resolve(opened.target_language_code))
    if pair.source == pair.target:
        raise InvalidRequestError(f"{pair.source.name} is not translated into itself")
    return pair


def event_to_proto(event: Event, format_name: str) -> pb.TranslateResponse:
    """A piece of the translation."""
    if not isinstance(event, Commit):
        tail = pb.Tail(text=event.text, through_sample=event.through_sample)
        return pb.TranslateResponse(tail=tail)
    return pb.TranslateResponse(
        commit=pb.Commit(
            text=event.text,
            first_sample=event.first_sample,
            end_sample=event.end_sample,
            checkpoint=stage_pb2.Checkpoint(
                format=format_name,
                replay_from_sample=event.through_sample,
                through_sample=event.through_sample,
                state=event.state,
            ),
        )
    )
