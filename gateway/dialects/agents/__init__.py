"""Run management by agent: list, fetch, cancel, pause, resume, retry, as pure projections of the one run."""
