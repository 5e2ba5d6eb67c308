#!/usr/bin/env bash
# bash tests/run.sh [pytest arguments]: lint, format, types, tests, these by TEST_WORKERS processes. Pytest's summary
# is the last line; the exit status is pytest's, or 1 where only a check before it failed.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../examples/env.sh" || exit 1
cd "$LIGHTRFT_ROOT" || exit 1

failed=0
check() {
    if ! "$@"; then
        echo "tests/run.sh: failed: $*" >&2
        failed=1
    fi
}
check python -m ruff check .
check python -m ruff format --check .
check python -m pyright

python -m pytest -n "${TEST_WORKERS:-0}" --dist loadfile "$@" # 0: in this process
status=$?
if [ "$status" -ne 0 ]; then exit "$status"; fi
exit "$failed"
