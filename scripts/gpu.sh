#!/usr/bin/env bash
# Runs the SASG paper's experiments with ResNet18 (Table II, Figures 4 and 5), one after another on one GPU. If started
# again, it resumes; after every run it prints how long the rest will take. Arguments go to every run.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "error: no CUDA device is here" >&2; exit 2; }
failed=0
for experiment in sasg_cifar10 sasg_cifar100 sasg_density_resnet18 sasg_heterogeneous_resnet18; do
    python scripts/matrix.py "experiment=$experiment" trainer.accelerator=cuda logger=csv "$@" || failed=$?
    [ "$failed" -ne 130 ] || exit 130 # Ctrl-C
done
python scripts/tables.py
python scripts/figures.py
exit "$failed"
