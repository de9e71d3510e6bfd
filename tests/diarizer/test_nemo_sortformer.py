"""NeMo has an environment of its own: it wants other versions than the services do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.models import ModelError
from services.diarizer.config import Settings
from services.diarizer.engines.choice import load_engine
from tests.conftest import ROOT

ENVIRONMENT = ROOT / ".venv-sdks" / "nemo"
TESTS = ("tests/diarizer/nemo_sortformer.py", "tests/diarizer/test_contract.py")


@pytest.mark.timeout(900)
def test_with_nemo_it_does_what_a_sortformer_does_and_keeps_what_every_engine_promises() -> None:
    """Its packages go before ours; torch, and what runs the tests, are ours."""
    if not (ENVIRONMENT / "installed").exists():
        pytest.skip("no environment nemo: make sdks")
    [packages] = ENVIRONMENT.glob("lib/python3*/site-packages")
    # NeMo itself warns of much.
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", "nemo_sortformer")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{packages}:{ROOT}:{ROOT / 'proto' / 'gen'}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [passed] = [line for line in ran.stdout.splitlines() if " passed" in line]
    assert int(passed.split()[0]) >= 30
    assert "skipped" not in passed


def test_without_nemo_the_reason_says_what_installs_it(tmp_path: Path) -> None:
    path = tmp_path / "toy.nemo"
    path.touch()
    with pytest.raises(ModelError, match=r"needs nemo: pip install 'voxmesh\[diarizer-nemo\]'"):
        load_engine(Settings(model=str(path)))


def test_a_folder_with_two_models_is_refused(tmp_path: Path) -> None:
    for name in ("one.nemo", "other.nemo"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"holds 2 \.nemo files: name one of them"):
        load_engine(Settings(model=str(tmp_path)))
