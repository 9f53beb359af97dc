"""The denoising executor: span scheduling, slot state, and the step itself."""
