"""Installed models and the catalogue they are compared with."""

import hashlib
import re
from pathlib import Path

import pytest

from services.common import models
from services.common.catalogue import CATALOGUE, Model, ModelFile
from services.common.models import ModelCorruptError, ModelMissingError

DATA = {"config.json": b"{}", "model.bin": b"weights"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A model of nine bytes, in the catalogue and installed."""
    files = tuple(
        ModelFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in DATA.items()
    )
    model = Model("toy", "asr", files, None, (), "a test", ("en",), "MIT")
    monkeypatch.setitem(CATALOGUE, "toy", model)
    (tmp_path / "toy").mkdir()
    for name, data in DATA.items():
        (tmp_path / "toy" / name).write_bytes(data)
    return model


def test_an_installed_model_is_found_by_its_name(toy: Model, tmp_path: Path) -> None:
    assert models.locate("toy", tmp_path) == tmp_path / "toy"
    assert models.installed(tmp_path) == [toy]


@pytest.mark.parametrize(
    ("damage", "state"), [("remove", "is incomplete"), ("truncate", "is incomplete")]
)
def test_a_model_with_a_missing_or_short_file_names_the_command_that_repairs_it(
    toy: Model, tmp_path: Path, damage: str, state: str
) -> None:
    weights = tmp_path / "toy" / "model.bin"
    weights.unlink() if damage == "remove" else weights.write_bytes(b"weigh")
    with pytest.raises(ModelMissingError, match=rf"{state}.* run `voxmesh pull toy`"):
        models.locate("toy", tmp_path)
    assert models.installed(tmp_path) == []


def test_a_model_that_was_never_pulled_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"is not installed.* run `voxmesh pull tiny\.en`"):
        models.locate("tiny.en", tmp_path)


def test_an_unknown_name_lists_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"no model is called 'bass'.* base, "):
        models.locate("bass", tmp_path)


def test_a_folder_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    assert models.locate(str(tmp_path)) == tmp_path


def test_a_catalogue_name_wins_over_a_folder_that_happens_to_have_it(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "toy").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert models.locate("toy", tmp_path) == tmp_path / "toy"


def test_a_changed_byte_is_named_with_both_hashes(toy: Model, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    models.verify(toy, folder)
    (folder / "model.bin").write_bytes(b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    with pytest.raises(ModelCorruptError) as caught:
        models.verify(toy, folder)
    assert all(part in str(caught.value) for part in ("model.bin", toy.files[1].sha256, found))


def test_removing_a_model_frees_its_bytes_and_leaves_the_others(toy: Model, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert models.remove("toy", tmp_path) == toy.num_bytes == 9
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    with pytest.raises(ModelMissingError, match="is not installed"):
        models.remove("toy", tmp_path)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"VOXMESH_MODELS": "/models"}, "/models"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/voxmesh/models"),
        ({"XDG_CACHE_HOME": "/cache", "VOXMESH_MODELS": "/models"}, "/models"),
        ({"HOME": "/home/ann"}, "/home/ann/.cache/voxmesh/models"),
    ],
)
def test_the_environment_says_where_models_lie(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str
) -> None:
    for name in ("VOXMESH_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert models.models_dir() == Path(folder)


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=CATALOGUE)
def test_every_entry_is_pinned_and_can_be_fetched(model: Model) -> None:
    assert model.hub or model.wheels
    assert len({file.name for file in model.files}) == len(model.files)
    for file in model.files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.num_bytes > 0
    if model.hub is not None:
        assert re.fullmatch("[0-9a-f]{40}", model.hub.revision)
    for wheel in model.wheels:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", wheel.requirement)
    if model.wheels:
        mirrored = {name for wheel in model.wheels for _member, name in wheel.members}
        assert mirrored == {file.name for file in model.files}
