"""lm-eval against a server of this plugin."""
