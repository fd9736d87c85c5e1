"""Vocabularies: each folder projects the one run into one system's words. They know runs, not sockets."""
