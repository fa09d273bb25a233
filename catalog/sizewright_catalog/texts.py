"""The dictionaries of a version: texts that its columns point into, each read when asked for."""

from __future__ import annotations

from functools import cached_property

from sizewright_catalog.snapshot import Arrays, read_text


class Texts:
    """Lists of texts by position."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    @cached_property
    def type_names(self) -> list[str]:
        """The providers' own names, one per type."""
        return read_text(self._arrays["type_name"])

    @cached_property
    def zone_sets(self) -> list[frozenset[str]]:
        """The zones an offer's `zones` index stands for; empty where they are not known."""
        return [frozenset(text.split()) for text in read_text(self._arrays["zone_sets"])]

    @cached_property
    def zones(self) -> list[str]:
        """Names of the zones that have a price of their own; the first stands for none."""
        return read_text(self._arrays["zones"])

    @cached_property
    def fabrics(self) -> list[str]:
        """Kinds of network between nodes; the first stands for one that is not known."""
        return read_text(self._arrays["fabrics"])

    @cached_property
    def network_sources(self) -> list[str]:
        """Who says how fast the network between nodes is."""
        return read_text(self._arrays["network_sources"])

    @cached_property
    def local_disk_sources(self) -> list[str]:
        """Who says how much disk comes with a type."""
        return read_text(self._arrays["local_disk_sources"])

    @cached_property
    def interruption_sources(self) -> list[str]:
        """Who says how often spot instances are taken back."""
        return read_text(self._arrays["interruption_sources"])

    @cached_property
    def commitments(self) -> list[str]:
        """What committed prices ask for; the first stands for nothing."""
        return read_text(self._arrays["commitments"])

    @cached_property
    def sources(self) -> list[str]:
        """Where prices were read."""
        return read_text(self._arrays["sources"])
