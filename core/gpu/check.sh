#!/usr/bin/env bash
# Checks the types of everything that is built for CUDA, without CUDA, and for Metal, without a Mac; and runs what is
# built for CUDA on an emulated device.
set -euo pipefail
cd "$(dirname "$0")/../.."
features=cuda,demo,gpu-check
core/gpu/emulate.sh cargo clippy --release -p tagbrush --no-default-features --features $features --tests -- -D warnings
echo "types of CUDA checked"

# Kernels against the CPU's, networks and some pipelines against their golden files, a full memory, growth.
TAGBRUSH_KERNELS=cuda core/gpu/emulate.sh cargo test --release -p tagbrush --no-default-features --features $features --lib -- \
	models:: tagger:: diffusion:: generate::upscale:: generate::prompt:: edit::tests::pictures gpu_check::
echo "CUDA emulated"

target=aarch64-apple-darwin
if ! rustup target list --installed 2>/dev/null | grep -qx $target && ! rustup target add $target 2>/dev/null; then
	echo "types of Metal not checked: the target $target cannot be added"
	exit 0
fi
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/types \
	cargo clippy -p tagbrush --no-default-features --features metal,cli,demo --target $target -- -D warnings
echo "types of Metal checked"
