"""Accuracy against forward passes for every sampler, on the arithmetic model's questions."""
