#!/usr/bin/env bash
# Installs the project, runs four recipes × two seeds on scikit-learn's digits (no download), and prints their table.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python scripts/matrix.py experiment=quickstart
python scripts/tables.py quickstart --print
