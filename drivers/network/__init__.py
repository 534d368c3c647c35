"""The network driver. Not built yet: its verbs answer code 44."""
