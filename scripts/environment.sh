# Sourced by quickstart.sh, test.sh and gpu.sh. Makes .venv with the project installed, again if pyproject.toml changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed-from
if ! cmp -s pyproject.toml "$stamp"; then
    python=""
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
    done
    [ -n "$python" ] || { echo "error: Python 3.11 or newer is needed" >&2; exit 2; }
    echo "Installing into .venv (once; PyTorch is large) ..."
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
    cp pyproject.toml "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
