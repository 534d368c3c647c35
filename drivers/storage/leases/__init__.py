"""Leases: which way one is held on a domain, this host's ids, and the keeper that holds them, from the daemon's side."""
