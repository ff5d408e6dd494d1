#!/usr/bin/env bash
# Runs a command with the compiler of `setup.sh`: core/gpu/with-nvcc.sh cargo build --release --features cuda
#
# What it builds runs on devices of the generation CUDA_COMPUTE_CAP (80: Ampere) and all later ones, for which
# the driver translates it, and on machines without any.
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
"$root/core/gpu/setup.sh"
here=$(cd "$root" && realpath -m "${TAGBRUSH_CUDA_HOME:-target/cuda}")
export CUDA_HOME=$here/home CUDA_PATH=$here/home NVCC=$here/home/bin/nvcc PATH=$here/home/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target}
exec "$@"
