"""The store, against a real one."""
