# Sourced, not run: makes or reuses .venv in the repository root and puts it first on PATH. LIGHTRFT_ROOT is that root.
#
#   PYTHON                 the Python (3.10 to 3.13) to make .venv from; default: the first that is found
#   LIGHTRFT_ENVIRONMENT   a complete environment to use as it is, in place of .venv
#   LIGHTRFT_INSTALL       no: nothing is installed; where .venv is not complete, the Python that is there is used
#   LIGHTRFT_TORCH_INDEX   package index for torch, e.g. the index of CPU wheels of the PyTorch project: without it,
#                          torch's default build may bring gigabytes of CUDA libraries onto a machine without a GPU
#
# An installed torch (of the active environment or the system) is reused. Once .venv is complete this costs nothing;
# a change of setup.py or pyproject.toml, or an interrupted installation, makes it install again.

LIGHTRFT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
LIGHTRFT_TORCH="torch==2.13.0"
LIGHTRFT_VENV="$LIGHTRFT_ROOT/.venv"

_fail() {
    echo "env: $*" >&2
    return 1
}

_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

_find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        _is_supported "$PYTHON" || { _fail "PYTHON=$PYTHON is not a Python of 3.10 to 3.13"; return 1; }
        echo "$PYTHON"
        return 0
    fi
    for name in python3 python python3.13 python3.12 python3.11 python3.10; do
        if _is_supported "$name"; then
            echo "$name"
            return 0
        fi
    done
    _fail "no Python of 3.10 to 3.13 found; install one, or name it: PYTHON=/path/to/python3"
}

_has_torch() {
    "$1" -c 'import torch; torch.zeros(1)' >/dev/null 2>&1
}

_make_venv() {
    local base
    base="$(_find_python)" || return 1
    if _has_torch "$base"; then
        echo "env: making .venv, reusing the torch of $base"
        "$base" -m venv --system-site-packages "$LIGHTRFT_VENV" || { _fail "$base cannot make a venv (python3-venv missing?)"; return 1; }
        # A venv made from inside another venv sees the system's packages but not that venv's.
        if ! _has_torch "$LIGHTRFT_VENV/bin/python"; then
            "$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
                >"$("$LIGHTRFT_VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_base.pth"
        fi
    else
        echo "env: making .venv"
        "$base" -m venv "$LIGHTRFT_VENV" || { _fail "$base cannot make a venv (python3-venv missing?)"; return 1; }
    fi
}

_install() {
    local pip=("$LIGHTRFT_VENV/bin/python" -m pip install -qq --disable-pip-version-check)
    if ! _has_torch "$LIGHTRFT_VENV/bin/python"; then
        echo "env: installing $LIGHTRFT_TORCH"
        "${pip[@]}" "$LIGHTRFT_TORCH" ${LIGHTRFT_TORCH_INDEX:+--index-url "$LIGHTRFT_TORCH_INDEX"} ||
            { _fail "torch could not be installed; another index: LIGHTRFT_TORCH_INDEX=URL"; return 1; }
    fi
    echo "env: installing lightrft and its requirements"
    local torch # a newer torchvision would bring a newer torch
    torch="torch==$("$LIGHTRFT_VENV/bin/python" -c 'import torch; print(torch.__version__.partition("+")[0])')"
    "${pip[@]}" "$torch" --editable "$LIGHTRFT_ROOT[examples,test]" || { _fail "lightrft could not be installed"; return 1; }
    # Programs that import transformers first need it too. A copy: `import lightrft` here would tie every program to this
    # folder's.
    local site
    site="$("$LIGHTRFT_VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp "$LIGHTRFT_ROOT/lightrft/torchvision_operators.py" "$site/torchvision_operators.py"
    echo "import torchvision_operators; torchvision_operators.declare_where_missing()" >"$site/zz_torchvision.pth"
}

# What .venv was installed from; it holds the folder too, since a moved venv is a broken one.
_fingerprint() {
    { echo "$LIGHTRFT_ROOT"; cat "$LIGHTRFT_ROOT/setup.py" "$LIGHTRFT_ROOT/pyproject.toml"; } | cksum
}

_is_complete() {
    [ -x "$LIGHTRFT_VENV/bin/python" ] && [ "$(cat "$LIGHTRFT_VENV/lightrft-installed" 2>/dev/null)" = "$(_fingerprint)" ]
}

_use_what_is_there() {
    local needs='import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "transformers", "datasets"))))'
    python -c "$needs" 2>/dev/null ||
        { _fail "the Python on PATH lacks what lightrft needs; activate one that has it, or set LIGHTRFT_ENVIRONMENT"; return 1; }
    LIGHTRFT_VENV="$(python -c 'import sys; print(sys.prefix)')"
}

_ensure() {
    local stamp="$LIGHTRFT_VENV/lightrft-installed"
    _is_complete && return 0
    rm -f "$stamp"
    if ! "$LIGHTRFT_VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        _make_venv || return 1
    fi
    _install || return 1
    _fingerprint >"$stamp"
}

# The first of NAME, NAME-2, NAME-3 … that does not exist or is empty.
fresh_folder() {
    local folder="$1" n=2
    while [ -n "$(ls -A "$folder" 2>/dev/null)" ]; do
        folder="$1-$n"
        n=$((n + 1))
    done
    echo "$folder"
}

if [ -n "${LIGHTRFT_ENVIRONMENT:-}" ]; then
    LIGHTRFT_VENV="$LIGHTRFT_ENVIRONMENT"
    [ -x "$LIGHTRFT_VENV/bin/python" ] || { _fail "LIGHTRFT_ENVIRONMENT=$LIGHTRFT_VENV has no bin/python"; return 1; }
elif [ "${LIGHTRFT_INSTALL:-}" = no ] && ! _is_complete; then
    _use_what_is_there || return 1
else
    _ensure || return 1
fi
export VIRTUAL_ENV="$LIGHTRFT_VENV" PATH="$LIGHTRFT_VENV/bin:$PATH"
unset PYTHONHOME LIGHTRFT_VENV
unset -f _fail _is_supported _find_python _has_torch _make_venv _install _fingerprint _ensure _is_complete \
    _use_what_is_there
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # torch's default wastes whole cores where threads contend
export TOKENIZERS_PARALLELISM=false
