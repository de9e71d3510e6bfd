"""The promises the layout makes."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import services
from services.common.settings import ServiceSettings, table

ROOT = Path(__file__).parents[1]
MESH = ("vad", "asr", "diarizer", "translator", "gateway")

MAY_WAIT = {
    "vad": {"__main__", "servicer", "batcher"},
    "asr": {"__main__", "servicer", "scheduler"},
    "diarizer": {"__main__", "servicer", "batcher"},
    "translator": {"__main__", "servicer", "inbox"},
    "gateway": {
        *("__main__", "servicer", "app", "http_server", "protocols"),
        *("gateway", "session", "stage", "recovery", "upstream", "pools", "tasks"),
        *("diarized", "translated"),
        *("auth", "link", "live_session", "resumption"),
        *("pipe", "raw_decoder", "container_decoder", "header_decoder", "audio_input"),
        *("inbox", "throttle", "fetch"),
    },
}
"""Modules that know gRPC or asyncio: those at the edges, and those that gather many streams. All
others are plain functions and classes, and are tested as such."""


def test_services_is_this_repository() -> None:
    """A foreign package of that name would win where it is installed too."""
    assert services.__file__ is not None
    assert Path(services.__file__).is_relative_to(ROOT)


def test_proto_is_not_a_package() -> None:
    """``proto/__init__.py`` would hide the ``proto`` package of proto-plus."""
    assert not (ROOT / "proto" / "__init__.py").exists()


def test_generated_code_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)
    assert generated(ROOT / "proto" / "gen") == generated(tmp_path)


def generated(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): path.read_text()
        for path in folder.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }


def test_every_clause_of_the_guarantee_is_cited_by_a_test() -> None:
    clauses = set(re.findall(r"^\* \*\*([A-Z]\d) ", (ROOT / "GUARANTEE.md").read_text(), re.M))
    cited = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                cited |= set(re.findall(r"\b[A-Z]\d\b", ast.get_docstring(node) or ""))
    assert len(clauses) > 15
    assert clauses <= cited


@pytest.mark.parametrize("service", MESH)
def test_every_service_has_the_same_spine(service: str) -> None:
    folder = ROOT / "services" / service
    spine = {"__init__.py", "__main__.py", "config.py", "servicer.py", "README.md"}
    assert spine <= {path.name for path in folder.iterdir()}
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


@pytest.mark.parametrize("service", MESH)
def test_the_settings_in_a_readme_are_those_of_the_class(service: str) -> None:
    config = importlib.import_module(f"services.{service}.config")
    settings: type[ServiceSettings] = config.Settings
    readme = (ROOT / "services" / service / "README.md").read_text()
    shown = re.search(r"<!-- settings -->\n(.*?)\n?<!-- /settings -->", readme, re.DOTALL)
    assert shown is not None, "the README has no table of settings"
    assert shown[1].strip() == table(settings)


@pytest.mark.parametrize("service", MESH)
def test_every_setting_is_explained_and_named_by_its_service(service: str) -> None:
    settings = importlib.import_module(f"services.{service}.config").Settings
    assert settings.model_config["env_prefix"] == f"{service.upper()}_"
    unexplained = [name for name, field in settings.model_fields.items() if not field.description]
    assert unexplained == []


def domain_modules() -> list[Path]:
    found = []
    for service, waiting in MAY_WAIT.items():
        folder = ROOT / "services" / service
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).with_suffix("").parts[0]
            if name not in waiting:
                found.append(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("path", domain_modules(), ids=str)
def test_the_domain_knows_no_grpc_no_asyncio_and_no_clock(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & {"grpc", "asyncio", "time", "datetime"}


WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
TELLS_A_DATE = {
    f"gateway/protocols/{name}.py" for name in ("deepgram_metadata", "openai", "realtime_openai")
}
"""When models came to be, a request was made, a session or a key expires: clients want to know."""


def test_nothing_waits_for_the_clock_on_the_wall() -> None:
    """F7."""
    found = {
        f"{path.relative_to(ROOT / 'services')}"
        for path in (ROOT / "services").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WALL_CLOCK
    }
    assert found == TELLS_A_DATE


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


PINNED = ("vad", "asr", "diarizer", "translator", "gateway", "cli", "dev")


def pinned(name: str) -> list[tuple[str, str, list[str]]]:
    """Every package in a file of requirements, with its version and hashes.

    One may be there several times, for several versions of Python.
    """
    text = (ROOT / "deploy" / "requirements" / f"{name}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    found = []
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        requirement, *hashes = entry.split("--hash=")
        package = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)(\s*;.*)?", requirement.strip())
        assert package, f"{name}.txt pins no version with {requirement!r}"
        found.append((package[1], package[2], [hash_.strip() for hash_ in hashes]))
    return found


@pytest.mark.parametrize("name", PINNED)
def test_everything_that_is_installed_is_pinned_by_its_hash(name: str) -> None:
    packages = pinned(name)
    assert packages
    for package, _, hashes in packages:
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", hash_) for hash_ in hashes), package


@pytest.mark.parametrize("name", PINNED)
def test_what_is_pinned_is_what_the_project_asks_for(name: str) -> None:
    settings = project()
    extras = settings["project"]["optional-dependencies"]
    wanted = [*settings["project"]["dependencies"], *extras["tracing"]]
    if name == "dev":
        wanted += settings["dependency-groups"]["dev"]
    for extra in PINNED[:-1] if name == "dev" else [name]:
        wanted += extras[extra]
    packages = pinned(name)
    for requirement in map(Requirement, wanted):
        package = canonicalize_name(requirement.name)
        versions = [version for pinned_, version, _ in packages if pinned_ == package]
        assert versions, requirement
        assert all(map(requirement.specifier.contains, versions)), requirement


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


INDEX = "|".join(("py" + "pi", "arti" + "factory", "nex" + "us", "dev" + "pi", "ind" + "ex-url"))
PRIVATE = {
    "a package index": re.compile(rf"(https?://|--)[^\s'\"]*({INDEX})|/sim" + r"ple/", re.I),
    "a folder of one machine": re.compile(r"(?<![\w.~])/(ro" + "ot|wo" + r"rk|tmp/w)/"),
}
"""Built from pieces, so that this file passes its own test."""


@pytest.mark.parametrize("what", PRIVATE)
def test_no_file_names_what_exists_on_one_machine_only(what: str) -> None:
    found = []
    for path in tracked():
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PRIVATE[what].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []
