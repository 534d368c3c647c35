"""Storage that shows in the repository because a client wants it there."""
