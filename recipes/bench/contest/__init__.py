"""The parts of `recipes.bench.peers`: contenders in processes of their own, run in turn."""
