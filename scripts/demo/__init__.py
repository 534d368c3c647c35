"""The demonstration behind scripts/run: a guest runs on while the daemon under it is replaced, three times."""
