"""What each option of the ``voxmesh`` command changes in what is started, sent or written."""

import asyncio
import subprocess
import time
import wave
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from services.asr.config import Settings as AsrSettings
from services.cli import __main__ as command
from services.cli import download, transcribe
from services.cli.mesh import Mesh, MeshOptions
from services.common.catalogue import CATALOGUE, Model, ModelFile
from services.common.models import ModelError
from services.common.settings import ServiceSettings
from services.diarizer.config import Settings as DiarizerSettings
from services.gateway.auth import Keys
from services.gateway.config import Settings as GatewaySettings
from services.translator.config import Settings as TranslatorSettings
from services.vad.config import Settings as VadSettings
from tests.cli.fake_server import FakeServer, serving
from tests.cli.runner import said, voxmesh
from tests.settings.flips import Flip, flips
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

pytestmark = pytest.mark.usefixtures("models")

SERVICES: dict[str, type[ServiceSettings]] = {
    "vad": VadSettings,
    "asr": AsrSettings,
    "diarizer": DiarizerSettings,
    "translator": TranslatorSettings,
    "gateway": GatewaySettings,
}


class Gateway(rpc.GatewayServiceServicer):
    """Hears everything and says nothing."""

    def __init__(self) -> None:
        self.opened = pb.Open()
        self.num_bytes = 0

    async def Converse(  # noqa: N802 -- the contract's name
        self, requests: AsyncIterator[pb.ConverseRequest], _context: object
    ) -> AsyncIterator[pb.ConverseResponse]:
        async for request in requests:
            match request.WhichOneof("payload"):
                case "open":
                    self.opened = request.open
                    yield pb.ConverseResponse(opened=pb.Opened(session_id="1", model="toy"))
                case "audio":
                    self.num_bytes += len(request.audio)
                case "finish":
                    yield pb.ConverseResponse(finished=pb.Finished())
                    return


class RecordedMesh(Mesh):
    """Starts no process: a gateway of the test's takes the place of all."""

    meshes: list["RecordedMesh"]

    def run(self, work: Callable[[Mesh], Coroutine[Any, Any, None]]) -> None:
        self.meshes.append(self)
        self.gateway = Gateway()
        if self.options.private:
            asyncio.run(self._do(work))

    async def _do(self, work: Callable[[Mesh], Coroutine[Any, Any, None]]) -> None:
        server = grpc.aio.server()
        rpc.add_GatewayServiceServicer_to_server(self.gateway, server)
        self.grpc_target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        await work(self)
        await server.stop(grace=0)

    def told(self, variable: str) -> str | None:
        """What the environment of a service says; None: nothing."""
        found = [
            child.environment[variable]
            for wave_ in self.waves
            for child in wave_
            if variable in child.environment
        ]
        return found[0] if found else None


@pytest.fixture(autouse=True)
def meshes(monkeypatch: pytest.MonkeyPatch) -> list[RecordedMesh]:
    """The meshes that were started, none of which is real, on a machine where none runs."""
    started: list[RecordedMesh] = []
    monkeypatch.setattr(RecordedMesh, "meshes", started, raising=False)
    monkeypatch.setattr(command, "Mesh", RecordedMesh)

    async def nobody(_url: str) -> bool:
        return False

    monkeypatch.setattr(transcribe, "running_server", nobody)
    return started


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Folder of one.wav, a tenth of a second at 8 kHz, and other.wav, a second at 16 kHz."""
    for name, rate, num_samples in (("one.wav", 8000, 800), ("other.wav", 16_000, 16_000)):
        with wave.open(str(tmp_path / name), "wb") as out:
            out.setparams((1, 2, rate, 0, "NONE", ""))
            out.writeframes(bytes(2 * num_samples))
    return tmp_path


def option(flip: Flip) -> list[str]:
    """The option as it is typed; a flag is there or not."""
    name = f"--{flip.name.replace('_', '-')}"
    if isinstance(flip.value, bool):
        return [name] if flip.value else []
    return [name, str(flip.value)]


FREE = ["--port", "0", "--grpc-port", "0"]


@flips(
    "voxmesh serve",
    model={"tiny.en": {"ASR_MODEL": "tiny.en"}, "base": {"ASR_MODEL": "base"}},
    language={"": {"GATEWAY_LANGUAGE": ""}, "de": {"GATEWAY_LANGUAGE": "de"}},
    host={
        "127.0.0.1": {"GATEWAY_HOST": "127.0.0.1"},
        "0.0.0.0": {"GATEWAY_HOST": "0.0.0.0"},
    },
    tls_cert={
        "": {"GATEWAY_TLS_CERT_FILE": ""},
        "a.pem": {"GATEWAY_TLS_CERT_FILE": "a.pem"},
    },
    tls_key={"": {"GATEWAY_TLS_KEY_FILE": ""}, "a.key": {"GATEWAY_TLS_KEY_FILE": "a.key"}},
    threads={0: {"ASR_THREADS": None}, 3: {"ASR_THREADS": "3"}},
    diarize={False: {"GATEWAY_DIARIZE": "False"}, True: {"GATEWAY_DIARIZE": "True"}},
    max_sessions={0: {"GATEWAY_MAX_SESSIONS": None}, 7: {"GATEWAY_MAX_SESSIONS": "7"}},
    log_level={
        "info": {f"{service.upper()}_LOG_LEVEL": "info" for service in SERVICES},
        "debug": {f"{service.upper()}_LOG_LEVEL": "debug" for service in SERVICES},
    },
)
def test_what_serve_is_told_its_services_are_told(flip: Flip, meshes: list[RecordedMesh]) -> None:
    result = voxmesh("serve", "--offline", *FREE, *option(flip))
    assert result.exit_code == 0, result.output
    [mesh] = meshes
    assert {variable: mesh.told(variable) for variable in flip.effect} == flip.effect


@flips(
    "voxmesh serve",
    port={"one": "one", "other": "other"},
    grpc_port={"one": "one", "other": "other"},
)
def test_serve_listens_on_the_ports_it_is_told(
    flip: Flip, meshes: list[RecordedMesh], unused_tcp_port_factory: Callable[[], int]
) -> None:
    ports = {"one": unused_tcp_port_factory(), "other": unused_tcp_port_factory()}
    arguments = [*FREE, f"--{flip.name.replace('_', '-')}", str(ports[flip.value])]
    assert voxmesh("serve", "--offline", *arguments).exit_code == 0
    [mesh] = meshes
    told = {
        "port": mesh.told("GATEWAY_PORT"),
        "grpc_port": (mesh.told("GATEWAY_GRPC_ADDRESS") or "").rpartition(":")[2],
    }
    assert told[flip.name] == str(ports[flip.effect])


@flips(
    "voxmesh serve",
    diarizer={"--no-diarizer": False, "--diarizer": True},
)
def test_serve_runs_a_diarizer_unless_it_is_told_not_to(
    flip: Flip, meshes: list[RecordedMesh]
) -> None:
    assert voxmesh("serve", "--offline", *FREE, flip.value).exit_code == 0
    [mesh] = meshes
    assert ("diarizer" in mesh.services) == flip.effect
    assert bool(mesh.told("GATEWAY_DIARIZER_TARGET")) == flip.effect


@flips(
    "voxmesh serve",
    translator={"--no-translator": False, "--translator": True},
)
def test_serve_runs_a_translator_unless_it_is_told_not_to(
    flip: Flip, meshes: list[RecordedMesh]
) -> None:
    assert voxmesh("serve", "--offline", *FREE, flip.value).exit_code == 0
    [mesh] = meshes
    assert ("translator" in mesh.services) == flip.effect
    assert bool(mesh.told("GATEWAY_TRANSLATOR_TARGET")) == flip.effect


@flips("voxmesh serve", translate_into={"": "", "pt": "pt"})
def test_serve_translates_for_clients_that_do_not_ask(
    flip: Flip, meshes: list[RecordedMesh]
) -> None:
    chosen = ("--no-translator", "--translate-into", flip.value)
    assert voxmesh("serve", "--offline", *FREE, *chosen).exit_code == 0
    [mesh] = meshes
    assert mesh.told("GATEWAY_TARGET_LANGUAGE") == flip.effect
    assert ("translator" in mesh.services) == bool(flip.effect)


@flips("voxmesh serve", metrics_port={"none": [0, 0, 0, 0, 0], "some": [0, 1, 2, 3, 4]})
def test_serve_gives_every_service_a_port_for_metrics(
    flip: Flip, meshes: list[RecordedMesh]
) -> None:
    first = MeshOptions().with_free_metrics_port().metrics_port if flip.value == "some" else 0
    result = voxmesh("serve", "--offline", *FREE, "--metrics-port", str(first))
    assert result.exit_code == 0, result.output
    [mesh] = meshes
    services = ("GATEWAY", "VAD", "ASR", "DIARIZER", "TRANSLATOR")
    ports = [mesh.told(f"{service}_METRICS_PORT") for service in services]
    assert ports == [str(first + offset) for offset in flip.effect]


@flips(
    "voxmesh serve",
    verbose={
        False: ["asr.log", "diarizer.log", "gateway.log", "translator.log", "vad.log"],
        True: [],
    },
)
def test_a_verbose_mesh_writes_no_files(flip: Flip, meshes: list[RecordedMesh]) -> None:
    assert voxmesh("serve", "--offline", *FREE, *option(flip)).exit_code == 0
    [mesh] = meshes
    logs = [child.log.name for wave_ in mesh.waves for child in wave_ if child.log]
    assert sorted(logs) == flip.effect


def test_a_service_knows_every_variable_that_it_is_told(meshes: list[RecordedMesh]) -> None:
    """One that it does not know would be ignored without a word."""
    chosen = ("--threads", "3", "--max-sessions", "7")
    assert voxmesh("serve", "--offline", *FREE, *chosen).exit_code == 0
    [mesh] = meshes
    for child in (child for wave_ in mesh.waves for child in wave_):
        prefix = f"{child.name.upper()}_"
        known = {f"{prefix}{name.upper()}" for name in SERVICES[child.name].model_fields}
        assert set(child.environment) <= known


NEEDED = {
    "serve": FREE,
    "transcribe": ["one.wav"],
    "demo": ["--file", "one.wav", "--speed", "20"],
}
"""What each command cannot do without, in the folder of the recordings."""


@flips(
    *(f"voxmesh {name}" for name in NEEDED), offline={False: ["silero-vad", "tiny.en"], True: []}
)
def test_offline_nothing_is_fetched(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, recordings: Path
) -> None:
    monkeypatch.setenv("VOXMESH_MODELS", str(recordings / "empty"))
    monkeypatch.chdir(recordings)
    fetched: list[str] = []

    def pull(name: str, *_arguments: object, **_options: object) -> Path:
        fetched.append(name)
        if name == "tiny.en":
            raise ModelError("that is enough")
        return recordings

    monkeypatch.setattr(download, "pull", pull)
    name = flip.owner.removeprefix("voxmesh ")
    result = voxmesh(name, "--model", "tiny.en", *option(flip), *NEEDED[name])
    assert result.exit_code == 1
    assert fetched == flip.effect


@flips(
    "voxmesh transcribe",
    "voxmesh demo",
    model={"tiny.en": {"ASR_MODEL": "tiny.en"}, "base": {"ASR_MODEL": "base"}},
    threads={0: {"ASR_THREADS": None}, 3: {"ASR_THREADS": "3"}},
)
def test_what_a_job_is_told_its_own_mesh_is_told(
    flip: Flip, meshes: list[RecordedMesh], monkeypatch: pytest.MonkeyPatch, recordings: Path
) -> None:
    monkeypatch.chdir(recordings)
    name = flip.owner.removeprefix("voxmesh ")
    voxmesh(name, "--offline", *option(flip), *NEEDED[name])
    [mesh] = meshes
    assert {variable: mesh.told(variable) for variable in flip.effect} == flip.effect


@flips(
    "voxmesh transcribe",
    diarize={False: False, True: True},
    speakers={0: False, 2: True},
    max_speakers={0: False, 4: True},
)
def test_a_job_that_tells_speakers_apart_has_a_diarizer(
    flip: Flip, meshes: list[RecordedMesh], recordings: Path
) -> None:
    voxmesh("transcribe", "--offline", *option(flip), str(recordings / "one.wav"))
    [mesh] = meshes
    assert mesh.options.diarizer is flip.effect


# --- transcribe


@flips(
    "voxmesh transcribe",
    format={"text": ("response_format", b"text"), "srt": ("response_format", b"srt")},
    language={"": ("language", None), "de": ("language", b"de")},
    model={"": ("model", b"whisper-1"), "tiny.en": ("model", b"tiny.en")},
    prompt={"": ("prompt", None), "Ada": ("prompt", b"Ada")},
    diarize={False: ("diarize", None), True: ("diarize", b"true")},
    speakers={0: ("num_speakers", None), 2: ("num_speakers", b"2")},
    max_speakers={0: ("diarize", None), 4: ("diarize", b"true")},
)
def test_what_transcribe_is_told_the_server_is_asked_for(
    flip: Flip, server: FakeServer, recordings: Path
) -> None:
    arguments = ("--server", server.url, *option(flip), str(recordings / "one.wav"))
    assert voxmesh("transcribe", *arguments).exit_code == 0
    [form] = server.forms
    field, content = flip.effect
    assert form.get(field) == content


@flips("voxmesh transcribe", api_key={"": None, "s3cret": "Bearer s3cret"})
def test_the_key_is_presented(flip: Flip, server: FakeServer, recordings: Path) -> None:
    arguments = ("--server", server.url, *option(flip), str(recordings / "one.wav"))
    assert voxmesh("transcribe", *arguments).exit_code == 0
    assert server.keys == [flip.effect]


@flips("voxmesh transcribe", server={"one": [1, 0], "other": [0, 1]})
def test_the_server_is_the_one_that_transcribes(flip: Flip, recordings: Path) -> None:
    with serving() as one, serving() as other:
        url = {"one": one.url, "other": other.url}[flip.value]
        result = voxmesh("transcribe", "--server", url, str(recordings / "one.wav"))
    assert result.exit_code == 0
    assert [len(one.forms), len(other.forms)] == flip.effect


@flips("voxmesh transcribe", timeout={1: "no answer within 1 s", 20: "text of one.wav"})
def test_a_server_is_waited_for_as_long_as_is_said(
    flip: Flip, server: FakeServer, recordings: Path
) -> None:
    server.delay_s = 1.2
    arguments = ("--server", server.url, *option(flip), str(recordings / "one.wav"))
    assert flip.effect in said(voxmesh("transcribe", *arguments))


@flips(
    "voxmesh transcribe",
    files={("one.wav",): ["one"], ("other.wav", "one.wav"): ["other", "one"]},
)
def test_the_files_are_what_is_transcribed(
    flip: Flip, server: FakeServer, recordings: Path
) -> None:
    files = [str(recordings / name) for name in flip.value]
    result = voxmesh("transcribe", "--server", server.url, *files)
    assert result.stdout == "".join(f"text of {name}.wav\n" for name in flip.effect)


@flips("voxmesh transcribe", output={"here.txt": ["here.txt"], "there.txt": ["there.txt"]})
def test_the_output_is_where_the_transcript_goes(
    flip: Flip, server: FakeServer, recordings: Path
) -> None:
    target = str(recordings / flip.value)
    arguments = ("--server", server.url, "--output", target, str(recordings / "one.wav"))
    result = voxmesh("transcribe", *arguments)
    assert result.stdout == ""
    assert [path.name for path in recordings.glob("*.txt")] == flip.effect


# --- demo


@flips("voxmesh demo", file={"one.wav": (8000, 1600), "other.wav": (16_000, 32_000)})
def test_the_file_is_what_is_played(
    flip: Flip, meshes: list[RecordedMesh], recordings: Path
) -> None:
    arguments = ("--offline", "--speed", "20", "--file", str(recordings / flip.value))
    result = voxmesh("demo", *arguments)
    assert result.exit_code == 0, result.output
    [mesh] = meshes
    assert (mesh.gateway.opened.sample_rate_hz, mesh.gateway.num_bytes) == flip.effect


@flips("voxmesh demo", language={"en": "en", "": ""})
def test_the_language_is_what_the_session_asks_for(
    flip: Flip, meshes: list[RecordedMesh], recordings: Path
) -> None:
    arguments = ("--offline", *option(flip), "--file", str(recordings / "one.wav"))
    result = voxmesh("demo", *arguments)
    assert result.exit_code == 0, result.output
    [mesh] = meshes
    assert mesh.gateway.opened.language_code == flip.effect


@flips("voxmesh demo", translate_into={"": [], "pt": ["pt"]})
def test_the_demo_is_translated_into_the_language_it_is_told(
    flip: Flip, meshes: list[RecordedMesh], recordings: Path
) -> None:
    arguments = ("--offline", *option(flip), "--file", str(recordings / "one.wav"))
    result = voxmesh("demo", *arguments)
    assert result.exit_code == 0, result.output
    [mesh] = meshes
    assert list(mesh.gateway.opened.translate_into.language_codes) == flip.effect
    assert mesh.options.translator is bool(flip.effect)


@flips("voxmesh demo", speed={0.5: True, 20: False})
def test_the_speed_is_how_fast_the_recording_is_played(flip: Flip, recordings: Path) -> None:
    started = time.monotonic()
    arguments = ("--offline", *option(flip), "--file", str(recordings / "other.wav"))
    assert voxmesh("demo", *arguments).exit_code == 0
    assert (time.monotonic() - started >= 2) is flip.effect


# --- models


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is nowhere."""
    file = ModelFile("model.bin", 1, "0" * 64)
    model = Model("toy", "asr", (file,), None, (), "a test", (), "MIT")
    monkeypatch.setitem(CATALOGUE, "toy", model)


@pytest.mark.usefixtures("toy")
@flips(
    "voxmesh pull",
    source={"hub": "toy is not on Hugging Face", "mirror": "toy is not in the package mirror"},
)
def test_the_source_is_where_a_model_is_looked_for(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path))
    result = voxmesh("pull", "toy", *option(flip))
    assert result.exit_code == 1
    assert flip.effect in said(result)


@flips("voxmesh pull", names={("silero-vad",): ["silero-vad"], ("speech",): ["speech"]})
def test_the_names_are_the_models_that_are_pulled(flip: Flip) -> None:
    result = voxmesh("pull", *flip.value)
    assert result.exit_code == 0, result.output
    told = [name for name in ("silero-vad", "speech") if f"{name}: " in said(result)]
    assert told == flip.effect


@flips("voxmesh rm", names={("base",): ["tiny.en"], ("tiny.en",): ["base"]})
def test_the_names_are_the_models_that_are_deleted(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path))
    for name in ("base", "tiny.en"):
        (tmp_path / name).mkdir()
    assert voxmesh("rm", *flip.value).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == flip.effect


# --- key


@flips("voxmesh key", name={"alice": "alice", "bob@example.org": "bob@example.org"})
def test_the_name_is_the_one_that_the_gateway_will_know(flip: Flip, tmp_path: Path) -> None:
    made = voxmesh("key", flip.value)
    assert made.exit_code == 0
    file = tmp_path / "keys"
    file.write_text(made.stdout)
    assert Keys(file).caller([made.stderr.split()[0]]) == flip.effect


def test_a_name_that_the_gateway_could_not_read_is_refused() -> None:
    made = voxmesh("key", "two words")
    assert made.exit_code == 1
    assert "two words" in made.output


# --- heads


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the command starts, which then does nothing."""
    told: list[str] = []

    def run(command_: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[bytes]:
        told[:] = command_
        return subprocess.CompletedProcess(command_, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return told


@flips(
    "voxmesh heads",
    model={"tiny.en": "tiny.en", "base": "base"},
    audio={"one.wav": "one.wav", "other.wav": "other.wav"},
    language={"en": "--language en", "de": "--language de"},
    device={"cpu": "--device cpu", "cuda": "--device cuda"},
)
def test_heads_are_found_of_what_is_named(flip: Flip, started: list[str], recordings: Path) -> None:
    chosen = {"model": "tiny.en", "audio": "one.wav"} | {flip.name: flip.value}
    options = [f"--{flip.name}", flip.value] if flip.name in {"language", "device"} else []
    audio = str(recordings / chosen["audio"])
    assert voxmesh("heads", chosen["model"], "--audio", audio, *options).exit_code == 0
    assert started[1:4] == ["-P", "-m", "services.asr.heads"]
    assert flip.effect in " ".join(started)


@pytest.mark.usefixtures("toy", "started")
@flips("voxmesh heads", offline={True: "is not installed", False: "not in the package mirror"})
def test_a_model_is_fetched_for_its_heads_unless_that_is_forbidden(
    flip: Flip, recordings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path))
    audio = str(recordings / "one.wav")
    result = voxmesh("heads", "toy", "--audio", audio, *["--offline"] * flip.value)
    assert result.exit_code == 1
    assert flip.effect in said(result)
