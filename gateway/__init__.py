"""A real-time gateway for agent and workflow runs."""

__version__ = "0.1.0"
