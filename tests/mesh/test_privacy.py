"""P26: what is said is nobody's business but the client's."""

import json
from pathlib import Path

from services.common.channel import open_channel
from tests.conftest import ServedMesh
from tests.mesh.asr import watch
from tests.mesh.rest import upload
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

SPOKEN = ("foolishness", "incredulity", "noisiest", "superlative", "despair", "wisdom", "epoch")
PROMPT = "Zinfandel"
FILE = "confidential"


async def test_the_logs_name_the_session_and_hold_no_word_of_it(
    mesh_tiny: ServedMesh, two_cities: bytes, speech: Path
) -> None:
    watched = await watch(mesh_tiny.ws_url, two_cities[: 30 * 32_000], speed=8)
    session_id, told = await converse(mesh_tiny, two_cities)
    for text in (watched.text, told):
        assert "wisdom" in text  # it was understood, so it could have been logged
    lines = [line for line in mesh_tiny.logs().splitlines() if line.startswith("{")]
    for service in ("gateway", "vad", "asr"):
        own = [json.loads(line) for line in lines if json.loads(line)["service"] == service]
        assert any(line.get("session_id") == session_id for line in own), service
    logged = mesh_tiny.logs().casefold()
    for word in (*SPOKEN, PROMPT.casefold()):
        assert word not in logged


async def converse(mesh: ServedMesh, pcm: bytes) -> tuple[str, str]:
    """A gRPC session: its id, and its words."""
    opening = pb.Open(encoding=pb.ENCODING_LINEAR16, language_code="en", prompt=PROMPT)
    audio = (pcm[start : start + 32_000] for start in range(0, len(pcm), 32_000))
    requests = [
        pb.ConverseRequest(open=opening),
        *(pb.ConverseRequest(audio=data) for data in audio),
        pb.ConverseRequest(finish=pb.Finish()),
    ]
    async with open_channel(mesh.grpc_target) as channel:
        stub = rpc.GatewayServiceStub(channel)
        answers = [answer async for answer in stub.Converse(iter(requests), timeout=120)]
    words = [word.text for answer in answers for word in answer.captions.words]
    return answers[0].opened.session_id, "".join(words)


def test_an_upload_leaves_its_request_id_in_the_logs_and_nothing_of_its_words(
    mesh_tiny: ServedMesh, speech: Path
) -> None:
    answer = upload(mesh_tiny, (speech / "beckett.wav").read_bytes(), prompt=PROMPT)
    assert "fail" in answer.json()["text"].casefold()
    assert answer.headers["x-request-id"] in mesh_tiny.logs()
    assert "fail better" not in mesh_tiny.logs().casefold()
    assert PROMPT.casefold() not in mesh_tiny.logs().casefold()
