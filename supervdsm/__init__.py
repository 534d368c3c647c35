"""The privileged helper. Not built yet: vdsmd does nothing so far that it could not do as the user who started it."""
