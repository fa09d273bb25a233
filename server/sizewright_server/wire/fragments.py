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
    """What `make` serialises of each value, kept for as long as the value lives; `most` of them.

    Values are told apart by identity, which no comparison of whole trees is as fast as.
    """

    def __init__(self, make: Callable[[Value], bytes], *, most: int) -> None:
        self._make, self._most = make, most
        self._made: dict[int, tuple[weakref.ref[Value], bytes]] = {}

    def of(self, value: Value) -> bytes:
        """The bytes of a value."""
        identity = id(value)
        found = self._made.get(identity)
        if found is not None:
            return found[1]
        made = self._make(value)
        if len(self._made) >= self._most:
            self._made.clear()
        alive = weakref.ref(value, lambda _: self._made.pop(identity, None))
        self._made[identity] = alive, made
        return made


def serialized(message: Message) -> bytes:
    """A message's bytes, the same for the same content in every process."""
    made: bytes = message.SerializeToString(deterministic=True)
    return made


def embedded(field_number: int, *message: bytes) -> bytes:
    """A serialised message, in one piece or several, as a field of another."""
    length = sum(map(len, message))
    return b"".join((head(field_number, length), *message))


@lru_cache(maxsize=4096)
def head(field_number: int, length: int) -> bytes:
    """What goes before a serialised message of a length where it is a field of another."""
    return _varint(field_number << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > LOW_BITS:
        made.append(number & LOW_BITS | MORE)
        number >>= BITS
    made.append(number)
    return bytes(made)
