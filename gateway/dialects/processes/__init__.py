"""Runs of processes: start, list, fetch, with named inputs and outputs, as pure projections of the one run."""
