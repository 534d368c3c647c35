"""The daemon: life cycle, configuration, API."""
