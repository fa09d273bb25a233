"""Builds the bundled snapshot from CSV files: `python -m sizewright_catalog.snapshot_build`."""
