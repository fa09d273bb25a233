"""Serialised pieces of answers, made once of each value and joined into every answer it is in.

Protobuf defines that the concatenation of two serialised messages is the two merged: scalar fields
of the later win, repeated fields follow each other. So a plan is its price, its offer and its
placement one after the other, and an answer is a row of plans with their lengths in front.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

from google.protobuf.message import Message

Value = TypeVar("Value")

#: The wire type of a field whose length goes before it.
LENGTH_DELIMITED = 2
MORE, LOW_BITS, BITS = 0x80, 0x7F, 7


class Fragments(Generic[Value]):
    """What `make` serialises, kept for each value for as long as the value itself lives.

    Values are told apart by identity, which no comparison of whole trees is as fast as.
    """

    def __init__(self, make: Callable[[Value], Message]) -> None:
        self._make = make
        self._made: dict[int, tuple[weakref.ref[Value], bytes]] = {}

    def of(self, value: Value) -> bytes:
        """The bytes of a value; the same for the same content in every process."""
        identity = id(value)
        found = self._made.get(identity)
        if found is not None:
            return found[1]
        made: bytes = self._make(value).SerializeToString(deterministic=True)
        alive = weakref.ref(value, lambda _: self._made.pop(identity, None))
        self._made[identity] = alive, made
        return made


def embedded(field_number: int, message: bytes) -> bytes:
    """A serialised message as a field of another."""
    tag = field_number << 3 | LENGTH_DELIMITED
    return _varint(tag) + _varint(len(message)) + message


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    made = bytearray()
    while number > LOW_BITS:
        made.append(number & LOW_BITS | MORE)
        number >>= BITS
    made.append(number)
    return bytes(made)
