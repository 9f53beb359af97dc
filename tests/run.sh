#!/usr/bin/env bash
# Install, then lint, import contracts, types and tests. Stops at the first that fails.
#
#   bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
  echo "== $*"
  "$@"
}

bash recipes/setup.sh auto --dev
step .venv/bin/ruff check .
step .venv/bin/ruff format --check .
step .venv/bin/lint-imports
step .venv/bin/mypy
step .venv/bin/pytest "$@"
