"""P10: every knob has an effect that a test observes, or it does not exist."""

import importlib
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from services.asr.config import Settings as AsrSettings
from services.cli.__main__ import app
from services.common.settings import ServiceSettings
from services.diarizer.config import Settings as DiarizerSettings
from services.gateway.config import Settings as GatewaySettings
from services.translator.config import Settings as TranslatorSettings
from services.vad.config import Settings as VadSettings
from tests.settings.flips import FLIPPED, flips

SETTINGS: dict[str, type[ServiceSettings]] = {
    "VAD": VadSettings,
    "ASR": AsrSettings,
    "DIARIZER": DiarizerSettings,
    "TRANSLATOR": TranslatorSettings,
    "GATEWAY": GatewaySettings,
}


def options() -> dict[str, set[str]]:
    """The names of all options and arguments, by command."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        f"voxmesh {name}": {str(parameter.name) for parameter in command.params}
        for name, command in group.commands.items()
    }


@pytest.fixture(scope="module", autouse=True)
def _all_tests_are_known() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            importlib.import_module(f"tests.settings.{path.stem}")


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_of_a_service_has_a_test_that_flips_it(service: str) -> None:
    assert set(SETTINGS[service].model_fields) == FLIPPED[service]


@pytest.mark.parametrize("command", options())
def test_every_option_of_a_command_has_a_test_that_flips_it(command: str) -> None:
    assert options()[command] == FLIPPED[command]


def test_every_flip_is_one_of_something_that_exists() -> None:
    assert {owner for owner, names in FLIPPED.items() if names} <= {*SETTINGS, *options()}


def test_a_flip_without_a_difference_is_no_test() -> None:
    with pytest.raises(ValueError, match="threads shows no difference"):
        flips("VAD", threads={1: "the same", 2: "the same"})
