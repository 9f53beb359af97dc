"""What the package relies on in vLLM, and the patches that would make it rely on less."""
