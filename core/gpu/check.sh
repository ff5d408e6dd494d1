#!/usr/bin/env bash
# Checks the types of everything that is built for CUDA, without CUDA, and for Metal, without a Mac.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Build scripts do not notice that nvcc is another one: this folder is for its stand-in only.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/types
PATH=$PWD/core/gpu:$PATH NVCC=$PWD/core/gpu/nvcc CUDA_COMPUTE_CAP=80 \
	cargo clippy -p tagbrush --features cuda,gpu-check -- -D warnings
echo "types of CUDA checked"

target=aarch64-apple-darwin
if ! rustup target list --installed 2>/dev/null | grep -qx $target && ! rustup target add $target 2>/dev/null; then
	echo "types of Metal not checked: the target $target cannot be added"
	exit 0
fi
cargo clippy -p tagbrush --no-default-features --features metal,cli,demo --target $target -- -D warnings
echo "types of Metal checked"
