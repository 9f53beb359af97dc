"""Reasoning traces sampled for known answers, and what they bring as training data."""
