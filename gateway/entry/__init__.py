"""Where sockets meet rules: from a request to a caller, from an opened log to a response. Shared by all dialects."""
