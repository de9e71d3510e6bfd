"""The pools of recognisers behind the gateway, and which one serves a model."""

from dataclasses import dataclass

from services.gateway.session import Task


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a pool can do."""

    name: str
    """Catalogue name, such as ``base``."""
    engine: str
    """Engine and where it runs, such as ``ctranslate2/cpu/int8``."""
    language_codes: tuple[str, ...]
    """ISO 639-1 codes of the languages it understands."""
    tasks: tuple[Task, ...]
