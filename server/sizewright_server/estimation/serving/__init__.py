"""Serving engines: what they take on each GPU and in host memory, and how much they then hold.

`reading` turns a configuration into a `ServedModel` (tensors and caches by layer), `weights` and
`caches` turn that into bytes of one rank, and one module per engine holds the engine's rules; what
differs between versions is data (`data/engines.json`).
"""
