"""pass@1 to pass@64 of every sampler, at equal samples and at equal forward passes."""
