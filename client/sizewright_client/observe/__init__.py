"""Runs a command and reports the memory that its processes really took."""
