"""Refreshes providers, in a process of its own: `python -m sizewright_catalog.refresh`."""
