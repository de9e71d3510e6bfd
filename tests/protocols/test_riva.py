"""Clients of NVIDIA Riva against the real mesh."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from services.gateway.servicer import SERVICE_NAMES
from tests.conftest import ServedMesh
from tests.mesh.asr import BECKETT
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import Observed, RunClient
from voxmesh.foreign.riva import riva_asr_pb2, riva_common_pb2


@pytest.mark.row("R1")
async def test_rivas_own_client_lists_reads_and_streams(
    keyed_mesh: ServedMesh, speech: Path, run_client: RunClient
) -> None:
    observed = await run_client(
        "riva", "riva_asr.py", keyed_mesh.grpc_target, str(speech / "beckett.wav")
    )
    models = of(observed, "model")
    assert {model["parameters"]["type"] for model in models} == {"online", "offline"}
    assert all(model["name"] and model["parameters"]["language_code"] for model in models)

    [offline] = of(observed, "offline")
    assert_same_words(BECKETT, text_of(offline["results"]))
    assert_words_are_in_order(offline["results"])
    assert speakers_of(offline["results"]) == {0}

    results = [result for message in of(observed, "streamed") for result in message["results"]]
    assert {"what": "streamed OK"} in observed
    finals = [result for result in results if result["is_final"]]
    assert_same_words(BECKETT, text_of(finals))
    assert_words_are_in_order(finals)
    assert speakers_of(finals) == {1}
    assert results[-1]["is_final"]
    assert len(finals) < len(results)
    assert not any(result["alternatives"][0]["words"] for result in results if result not in finals)

    results = [result for message in of(observed, "file") for result in message["results"]]
    assert observed[-1] == {"what": "file OK"}
    assert all(result["is_final"] for result in results)
    assert_same_words(BECKETT, text_of(results))


async def test_messages_are_those_that_rivas_client_knows(run_client: RunClient) -> None:
    """Names, numbers and types, as the installed package has them."""
    observed = await run_client("riva", "riva_messages.py")
    theirs = {message["name"]: message["fields"] for message in of(observed, "message")}
    for file in (riva_asr_pb2.DESCRIPTOR, riva_common_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            for name, fields in described(message).items():
                assert fields.items() <= theirs[name].items(), name
    [encodings] = of(observed, "enum")
    ours = riva_common_pb2.AudioEncoding.DESCRIPTOR
    assert encodings["name"] == ours.full_name
    assert encodings["values"] == {value.name: value.number for value in ours.values}


@pytest.mark.row("P3")
async def test_pipecat_understands_what_it_is_told(
    keyed_mesh: ServedMesh, speech: Path, run_client: RunClient
) -> None:
    observed = await run_client(
        "pipecat-nvidia",
        "pipecat_nvidia.py",
        keyed_mesh.grpc_target,
        str(speech / "beckett.wav"),
        "better",
    )
    assert of(observed, "ErrorFrame") == []
    assert of(observed, "InterimTranscriptionFrame")
    for service in ("streaming", "segmented"):
        frames = [f for f in of(observed, "TranscriptionFrame") if f["service"] == service]
        assert_same_words(BECKETT, " ".join(frame["text"] for frame in frames))


def test_reflection_describes_every_service(keyed_mesh: ServedMesh) -> None:
    with grpc.insecure_channel(keyed_mesh.grpc_target) as channel:
        described_there = ProtoReflectionDescriptorDatabase(channel)
        assert {*SERVICE_NAMES, "grpc.health.v1.Health"} <= set(described_there.get_services())
        for name in SERVICE_NAMES:
            assert described_there.FindFileContainingSymbol(name).service


def of(observed: Observed, what: str) -> Observed:
    return [item for item in observed if item["what"] == what]


def text_of(results: list[dict[str, Any]]) -> str:
    """Put together as ``print_offline`` does."""
    return "".join(result["alternatives"][0]["transcript"] for result in results)


def speakers_of(results: list[dict[str, Any]]) -> set[int]:
    return {word["speaker_tag"] for word in words_of(results)}


def words_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [word for result in results for word in result["alternatives"][0]["words"]]


def assert_words_are_in_order(results: list[dict[str, Any]]) -> None:
    words = words_of(results)
    assert words
    assert all(isinstance(word["start_time"], int) for word in words)
    assert all(word["start_time"] <= word["end_time"] for word in words)
    assert words == sorted(words, key=lambda word: int(word["start_time"]))


def described(message: Descriptor) -> dict[str, dict[str, Any]]:
    """The fields of a message and of those in it, by their full names."""
    fields = {field.name: description(field) for field in message.fields}
    found = {message.full_name: fields}
    for nested in message.nested_types:
        found |= described(nested)
    return found


def description(field: FieldDescriptor) -> list[Any]:
    kind = field.message_type or field.enum_type
    return [field.number, field.type, field.is_repeated, kind.full_name if kind else ""]
