"""Values and rules of runs; no I/O."""
