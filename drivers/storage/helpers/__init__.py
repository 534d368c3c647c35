"""The helper processes, from the daemon's side: which there are, the calls to them, and what can be asked of one."""
