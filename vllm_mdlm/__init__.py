"""Masked diffusion language models on vLLM."""
