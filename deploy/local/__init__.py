"""Runs the whole stack on this machine, without containers: `make up`, `make demo` and the tests."""
