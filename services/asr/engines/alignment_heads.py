"""Which cross-attention heads of a Whisper model follow the speech: the forms they are named in.

A head is (decoder layer, head). OpenAI publishes its heads as dumps: a mask with a byte per head,
gzipped, in base 85 (openai/whisper, ``__init__.py``); Hugging Face and CTranslate2 as lists.
"""

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterable
from itertools import product
from typing import TypeAlias

from services.common.models import ModelError

Head: TypeAlias = tuple[int, int]
"""(decoder layer, head), both from 0."""

PUBLISHED = {
    "tiny.en": "ABzY8J1N>@0{>%R00Bk>$p{7v037`oCl~+#00",
    "tiny": "ABzY8bu8Lr0{>%RKn9Fp%m@SkK7Kt=7ytkO",
    "base.en": "ABzY8;40c<0{>%RzzG;p*o+Vo09|#PsxSZm00",
    "base": "ABzY8KQ!870{>%RzyTQH3`Q^yNP!>##QT-<FaQ7m",
    "small.en": "ABzY8>?_)10{>%RpeA61k&I|OI3I$65C{;;pbCHh0B{qLQ;+}v00",
    "small": "ABzY8DmU6=0{>%Rpa?J`kvJ6qF(V^F86#Xh7JUGMK}P<N0000",
    "medium.en": "ABzY8usPae0{>%R7<zz_OvQ{)4kMa0BMw6u5rT}kRKX;$NfYBv00*Hl@qhsU00",
    "medium": "ABzY8B0Jh+0{>%R7}kK1fFL7w6%<-Pf*t^=N)Qr&0RR9",
    "large-v1": "ABzY8r9j$a0{>%R7#4sLmoOs{s)o3~84-RPdcFk!JR<kSfC2yj",
    "large-v2": "ABzY8zd+h!0{>%R7=D0pU<_bnWW*tkYAhobTNnu$jnkEkXqp)j;w1Tzk)UH3X%SZd&fFZ2fC2yj",
    "large-v3": "ABzY8gWO1E0{>%R7(9S+Kn!D~%ngiGaR?*L!iJG9p-nab0JQ=-{D1-g00",
    "large-v3-turbo": "ABzY8j^C+e0{>%RARaKHP%t(lGR*)0g!tONPyhe`",
}
"""OpenAI's dumps, by the name of the checkpoint: its file does not hold them."""


def parse_heads(text: str, *, num_layers: int, num_heads: int) -> tuple[Head, ...]:
    """Read heads in any form: ``[[layer, head], ...]``, or a dump.

    Raises:
        ModelError: It is neither, or names a head that the model does not have.

    """
    text = text.strip()
    heads = _listed(text) if text.startswith("[") else _dumped(text, num_layers, num_heads)
    return checked_heads(heads, num_layers=num_layers, num_heads=num_heads)


def checked_heads(
    heads: Iterable[Iterable[int]], *, num_layers: int, num_heads: int
) -> tuple[Head, ...]:
    """The heads, each once and in order.

    Raises:
        ModelError: There is none, or the model does not have one of them.

    """
    found = sorted({(layer, head) for layer, head in heads})
    if not found:
        raise ModelError("no alignment head is named")
    for layer, head in found:
        if not (0 <= layer < num_layers and 0 <= head < num_heads):
            raise ModelError(
                f"the model has no head [{layer}, {head}]:"
                f" its decoder has {num_layers} layers of {num_heads} heads"
            )
    return tuple(found)


def default_heads(*, num_layers: int, num_heads: int) -> tuple[Head, ...]:
    """All heads of the last half of the layers: what OpenAI takes where nothing is known."""
    return tuple(product(range(num_layers // 2, num_layers), range(num_heads)))


def dump_heads(heads: Iterable[Head], *, num_layers: int, num_heads: int) -> str:
    """The heads as OpenAI publishes them."""
    mask = bytearray(num_layers * num_heads)
    for layer, head in heads:
        mask[layer * num_heads + head] = 1
    return base64.b85encode(gzip.compress(mask, mtime=0)).decode()


def _listed(text: str) -> list[Head]:
    try:
        return [(int(layer), int(head)) for layer, head in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ModelError(f"alignment heads should look like [[3, 0], [3, 1]]: {error}") from error


def _dumped(text: str, num_layers: int, num_heads: int) -> list[Head]:
    try:
        mask = gzip.decompress(base64.b85decode(text))
    except (ValueError, binascii.Error, OSError, EOFError, zlib.error) as error:
        raise ModelError(
            f"alignment heads should be [[layer, head], ...] or a dump: {error}"
        ) from error
    if len(mask) != num_layers * num_heads:
        raise ModelError(
            f"the dump is of a model with {len(mask)} heads, not {num_layers * num_heads}"
        )
    return [divmod(index, num_heads) for index, marked in enumerate(mask) if marked]
