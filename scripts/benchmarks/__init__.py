"""Benchmarks of the running daemon. Each prints progress on standard error and ends with one JSON object."""
