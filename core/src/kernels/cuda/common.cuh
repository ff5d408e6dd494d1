// What the kernels share: number formats, vectors of 16 bytes, sums over the threads of a row.
//
// Every kernel takes one structure, whose twin stands in the `cuda.rs` beside its `cuda.cu`. The same
// source is compiled by nvcc for a device and, with EMULATED, by a C++ compiler for the tests.
#pragma once

#ifdef EMULATED
#include "emulate.h"
#else
#include <cuda_runtime.h>
#define KERNEL(name, Args, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args a)
extern __shared__ __align__(16) unsigned char shared_memory[];
template <class T> __device__ __forceinline__ T* shared() { return reinterpret_cast<T*>(shared_memory); }
#endif

constexpr float LOG2_E = 1.4426950408889634f;

// bfloat16: the upper half of a float.
struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
__device__ __forceinline__ float to_float(unsigned char x) { return float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
#ifdef EMULATED
    y.bits = emulated::round_bf16(x);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
    return y;
}

// Two values in a register, the first one in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
#ifdef EMULATED
    return unsigned(emulated::round_bf16(low)) | unsigned(emulated::round_bf16(high)) << 16;
#else
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#endif
}

// As many values as one load of 16 bytes brings.
template <class T> struct alignas(16) Vector {
    static constexpr int N = 16 / sizeof(T);
    T values[N];
};

// 2 to the power of x.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// The activation functions by the numbers that `activation/cuda.rs` gives them.
enum Activation { IDENTITY, GELU_ERF, GELU_TANH, QUICK_GELU, SILU, RELU, LEAKY_RELU };

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + power_of_two(-LOG2_E * x)); }

__device__ __forceinline__ float activate(int activation, float x) {
    switch (activation) {
    case GELU_ERF: return 0.5f * x * (1.0f + erff(0.7071067811865476f * x));
    case GELU_TANH: {
        // tanh(u) = 2 sigmoid(2 u) - 1.
        float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return x * sigmoid(2.0f * u);
    }
    case QUICK_GELU: return x * sigmoid(1.702f * x);
    case SILU: return x * sigmoid(x);
    case RELU: return x < 0.0f ? 0.0f : x; // NaN stays NaN.
    case LEAKY_RELU: return x < 0.0f ? 0.2f * x : x;
    default: return x;
    }
}

// The sum over the threads of a warp, in all of them.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The sum over the `blockDim.x` threads of a row, in all of them; `blockDim.x` is a multiple of 32, and
// `scratch` has room for a float of every warp of the block. All threads of a block call it.
__device__ __forceinline__ float row_sum(float x, float* scratch) {
    x = warp_sum(x);
    int warps = blockDim.x / 32;
    if (warps == 1) return x;
    float* row = scratch + threadIdx.y * warps;
    __syncthreads();
    if (threadIdx.x % 32 == 0) row[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < warps; i++) sum += row[i];
    return sum;
}
