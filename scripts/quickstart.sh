#!/usr/bin/env bash
# The main job, from nothing: install, then four recipes × two seeds on embedded real data, and their table.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python scripts/matrix.py experiment=quickstart
python scripts/tables.py quickstart --print
