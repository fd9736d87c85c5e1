"""Use cases, free of transports."""
