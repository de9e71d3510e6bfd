"""Uploads a recording as OpenAI's clients do."""

import httpx

from tests.conftest import ServedMesh


def upload(mesh: ServedMesh, recording: bytes, **fields: str) -> httpx.Response:
    """Ask for a transcription; ``fields`` are those of the form."""
    return httpx.post(
        f"{mesh.http_url}/v1/audio/transcriptions",
        files={"file": ("recording", recording)},
        data=fields,
        timeout=240,
        trust_env=False,
    )
