"""The sizing engine and its gRPC service."""
