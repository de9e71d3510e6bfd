"""Which engine is loaded for what the settings name."""

import json
import shutil
from pathlib import Path

import pytest

from services.common.errors import DeviceError
from services.common.models import ModelError
from services.translator.config import Settings
from services.translator.engines import choice
from services.translator.engines.choice import load_engine
from tests.translator import toy


def model(folder: Path, config: object) -> str:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(folder)


def test_a_folder_is_run_by_the_library_that_it_is_made_for(tmp_path: Path) -> None:
    published = toy.save(tmp_path)
    for folder in (published, toy.convert(published)):
        engine, workers = load_engine(
            Settings(model=str(folder), compute_type="float32", workers=2)
        )
        assert (engine.name, workers, engine.forces_prefix) == ("nllb-toy", 2, True)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [({"workers": 2}, "one text at a time"), ({"policy": "align-att"}, "tells no attention")],
)
def test_what_nllw_cannot_do_is_refused(
    chosen: dict[str, object], reason: str, tmp_path: Path
) -> None:
    folder = {"model": model(tmp_path, {"model_type": "m2m_100"}), "nllb_library": "nllw"}
    with pytest.raises(ModelError, match=reason):
        load_engine(Settings.model_validate(folder | chosen))


def test_nllw_needs_a_folder_as_hugging_face_publishes_it(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelError, match="as Hugging Face publishes it, which nllw needs"):
        load_engine(Settings(model=str(tmp_path), nllb_library="nllw"))


def test_nllw_does_not_run_on_a_cpu_beside_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(DeviceError, match="TRANSLATOR_DEVICE=cuda"):
        load_engine(Settings(model=str(toy.save(tmp_path)), nllb_library="nllw"))


@pytest.mark.parametrize("config", ["{not json", "[]", "{}", {"model_type": "marian"}])
def test_a_folder_that_holds_another_model_is_refused(config: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither a model\.bin.* nor a config\.json.*m2m_100"):
        load_engine(Settings(model=model(tmp_path, config)))


def test_a_model_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = toy.save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    chosen = Settings(model=str(folder), compute_type="float32")
    model(folder, config | {"decoder_layers": 3})
    with pytest.raises(ModelError, match="no whole NLLB: it lacks"):
        load_engine(chosen)
    model(folder, config)
    shutil.move(folder / "tokenizer.json", folder / "other.json")
    with pytest.raises(ModelError, match=r"it has no tokenizer\.json"):
        load_engine(chosen)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="holds no NLLB"):
        load_engine(chosen)


@pytest.mark.parametrize("compute_type", ["int8", "int8_float16", "float16"])
def test_numbers_that_torch_does_not_compute_with_are_refused(
    compute_type: str, tmp_path: Path
) -> None:
    chosen = Settings.model_validate(
        {"model": model(tmp_path, {"model_type": "m2m_100"}), "compute_type": compute_type}
    )
    with pytest.raises(DeviceError, match=f"in {compute_type} on cpu"):
        load_engine(chosen)


@pytest.mark.parametrize(
    ("file", "library", "lacking", "extra"),
    [
        ("model.bin", "auto", "ctranslate2", "translator-nllb"),
        ("config.json", "auto", "torch", "translator-torch"),
        ("config.json", "nllw", "nllw", "translator-nllw"),
    ],
)
def test_what_has_to_be_installed_is_said(
    file: str,
    library: str,
    lacking: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / file).write_text('{"model_type": "m2m_100"}')
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == lacking else name)
    with pytest.raises(ModelError, match=rf"needs {lacking}: pip install 'voxmesh\[{extra}\]'"):
        load_engine(Settings.model_validate({"model": str(tmp_path), "nllb_library": library}))
