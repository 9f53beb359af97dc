"""Early exit, and scores of reasoning, on templates that the arithmetic model fills."""
