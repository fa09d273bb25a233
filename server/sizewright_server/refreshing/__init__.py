"""Keeps the catalog that is served fresh: follows a home, schedules refreshes, streams them."""
