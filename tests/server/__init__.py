"""A real server, driven over HTTP."""
