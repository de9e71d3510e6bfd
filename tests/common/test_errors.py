import re

import grpc
import pytest

from services.common import errors
from services.common.errors import MeshError

CLASSES = MeshError.__subclasses__()


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    told = re.findall(r"^  \+ (\w+) +([A-Z_]+)  +\S", errors.__doc__ or "", re.MULTILINE)
    assert told == [(error.__name__, error.code.name) for error in CLASSES]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_has_a_status_and_a_reason_of_its_own(error: type[MeshError]) -> None:
    assert isinstance(error.code, grpc.StatusCode)
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", error.reason)
    assert [other.reason for other in CLASSES].count(error.reason) == 1


def test_a_client_that_left_is_no_error_of_the_mesh() -> None:
    assert not issubclass(errors.ClientLeftError, MeshError)
