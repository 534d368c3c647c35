"""The policy engine: a process beside the daemon that shares out the host's memory, by rules, through the public API alone.

`owner` is the daemon's side of it. All the rest is the engine's, and what both need to tell a policy from other text.
"""
