#!/usr/bin/env bash
# Installs the project, then runs lint, type checks and tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ruff check .
ruff format --check .
pyright
# One process per core; an idle one takes over tests from the other.
python -m pytest -n auto --dist worksteal "$@"
