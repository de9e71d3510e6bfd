"""What stands in ``clients/`` runs as it stands, against the real mesh."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, ServedMesh
from tests.mesh.asr import BYTES_PER_S, pcm_of
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import KEY, environment_of, write_wav
from tests.robustness.proxy import Proxy

CLIENTS = ROOT / "clients"
CLIENT_S = 90.0
WORDS_BEFORE_THE_CUT = 2
SPOKEN_BYTES = 6 * BYTES_PER_S
SPOKEN = "Ever tried. Ever failed. No matter. Try again."
OPTIONS = ("--language", "en", "--key", KEY)


def python(program: str) -> list[str]:
    return [str(environment_of("clients") / "bin" / "python"), str(CLIENTS / "python" / program)]


def node() -> list[str]:
    if not (CLIENTS / "node" / "node_modules").is_dir():
        pytest.skip("no packages in clients/node: make sdks")
    found = shutil.which("node")
    assert found is not None
    return [found, str(CLIENTS / "node" / "captions.mjs")]


async def shown(command: list[str], *, proxy: Proxy | None = None) -> str:
    """What a client writes; in the middle of it, its connection is cut by its proxy."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    text = ""
    try:
        async with asyncio.timeout(CLIENT_S):
            while data := await process.stdout.read(1 << 16):
                text += data.decode()
                if proxy is not None and len(text.split()) >= WORDS_BEFORE_THE_CUT:
                    proxy.cut()
                    proxy = None
            assert await process.wait() == 0, (await complaints).decode(errors="replace")
    finally:
        complaints.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    return text


async def test_every_example_shows_every_word_once_though_connections_break(
    keyed_mesh: ServedMesh, speech: Path, tmp_path: Path
) -> None:
    """C1, but for the WebSocket."""
    spoken = pcm_of(speech / "beckett.wav")[:SPOKEN_BYTES]
    arguments = [*OPTIONS, str(write_wav(tmp_path / "spoken.wav", spoken))]

    async def interrupted(command: list[str]) -> str:
        proxy = Proxy(keyed_mesh.grpc_port)
        async with proxy.listening() as port:
            server = ["--server", f"127.0.0.1:{port}"]
            text = await shown([*command, *server, *arguments], proxy=proxy)
        assert proxy.cuts == 1
        return text

    websocket = [*python("captions_websocket.py"), "--server", keyed_mesh.ws_url]
    for text in await asyncio.gather(
        interrupted(python("captions.py")),
        interrupted(node()),
        shown([*websocket, *arguments]),
    ):
        assert_same_words(SPOKEN, text)


def test_every_example_is_in_the_readme() -> None:
    readme = (CLIENTS / "README.md").read_text()
    there = {
        f"{path.relative_to(CLIENTS)}"
        for path in CLIENTS.glob("*/*")
        if path.suffix in {".py", ".mjs"}
    }
    assert set(re.findall(r"^\| `([^`]+)`", readme, re.M)) == there
