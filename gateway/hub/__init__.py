"""In-process fan-out: one ring a run, readers as cursors into it, frames encoded once."""
