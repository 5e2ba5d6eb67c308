#!/usr/bin/env bash
# bash tests/engines/environment.sh vllm|sglang: an environment of its own, .venv-vllm or .venv-sglang beside .venv, for
# the tests that run that engine without a GPU. Two to three minutes and some gigabytes; once it is complete, nothing.
# A change of its requirements or of setup.py makes it anew. PYTHON and LIGHTRFT_TORCH_INDEX as in examples/env.sh.
set -euo pipefail

engine="${1:-}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
requirements="$here/$engine.txt"
if [ ! -f "$requirements" ]; then
    echo "environment: vllm or sglang, not '$engine'" >&2
    exit 2
fi
. "$here/../../examples/env.sh"
venv="$LIGHTRFT_ROOT/.venv-$engine"
stamp="$venv/lightrft-installed"
wanted="$({ echo "$venv"; cat "$requirements" "$here/environment.sh" "$here"/sglang_shims/*.py "$LIGHTRFT_ROOT/setup.py"; } | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

install() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"
}

echo "environment: making $venv"
rm -rf "$venv"
"$VIRTUAL_ENV/bin/python" -m venv "$venv"
install "$LIGHTRFT_TORCH" ${LIGHTRFT_TORCH_INDEX:+--index-url "$LIGHTRFT_TORCH_INDEX"}
install -r "$requirements" --editable "$LIGHTRFT_ROOT"
case "$engine" in
    vllm) # it asks for those of CUDA, which cannot be imported here; of torchvision processors need the Python part
        "$venv/bin/python" -m pip uninstall -qq -y torchaudio torchcodec
        site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
        cp "$LIGHTRFT_ROOT/lightrft/torchvision_operators.py" "$site/torchvision_operators.py" # as examples/env.sh does
        echo "import torchvision_operators; torchvision_operators.declare_where_missing()" >"$site/zz_torchvision.pth"
        ;;
    sglang) # what it declares is for GPUs
        install --no-deps torchvision==0.28.0 sglang==0.5.23
        cp "$here"/sglang_shims/*.py "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
        ;;
esac
echo "$wanted" >"$stamp"
