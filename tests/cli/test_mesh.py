"""What the processes of the local mesh are told, and where it keeps its things."""

import json
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.cli.mesh import Mesh, MeshOptions, PortError, runtime_folder

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("models")


def make(folder: Path, options: MeshOptions) -> Mesh:
    return Mesh(options, folder, report=lambda _line: None)


def environments(mesh: Mesh) -> dict[str, dict[str, str]]:
    return {child.name: dict(child.environment) for wave in mesh.waves for child in wave}


def test_the_gateway_starts_last_and_meets_the_stages_on_sockets(tmp_path: Path) -> None:
    mesh = make(tmp_path, MeshOptions(port=8001, grpc_port=50060, language="de"))
    assert [[child.name for child in wave] for wave in mesh.waves] == [["vad", "asr"], ["gateway"]]
    told = environments(mesh)
    assert told["gateway"]["GATEWAY_VAD_TARGET"] == told["vad"]["VAD_ADDRESS"]
    assert json.loads(told["gateway"]["GATEWAY_ASR_TARGETS"]) == [told["asr"]["ASR_ADDRESS"]]
    assert told["vad"]["VAD_ADDRESS"] == f"unix:{tmp_path}/vad.sock"
    assert Path(told["vad"]["VAD_MODEL"]).is_file()
    assert told["gateway"]["GATEWAY_LANGUAGE"] == "de"
    assert told["gateway"]["GATEWAY_PORT"] == "8001"
    assert told["gateway"]["GATEWAY_GRPC_ADDRESS"] == "127.0.0.1:50060"


def test_only_what_was_chosen_is_said_to_the_services(tmp_path: Path) -> None:
    told = environments(make(tmp_path, MeshOptions()))
    assert "ASR_THREADS" not in told["asr"]
    assert "GATEWAY_MAX_SESSIONS" not in told["gateway"]
    chosen = MeshOptions(threads=3, max_sessions=7, log_level="debug", metrics_port=9100)
    told = environments(make(tmp_path, chosen))
    assert told["asr"]["ASR_THREADS"] == "3"
    assert told["gateway"]["GATEWAY_MAX_SESSIONS"] == "7"
    assert {env[f"{name.upper()}_LOG_LEVEL"] for name, env in told.items()} == {"debug"}
    ports = [told[name][f"{name.upper()}_METRICS_PORT"] for name in ("gateway", "vad", "asr")]
    assert ports == ["9100", "9101", "9102"]


def test_a_mesh_for_one_job_asks_for_no_keys_that_the_environment_names(tmp_path: Path) -> None:
    told = environments(make(tmp_path, MeshOptions(private=True)))
    assert told["gateway"]["GATEWAY_KEYS_FILE"] == ""
    assert "GATEWAY_KEYS_FILE" not in environments(make(tmp_path, MeshOptions()))["gateway"]


def test_a_model_of_ones_own_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    told = environments(make(tmp_path, MeshOptions(model="mine")))
    assert told["asr"]["ASR_MODEL"] == str(tmp_path / "mine")


def test_a_mesh_that_speaks_tls_says_so_and_one_for_a_job_never_does(tmp_path: Path) -> None:
    mesh = make(tmp_path, MeshOptions(tls_cert="a.pem", tls_key="a.key"))
    assert mesh.http_url == "https://127.0.0.1:8000"
    assert mesh.ws_url == "wss://127.0.0.1:8000"
    told = environments(mesh)["gateway"]
    assert (told["GATEWAY_TLS_CERT_FILE"], told["GATEWAY_TLS_KEY_FILE"]) == ("a.pem", "a.key")
    told = environments(make(tmp_path, MeshOptions(private=True)))["gateway"]
    assert (told["GATEWAY_TLS_CERT_FILE"], told["GATEWAY_TLS_KEY_FILE"]) == ("", "")


@pytest.mark.parametrize(
    ("host", "http", "ws", "target"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", "ws://127.0.0.1:8000", "127.0.0.1:50050"),
        ("0.0.0.0", "http://127.0.0.1:8000", "ws://127.0.0.1:8000", "127.0.0.1:50050"),
        ("::", "http://[::1]:8000", "ws://[::1]:8000", "[::1]:50050"),
    ],
)
def test_a_mesh_that_listens_everywhere_is_reached_here(
    tmp_path: Path, host: str, http: str, ws: str, target: str
) -> None:
    mesh = make(tmp_path, MeshOptions(host=host))
    assert (mesh.http_url, mesh.ws_url, mesh.grpc_target) == (http, ws, target)


def test_a_zero_among_the_ports_becomes_a_free_one() -> None:
    options = MeshOptions(port=0, grpc_port=0).with_free_ports()
    assert 0 < options.port != options.grpc_port > 0


@pytest.mark.parametrize(
    ("choose", "option"),
    [
        (lambda port: MeshOptions(port=port, grpc_port=0), "--port"),
        (lambda port: MeshOptions(port=0, grpc_port=port), "--grpc-port"),
        (lambda port: MeshOptions(port=0, grpc_port=0, metrics_port=port - 2), "--metrics-port"),
    ],
)
def test_a_port_in_use_is_named_with_the_option_that_changes_it(
    choose: "Callable[[int], MeshOptions]", option: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        with pytest.raises(PortError, match=rf"Address already in use.*with {option}$"):
            choose(taken.getsockname()[1]).with_free_ports()


def test_metrics_get_three_free_ports_in_a_row() -> None:
    options = MeshOptions(port=0, grpc_port=0).with_free_metrics_port()
    assert options.with_free_ports().metrics_port == options.metrics_port > 0


def test_the_runtime_folder_is_private_and_goes_after_a_clean_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with runtime_folder() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_the_runtime_folder_stays_after_a_failure_for_its_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(RuntimeError), runtime_folder() as folder:
        (folder / "asr.log").touch()
        raise RuntimeError("a service did not start")
    assert folder.is_dir()
    with pytest.raises(RuntimeError), runtime_folder() as folder:
        raise RuntimeError("before any service wrote anything")
    assert not folder.exists()


def test_a_runtime_folder_whose_sockets_would_have_too_long_a_path_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with runtime_folder() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(folder / "gateway.sock"))
    assert list(deep.iterdir()) == []
