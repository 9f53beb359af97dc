#!/usr/bin/env bash
# From nothing to an answer: install, serve the small LLaDA that comes with the repository, ask it
# a question with two samplers, stop.
#
#   bash recipes/quickstart.sh [MODEL] [--question TEXT] [--sampler NAME ...]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

bash "$root/recipes/setup.sh"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$root/.venv/bin/python" -m recipes.quickstart "$@"
