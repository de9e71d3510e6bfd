"""Files as torch saves them, read without torch."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.common.models import ModelError
from services.diarizer.engines.torch_archive import load_weights

BASE = torch.arange(24, dtype=torch.float32)
STATE: dict[str, torch.Tensor] = {
    "plain": BASE.reshape(2, 3, 4),
    "turned": BASE.reshape(4, 6).T,
    "every other": BASE[1::2],
    "the end of what others share": BASE[20:],
    "one number": torch.tensor(2.5),
    "of one and the same": torch.ones(1).expand(3),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "double": torch.tensor([1e-3], dtype=torch.float64),
    "long": torch.tensor([7, -7]),
    "int": torch.tensor([1 << 20], dtype=torch.int32),
    "nothing": torch.zeros(0, 5),
    "nothing in fives": torch.zeros(5, 0),
}


class Ruin:
    """What runs a function when it is unpickled."""

    def __init__(self, ruin: Callable[..., object], *args: object) -> None:
        self.call = ruin, args

    def __reduce__(self) -> Any:
        return self.call


def saved(what: object) -> bytes:
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


def archive(pickled: bytes, **storages: bytes) -> bytes:
    """A file as torch writes it, of any pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("archive/data.pkl", pickled)
        for key, numbers in storages.items():
            made.writestr(f"archive/data/{key}", numbers)
    return stream.getvalue()


SMALL = saved({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])})


@pytest.mark.parametrize(
    "what",
    [
        STATE,
        {"state_dict": STATE},
        {"state_dict": STATE, "epoch": 3, "losses": [1.5, None], "device": torch.device("cpu")},
        {"pyannote.audio": {"versions": ("1", "2")}, "state_dict": STATE, "kind": torch.float16},
    ],
    ids=["a state", "a checkpoint", "with plain data", "with objects"],
)
def test_what_torch_saved_is_read(what: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(saved(what))
    found = load_weights(path)
    assert found.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == tuple(tensor.shape)
        assert (found[name] == tensor.float().numpy()).all(), name


def test_the_state_of_a_network_is_read(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 5), torch.nn.BatchNorm1d(3))
    path = tmp_path / "weights.bin"
    torch.save(network.state_dict(), path)
    found = load_weights(path)
    assert found.keys() == network.state_dict().keys()
    assert (found["0.weight"] == network[0].weight.detach().numpy()).all()


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    ruined = tmp_path / "ruined"
    for ruin in (
        Ruin(os.mkdir, str(ruined)),
        Ruin(exec, f"open({str(ruined)!r}, 'w').close()"),
        Ruin(torch.save, {}, str(ruined)),
    ):
        path = tmp_path / "weights.bin"
        path.write_bytes(saved({"weight": BASE, "ruin": ruin}))
        assert load_weights(path).keys() == {"weight"}
        assert not ruined.exists()


class Storage:
    """What a pickle of torch's refers to."""

    def __init__(self, *pid: object) -> None:
        self.pid = pid


class StoringPickler(pickle.Pickler):
    def persistent_id(self, thing: object) -> object:
        return thing.pid if isinstance(thing, Storage) else None


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *pid: object) -> bytes:
    """A file with one tensor of a storage of four numbers."""
    rebuild = torch._utils._rebuild_tensor_v2
    pid = pid or ("storage", torch.FloatStorage, "0", "cpu", 4)
    stream = io.BytesIO()
    made = StoringPickler(stream, protocol=2)
    made.dump({"a": Ruin(rebuild, Storage(*pid), offset, shape, strides, False, {})})
    return archive(stream.getvalue(), **{"0": bytes(16)})


def test_a_tensor_within_its_storage_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(tensor(1, (3,), (1,)))
    assert load_weights(path)["a"].shape == (3,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}q\x00.",
        b"not weights",
        b"PK\x03\x04 and no more",
        bytes(10_000),
        archive(b""),
        archive(b"\x80\x02"),
        archive(b"no pickle"),
        archive(pickle.dumps(None)),
        archive(pickle.dumps([1, 2])),
        archive(pickle.dumps({})),
        archive(pickle.dumps({"a": 1.0})),
        archive(pickle.dumps({"state_dict": 3})),
        archive(pickle.dumps({"state_dict": {}})),
        saved({"a": torch.zeros(2, dtype=torch.bfloat16)}),
        tensor(0, (5,), (1,)),
        tensor(2, (3,), (1,)),
        tensor(-1, (1,), (1,)),
        tensor(0, (2,), (-1,)),
        tensor(0, (-3,), (1,)),
        tensor(0, (2, 2), (1,)),
        tensor(0, (1 << 50,), (0,)),
        tensor(0, (1 << 70,), (0,)),
        tensor(0, (4,), (1,), "storage", torch.FloatStorage, "1", "cpu", 4),
        tensor(0, (4,), (1,), "storage", torch.FloatStorage, "0", "cpu", 1 << 40),
        tensor(0, (4,), (1,), "storage", "", "0", "cpu", 4),
        tensor(0, (4,), (1,), "module", torch.FloatStorage, "0", "cpu", 4),
        tensor(0, (4,), (1,), "storage"),
    ],
)
def test_anything_else_is_no_model(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"weights\.bin (holds no weights|is damaged)"):
        load_weights(path)


def test_a_missing_file_and_a_folder_are_no_models(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ModelError, match="holds no weights"):
            load_weights(path)


def test_a_file_that_was_cut_off_anywhere_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    for end in range(0, len(SMALL), 7):
        path.write_bytes(SMALL[:end])
        with pytest.raises(ModelError):
            load_weights(path)


@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_is_no_model(data: st.DataObject, tmp_path: Path) -> None:
    damaged = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(SMALL) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(tmp_path, bytes(damaged))


def test_a_pickle_that_ends_anywhere_is_no_model(tmp_path: Path) -> None:
    """Where the archive's checksums notice nothing."""
    pickled = zipfile.ZipFile(io.BytesIO(SMALL)).read("archive/data.pkl")
    path = tmp_path / "weights.bin"
    for end in range(len(pickled)):
        path.write_bytes(archive(pickled[:end], **{"0": bytes(8), "1": bytes(4)}))
        with pytest.raises(ModelError):
            load_weights(path)


def read_or_refused(folder: Path, data: bytes) -> None:
    path = folder / "weights.bin"
    path.write_bytes(data)
    try:
        found = load_weights(path)
    except ModelError:
        return
    assert all(array.dtype == np.float32 for array in found.values())
