#!/usr/bin/env bash
# Puts a compiler for CUDA where `with-nvcc.sh` looks for it: nvcc of PyPI's packages, and libraries that load
# NVIDIA's when they are used. Needs Python 3, a C compiler and 0.5 GB; no driver, no device.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$(realpath -m "${TAGBRUSH_CUDA_HOME:-target/cuda}")
version=13.0.3
[ -e "$here/ready-$version" ] && exit 0
mkdir -p "$here"

python3 -m venv --clear "$here/python"
"$here/python/bin/pip" install --quiet "cuda-toolkit[nvcc,crt,nvvm,cudart,cccl]==$version"
packages=$("$here/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13

# What build scripts expect of CUDA_HOME. Of NVIDIA's libraries it has only those to be linked.
rm -rf "$here/home"
mkdir -p "$here/home/lib64"
for part in bin include nvvm; do cp -al "$packages/$part" "$here/home/"; done
cp "$packages/lib/libcudadevrt.a" "$here/home/lib64/"
cp "$packages/lib/libcudart_static.a" "$here/home/lib64/libcudart.a"
cargo fetch --quiet --locked
crate=$(cargo metadata --format-version 1 --locked --features tagbrush/cuda |
	python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
python3 core/gpu/shims.py "$(dirname "$crate")" "$here/home/lib64"
touch "$here/ready-$version"
