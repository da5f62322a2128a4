#!/usr/bin/env bash
# Installs the project, then runs the ResNet18 experiments on one GPU: scripts/gpu.py, whose --help tells of the arguments.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python scripts/gpu.py "$@"
