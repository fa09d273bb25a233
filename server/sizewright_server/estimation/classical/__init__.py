"""Host memory of jobs on tables and of networks on the CPU, by what the libraries allocate."""
