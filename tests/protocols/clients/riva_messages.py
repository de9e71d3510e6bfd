"""What ``nvidia-riva-client`` puts on the wire: ``riva_messages.py``."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from riva.client.proto import riva_asr_pb2, riva_audio_pb2, riva_common_pb2


def told(what: str, **observed: Any) -> None:
    print(json.dumps({"what": what, **observed}), flush=True)


def described(message: Descriptor) -> dict[str, Any]:
    return {
        field.name: [field.number, field.type, field.is_repeated, kind_of(field)]
        for field in message.fields
    }


def kind_of(field: FieldDescriptor) -> str:
    kind = field.message_type or field.enum_type
    return kind.full_name if kind else ""


def messages(found: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in found:
        yield message
        yield from messages(message.nested_types)


for file in (riva_asr_pb2.DESCRIPTOR, riva_common_pb2.DESCRIPTOR):
    for message in messages(file.message_types_by_name.values()):
        told("message", name=message.full_name, fields=described(message))
for enum in riva_audio_pb2.DESCRIPTOR.enum_types_by_name.values():
    told("enum", name=enum.full_name, values={value.name: value.number for value in enum.values})
