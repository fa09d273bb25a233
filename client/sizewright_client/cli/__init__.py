"""The `sizewright` command."""
