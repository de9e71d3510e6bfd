"""WhisperLiveKit, as it comes from the package registry, in an environment of its own.

It is given the weights that voxmesh uses, in the two forms that it wants, and otherwise left as it
ships: its defaults decide on engine, numbers, beam and cadence.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench import environments
from bench.environments import python_of
from bench.mesh import Served, free_port
from services.asr.engines.alignment_heads import dump_heads
from services.asr.engines.whisper_weights import load_checkpoint, write_openai
from services.common.models import locate

VERSION = "0.2.26"
REQUIREMENTS = (f"whisperlivekit=={VERSION}", "torch==2.13.0")
_NAMED = ("whisperlivekit", "faster-whisper", "ctranslate2", "torch", "onnxruntime")
_READY_S = 120.0
_STOP_S = 10.0

_GREEDY = """
import faster_whisper

ships_with = faster_whisper.WhisperModel.transcribe


def greedy(self, audio, **options):
    return ships_with(self, audio, **{**options, "beam_size": 1})


faster_whisper.WhisperModel.transcribe = greedy

from whisperlivekit.basic_server import main

main()
"""
"""Its server, whose LocalAgreement has no option for the beam."""


@dataclass(frozen=True, slots=True)
class System:
    """A way of running it."""

    name: str
    policy: str
    """Its ``--backend-policy``."""
    decoding: str
    greedy: bool = False
    """Whether it is made greedy where it would not be."""


SYSTEMS = (
    System("wlk-alignatt", "simulstreaming", "greedy"),
    System("wlk-localagreement", "localagreement", "beam 5"),
    System("wlk-localagreement-greedy", "localagreement", "greedy", greedy=True),
)
"""Its two policies as they ship, and the one that ships with a beam without it."""


def install(venv: Path) -> dict[str, str]:
    """Make the environment unless it is there; what it has, by package.

    Raises:
        CalledProcessError: A package could not be installed.

    """
    return environments.install(venv, REQUIREMENTS, _NAMED)


@contextmanager
def served(
    system: System, model: str, language_code: str, venv: Path, folder: Path
) -> Iterator[Served]:
    """Serve a model for the length of the ``with`` block; it has no gRPC.

    Args:
        system: How.
        model: What ``voxmesh serve --model`` would be given.
        language_code: What is spoken; AlignAtt does not take it from a session.
        venv: See ``install``.
        folder: Gets the weights as ``.pt``, and what the server says.

    Raises:
        ModelError: The model is not installed, or is damaged.
        TimeoutError: The server was not ready in two minutes.
        RuntimeError: It ended before it was ready; the message names the file with what it said.

    """
    port = free_port()
    ships_with = [str(venv / "bin" / "wlk"), "serve"]
    command = [str(python_of(venv)), "-c", _GREEDY] if system.greedy else ships_with
    command += ["--host", "127.0.0.1", "--port", str(port), "--pcm-input"]
    command += ["--language", language_code, "--backend-policy", system.policy]
    command += ["--warmup-file", str(locate("speech") / "beckett.wav")]
    command += _weights(system, locate(model), folder)
    log = folder / f"{system.name}.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        ) as child,
    ):
        try:
            server = Served(f"http://127.0.0.1:{port}", "", psutil.Process(child.pid))
            _wait_until_ready(server, child, log)
            yield server
        finally:
            _stop(child)


def _weights(system: System, model_dir: Path, folder: Path) -> Sequence[str]:
    """The options that name them.

    AlignAtt takes CTranslate2's encoder and OpenAI's decoder, and knows the alignment heads of
    models that it downloads only.
    """
    if system.policy == "localagreement":
        return ["--model_dir", str(model_dir)]
    checkpoint = load_checkpoint(model_dir)
    decoder = folder / f"{model_dir.name}.pt"
    if not decoder.exists():
        write_openai(model_dir, decoder)
    shape = checkpoint.dimensions
    heads = dump_heads(
        checkpoint.alignment_heads, num_layers=shape.n_text_layer, num_heads=shape.n_text_head
    )
    paths = ["--encoder-model-path", str(model_dir), "--decoder-model-path", str(decoder)]
    return [*paths, f"--custom-alignment-heads={heads}"]


def _wait_until_ready(server: Served, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health", trust_env=False).json()["ready"]:
                return
        if child.poll() is not None:
            raise RuntimeError(f"the server ended with status {child.returncode}: see {log}")
        time.sleep(0.5)
    raise TimeoutError(f"{server.url} was not ready after {_READY_S:.0f} s: see {log}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
