"""Threads, their runs, input, and events with `after_seq`."""
