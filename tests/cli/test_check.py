"""What ``voxmesh check`` finds."""

import shutil
import socket
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Models

from services.cli import check
from services.cli.check import Finding
from services.cli.mesh import MeshOptions
from tests.cli.runner import said, voxmesh


def find(what: str) -> Finding:
    return next(finding for finding in check.findings() if finding.what == what)


@pytest.mark.usefixtures("models")
def test_a_whole_installation_is_ok() -> None:
    result = voxmesh("check")
    assert result.exit_code == 0, result.output
    for what in ("python", "packages for asr", "cpu", "gpu", "memory", "disk", "ports"):
        assert f" {what}: " in said(result)


def test_a_package_that_is_missing_or_too_old_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ['faster-whisper>=99; extra == "asr"', 'nosuchpackage>=1; extra == "asr"']
    monkeypatch.setattr(metadata, "requires", lambda _name: wanted)
    finding = find("packages for asr")
    assert finding.state == "wrong"
    assert "is not >=99, nosuchpackage is missing: pip install 'voxmesh[asr]'" in finding.detail


def test_a_mesh_without_its_packages_is_not_even_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ['nosuchpackage; extra == "gateway"'])
    result = voxmesh("serve", "--port", "0", "--grpc-port", "0")
    assert result.exit_code == 1
    assert "nosuchpackage is missing: pip install 'voxmesh[gateway]'" in said(result)


def test_spans_are_not_needed_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ['nosuchpackage; extra == "tracing"'])
    assert find("packages for tracing").state == "note"


def test_a_port_in_use_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        monkeypatch.setattr(check, "MeshOptions", lambda: MeshOptions(port=port, grpc_port=0))
        finding = find("ports")
    assert finding.state == "note"
    assert str(port) in finding.detail


def test_a_rotten_model_is_wrong_and_fails_the_command(
    models: "Models", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(models("silero-vad"), tmp_path / "silero-vad")
    weights = tmp_path / "silero-vad" / "silero_vad.onnx"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    monkeypatch.setenv("VOXMESH_MODELS", str(tmp_path))
    result = voxmesh("check")
    assert result.exit_code == 1
    assert "silero_vad.onnx is not the file it should be" in said(result)
    assert "voxmesh pull silero-vad" in said(result)
