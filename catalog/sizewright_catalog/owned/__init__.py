"""Machines that people own: a library of them, what an hour costs, and files that describe them."""
