"""Protobuf to values and back: the only validator of a request."""
