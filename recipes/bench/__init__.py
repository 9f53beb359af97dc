"""Measurements: what a pass costs, what sampling costs, and how other engines compare."""
