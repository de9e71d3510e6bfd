"""Tests that flip a knob: each says what the knob does at two values, and is counted."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from services.common import settings
from services.common.settings import ServiceSettings

FLIPPED: defaultdict[str, set[str]] = defaultdict(set)
"""The names of the knobs that have a test, by whose they are."""

Test = TypeVar("Test", bound=Callable[..., object])
Settings = TypeVar("Settings", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Flip:
    """One knob at one value, everything else being equal."""

    owner: str
    """A service in capitals, or a command."""
    name: str
    value: Any
    effect: Any
    """What is observed then, and not at the other value."""


def flips(*owners: str, **effects: Mapping[Any, object]) -> Callable[[Test], Test]:
    """Run a test, as its ``flip``, with every value of every knob, and count the knobs.

    Args:
        owners: Whose knobs they are.
        effects: For each knob, what is observed at one value and at another.

    Raises:
        ValueError: A knob has the same effect at all values: nothing would be shown.

    """
    for name, by_value in effects.items():
        if len({repr(effect) for effect in by_value.values()}) < 2:
            raise ValueError(f"{name} shows no difference")
    cases = [
        pytest.param(Flip(owner, name, value, effect), id=f"{owner}-{name}-{value}")
        for owner in owners
        for name, by_value in effects.items()
        for value, effect in by_value.items()
    ]

    def register(test: Test) -> Test:
        if not test.__name__.startswith("test_"):
            raise ValueError(f"{test.__name__} would never run")
        for owner in owners:
            FLIPPED[owner] |= effects.keys()
        decorated: Test = pytest.mark.parametrize("flip", cases)(test)
        return decorated

    return register


def environment(kind: type[ServiceSettings], **chosen: object) -> dict[str, str]:
    """The variables that choose settings, as whoever runs a service writes them."""
    prefix = kind.model_config["env_prefix"]
    return {
        f"{prefix}{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in chosen.items()
    }


def load(kind: type[Settings], monkeypatch: pytest.MonkeyPatch, **chosen: object) -> Settings:
    """Settings read from variables, and from none but these."""
    for name in os.environ:
        if name.startswith(kind.model_config["env_prefix"]):
            monkeypatch.delenv(name)
    for name, value in environment(kind, **chosen).items():
        monkeypatch.setenv(name, value)
    return settings.load(kind)
