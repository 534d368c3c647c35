"""Storage pools: their domains, their master, and the SPM."""
