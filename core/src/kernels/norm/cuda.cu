// Norms over rows: one row for `blockDim.x` threads, `blockDim.y` rows for a block. A row is read once
// and kept as floats in shared memory.
#include "../cuda/common.cuh"

struct NormArgs {
    const void* x;
    const void* weight;
    const void* bias;
    const void* residual; // null: none
    void* out;
    long long rows;
    int width;
    int centred;
    int activation;
    int of_f32;       // weight and bias are floats, not of the type of x
    float one;        // added to the weight
    float eps;
};

template <class T> __device__ __forceinline__ float parameter(const void* values, int i, int of_f32) {
    return of_f32 ? static_cast<const float*>(values)[i] : to_float(static_cast<const T*>(values)[i]);
}

// `N` values are read and written at once: those of 16 bytes, or one.
template <class T, int N> __device__ void norm(const NormArgs& a) {
    struct alignas(N * sizeof(T)) Some {
        T values[N];
    };
    float* kept = shared<float>() + threadIdx.y * a.width;
    float* scratch = shared<float>() + blockDim.y * a.width;
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    bool is_there = row < a.rows;
    const T* x = static_cast<const T*>(a.x) + row * a.width;

    float sum = 0.0f;
    if (is_there) {
        for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
            Some some = *reinterpret_cast<const Some*>(x + i);
#pragma unroll
            for (int k = 0; k < N; k++) {
                float value = to_float(some.values[k]);
                kept[i + k] = value;
                sum += value;
            }
        }
    }
    float mean = a.centred ? row_sum(sum, scratch) / a.width : 0.0f;
    float squares = 0.0f;
    if (is_there) {
        // Each thread looks at what it has written itself.
        for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                float value = kept[i + k] - mean;
                squares += value * value;
            }
        }
    }
    float scale = rsqrtf(row_sum(squares, scratch) / a.width + a.eps);
    if (!is_there) return;
    const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * a.width : nullptr;
    T* out = static_cast<T*>(a.out) + row * a.width;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
        Some some;
        if (residual) some = *reinterpret_cast<const Some*>(residual + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float weight = parameter<T>(a.weight, i + k, a.of_f32) + a.one;
            float y = (kept[i + k] - mean) * scale * weight + parameter<T>(a.bias, i + k, a.of_f32);
            y = activate(a.activation, y);
            if (residual) y += to_float(some.values[k]);
            some.values[k] = from_float<T>(y);
        }
        *reinterpret_cast<Some*>(out + i) = some;
    }
}

KERNEL(norm_f32, NormArgs, 256) { norm<float, 1>(a); }
KERNEL(norm_bf16, NormArgs, 256) { norm<bf16, 1>(a); }
KERNEL(norm_vectors_f32, NormArgs, 256) { norm<float, 4>(a); }
KERNEL(norm_vectors_bf16, NormArgs, 256) { norm<bf16, 8>(a); }
