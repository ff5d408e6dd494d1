#!/usr/bin/env bash
# Runs a command with stand-ins for nvcc and for NVIDIA's libraries, which run kernels on the processor:
# core/gpu/emulate.sh cargo test --release -p tagbrush --features cuda --lib
#
# What is built is what people get, but for nvcc's translation of the kernels. TAGBRUSH_EMULATED_MEMORY sets the
# megabytes of the device (2048); TAGBRUSH_EMULATED_LOG names a file for all that is asked of it, a line each.
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/types
here=$(realpath -m "$CARGO_TARGET_DIR/emulated")

source_of() {
	(cd "$root" && cargo metadata --format-version 1 --locked --features tagbrush/cuda) |
		python3 -c "import json, sys; print(next(p['manifest_path'] for p in json.load(sys.stdin)['packages'] if p['name'] == '$1'))" |
		xargs dirname
}

# What a program with CUDA is linked to.
if [ ! -e "$here/home/ready" ]; then
	python3 "$root/core/gpu/shims.py" "$(source_of cudarc)" "$here/home/lib64" >/dev/null
	printf '!<arch>\n' >"$here/home/lib64/libcudart.a"
	touch "$here/home/ready"
fi

# What it finds in the place of NVIDIA's libraries.
sources=$root/core/tests/emulated
changed() { find "$sources" "$root/core/src/kernels" \( -name '*.c*' -o -name '*.h' \) -newer "$here/libcuda.so.1" -print -quit; }
if [ ! -e "$here/libcuda.so.1" ] || [ -n "$(changed)" ]; then
	tensors=$(source_of candle-kernels)/src
	flags=(-std=c++17 -fPIC -fvisibility=hidden -Wall -Wno-unknown-pragmas -I "$sources/driver/include"
		-I "$root/core/src/kernels" -I "$tensors" -I "$here")
	compile() { "${CXX:-c++}" "${flags[@]}" "${@:2}" -c "$sources/$1.cpp" -o "$here/$(basename "$1").o"; }
	"${CXX:-c++}" "${flags[@]}" -DLIST -E -P "$sources/driver/tensors.cpp" 2>/dev/null |
		sed -nE 's/.*EMULATED_GLOBAL +void +([A-Za-z0-9_]+).*/ENTRY(\1)/p' >"$here/kernels.inc"
	compile emulate -O2 -w
	compile driver/cuda -O2
	compile driver/memory -O2
	compile driver/blas -O3
	compile driver/tensors -O1 -w
	"${CXX:-c++}" -shared -Wl,-Bsymbolic -o "$here/libcuda.so.1" "$here"/*.o
	for library in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do ln -sf libcuda.so.1 "$here/$library"; done
fi

export CUDA_HOME=$here/home CUDA_PATH=$here/home NVCC=$root/core/gpu/nvcc PATH=$root/core/gpu:$PATH
export CUDA_COMPUTE_CAP=80 TAGBRUSH_PTX='// kernels of the emulated device'
export TAGBRUSH_CUDA_PATH=$here
exec "$@"
