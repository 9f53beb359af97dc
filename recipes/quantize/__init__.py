"""A LLaDA with its linear layers in int8."""
