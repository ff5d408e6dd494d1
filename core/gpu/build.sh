#!/usr/bin/env bash
# Runs cargo with the compiler of `setup.sh`: core/gpu/build.sh build --release --features cuda
#
# What it builds runs on devices of the generation CUDA_COMPUTE_CAP (80: Ampere) and all later ones, for which
# the driver translates it, and on machines without any.
set -euo pipefail
"$(dirname "$0")/setup.sh"
cd "$(dirname "$0")/../.."
here=$(realpath -m "${TAGBRUSH_CUDA_HOME:-target/cuda}")
export CUDA_HOME=$here/home CUDA_PATH=$here/home NVCC=$here/home/bin/nvcc PATH=$here/home/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target}
exec cargo "$@"
