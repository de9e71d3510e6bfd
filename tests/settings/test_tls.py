"""What the settings of TLS change: who is let in, and what cannot be used together."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.asr import __main__ as asr
from services.asr.config import Settings as AsrSettings
from services.common.tls import TlsFileError
from services.diarizer import __main__ as diarizer
from services.diarizer.config import Settings as DiarizerSettings
from services.gateway import __main__ as gateway
from services.gateway.config import Settings as GatewaySettings
from services.translator import __main__ as translator
from services.translator.config import Settings as TranslatorSettings
from services.vad import __main__ as vad
from services.vad.config import Settings as VadSettings
from tests.certificates import Authority, refused
from tests.diarizer.harness import LevelDiarizer
from tests.gateway.fakes import FakeAsr, FakeVad, running
from tests.settings.flips import Flip, flips, load
from tests.settings.serving import serving
from tests.settings.test_asr import Metronome
from tests.translator.harness import Shouting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Models

MISFIT = "is not the key of"
VAD = "voxmesh.vad.v1.VadService"
ASR = "voxmesh.asr.v1.AsrService"
DIARIZER = "voxmesh.diarizer.v1.DiarizerService"
TRANSLATOR = "voxmesh.translator.v1.TranslatorService"
GATEWAY = "voxmesh.gateway.v1.GatewayService"
MTLS: dict[str, Any] = {
    "mtls_ca_file": {"ours.pem": "ours", "foreign.pem": "foreign"},
    "mtls_cert_file": {"service.pem": "ours", "other.pem": MISFIT},
    "mtls_key_file": {"service.key": "ours", "other.key": MISFIT},
}


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Authority]:
    """Two CAs, and two pairs of the first, in the folder where the test is."""
    monkeypatch.chdir(tmp_path)
    found = {name: Authority(tmp_path, name) for name in ("ours", "foreign")}
    for name in ("service", "other"):
        found["ours"].issue(name)
    return found


def chosen(kind: str, flip: Flip) -> dict[str, Any]:
    """Settings that fit together, but for the one that is flipped."""
    usual = {f"{kind}_cert_file": "service.pem", f"{kind}_key_file": "service.key"}
    if kind == "mtls":
        usual["mtls_ca_file"] = "ours.pem"
    return usual | {flip.name: flip.value}


@flips("VAD", "ASR", "DIARIZER", "TRANSLATOR", **MTLS)
async def test_a_stage_lets_those_in_whose_certificate_its_ca_has_signed(
    flip: Flip,
    authorities: dict[str, Authority],
    models: "Models",
    monkeypatch: pytest.MonkeyPatch,
    unused_tcp_port: int,
) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    files = chosen("mtls", flip)
    if flip.owner == "VAD":
        weights = str(models("silero-vad") / "silero_vad.onnx")
        main = vad.main(load(VadSettings, monkeypatch, address=address, model=weights, **files))
        service = VAD
    elif flip.owner == "DIARIZER":
        monkeypatch.setattr(diarizer, "load_engine", lambda _chosen: (LevelDiarizer(), 1))
        main = diarizer.main(load(DiarizerSettings, monkeypatch, address=address, **files))
        service = DIARIZER
    elif flip.owner == "TRANSLATOR":
        monkeypatch.setattr(translator, "load_engine", lambda _chosen: (Shouting(), 1))
        main = translator.main(load(TranslatorSettings, monkeypatch, address=address, **files))
        service = TRANSLATOR
    else:
        settings = load(AsrSettings, monkeypatch, address=address, model="tiny.en", **files)
        main = asr.replica(Metronome(), settings)
        service = ASR
    clients = {
        name: authorities["ours"].credentials(authority.issue(f"client of {name}"))
        for name, authority in authorities.items()
    }
    if flip.effect == MISFIT:
        with pytest.raises(TlsFileError, match=MISFIT):
            await main
        return
    async with serving(main, address, service, clients.pop(flip.effect)):
        [other] = clients.values()
        assert await refused(unused_tcp_port, other)


@flips("GATEWAY", **MTLS)
async def test_a_gateway_believes_the_stages_whose_certificate_its_ca_has_signed(
    flip: Flip,
    authorities: dict[str, Authority],
    models: "Models",
    monkeypatch: pytest.MonkeyPatch,
    unused_tcp_port: int,
) -> None:
    stage = load(
        VadSettings,
        monkeypatch,
        address=f"127.0.0.1:{unused_tcp_port}",
        model=str(models("silero-vad") / "silero_vad.onnx"),
        mtls_ca_file="ours.pem",
        mtls_cert_file="service.pem",
        mtls_key_file="service.key",
    )
    client = authorities["ours"].credentials(authorities["ours"].issue("client"))
    async with serving(vad.main(stage), stage.address, VAD, client):
        outcome = ""
        try:
            async with running(
                FakeVad([]), FakeAsr(), vad_target=stage.address, **chosen("mtls", flip)
            ) as mesh:
                outcome = "ours" if (await mesh.gateway.ready())["vad"] else "foreign"
        except TlsFileError as error:
            outcome = str(error)
    assert flip.effect in outcome


@flips(
    "GATEWAY",
    tls_cert_file={"service.pem": "", "other.pem": MISFIT},
    tls_key_file={"service.key": "", "other.key": MISFIT},
)
async def test_clients_are_shown_the_certificate_whose_key_the_gateway_has(
    flip: Flip,
    authorities: dict[str, Authority],
    monkeypatch: pytest.MonkeyPatch,
    unused_tcp_port_factory: "Callable[[], int]",
) -> None:
    outcome = ""
    async with running(FakeVad([]), FakeAsr()) as mesh:
        settings = load(
            GatewaySettings,
            monkeypatch,
            port=0,
            grpc_address=f"127.0.0.1:{unused_tcp_port_factory()}",
            vad_target=mesh.vad_replica.target,
            asr_targets=[mesh.asr_replica.target],
            **chosen("tls", flip),
        )
        believing = authorities["ours"].credentials()
        try:
            async with serving(gateway.main(settings), settings.grpc_address, GATEWAY, believing):
                pass
        except TlsFileError as error:
            outcome = str(error)
    assert flip.effect in outcome
    assert bool(flip.effect) is bool(outcome)
