"""The web console: static files."""
