"""Independent reference: LLaDA's network and decoding loops in plain torch, without vLLM."""
