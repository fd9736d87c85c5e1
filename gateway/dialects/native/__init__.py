"""The gateway's own API, under `/v1`."""
