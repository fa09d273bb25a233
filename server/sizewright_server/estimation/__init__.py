"""Pure estimation: a workload in, the memory it takes out. No I/O beyond its own data files."""
