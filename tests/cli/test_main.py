"""The command line: what people type, and what they are told when it cannot work."""

import os
import socket
import subprocess
import sys
import wave
from importlib import metadata
from pathlib import Path

import pytest

from tests.cli.runner import said, voxmesh


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A models folder that is empty."""
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_without_arguments_it_shows_what_it_can_do() -> None:
    result = voxmesh()
    for command in ("serve", "transcribe", "demo", "models", "pull", "rm", "check", "version"):
        assert f" {command} " in result.output


def test_it_tells_its_version() -> None:
    assert voxmesh("version").output == metadata.version("voxmesh") + "\n"


@pytest.mark.usefixtures("no_models")
def test_models_are_listed_with_where_they_come_from() -> None:
    result = voxmesh("models")
    assert result.exit_code == 0
    [row] = [line for line in result.output.splitlines() if " tiny.en " in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]][:5] == [
        "tiny.en",
        "asr",
        "78 MB",
        "en",
        "",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "bass"], "no model is called 'bass'"),
        (["rm", "base"], "model 'base' is not installed"),
        (["serve", "--offline"], "model 'silero-vad' is not installed"),
        (["serve", "--offline", "--model", "/nowhere"], "run `voxmesh pull"),
        (["demo", "--offline"], "run `voxmesh pull speech`"),
        (["demo", "--offline", "--file", __file__], "is not a WAV file of 16-bit samples"),
        (["transcribe", "/nowhere.wav"], "does not exist"),
        (["transcribe", "--server", "http://127.0.0.1:9", __file__], "does not answer"),
        (["serve", "--port", "99999"], "less than or equal to 65535"),
        (["transcribe", "--format", "docx", __file__], "docx"),
    ],
)
@pytest.mark.usefixtures("no_models")
def test_what_cannot_work_is_said_with_a_way_out(arguments: list[str], message: str) -> None:
    result = voxmesh(*arguments)
    assert result.exit_code not in {None, 0}
    assert message in said(result)
    assert "Traceback" not in result.output


def test_a_port_in_use_is_found_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        result = voxmesh("serve", "--offline", "--model", str(tmp_path), "--port", port)
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in said(result)
    assert "choose another with --port" in said(result)
    assert "starting" not in result.output


def test_a_service_that_cannot_start_ends_the_command_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    result = subprocess.run(
        [
            *(sys.executable, "-m", "services.cli", "serve", "--offline"),
            *("--model", str(tmp_path / "model"), "--port", "0", "--grpc-port", "0"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "asr ended 5 times while starting" in result.stderr
    [folder] = tmp_path.glob("voxmesh-*")
    assert f"all logs are in {folder}" in result.stderr
    assert sorted(path.name for path in folder.glob("*.log")) == [
        "asr.log",
        "diarizer.log",
        "translator.log",
        "vad.log",
    ]


def test_the_demo_refuses_a_wav_of_other_samples_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", ""))
        out.writeframes(b"\0")
    result = voxmesh("demo", "--file", str(path))
    assert result.exit_code == 1
    assert "samples of 8 bits, not 16; `voxmesh transcribe` takes" in said(result)
