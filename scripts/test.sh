#!/usr/bin/env bash
# All checks, from nothing: install, then lint, types and tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ruff check .
ruff format --check .
pyright
python -m pytest -n auto "$@" # a process a core
