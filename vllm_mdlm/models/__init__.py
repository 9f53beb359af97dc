"""Networks of the served architectures."""
