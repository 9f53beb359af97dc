"""Tests of the work on logits rows."""
