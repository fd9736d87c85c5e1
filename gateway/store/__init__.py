"""The only speaker of Redis: keys, scripts, and what they keep."""
