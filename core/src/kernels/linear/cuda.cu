// What goes before and after a product of matrices: the pixels of windows side by side; bias, activation
// and a second operand.
#include "../cuda/common.cuh"
#include "window.cuh"

struct FinishArgs {
    const void* product; // (rows, n)
    const void* bias;    // (n), float
    const void* other;   // null, or of the type and shape of out
    void* out;
    long long count;
    int n;
    int activation;
    int multiplies; // else `other` is added
};

template <class T, class U> __device__ void finish(const FinishArgs& a) {
    long long first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    const T* product = static_cast<const T*>(a.product);
    const float* bias = static_cast<const float*>(a.bias);
    const U* other = static_cast<const U*>(a.other);
    U* out = static_cast<U*>(a.out);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        long long i = first + k;
        if (i >= a.count) return;
        float y = activate(a.activation, to_float(product[i]) + bias[i % a.n]);
        if (other) y = a.multiplies ? y * to_float(other[i]) : y + to_float(other[i]);
        out[i] = from_float<U>(y);
    }
}

// The same where all rows begin and end at whole vectors.
template <class T> __device__ void finish_vectors(const FinishArgs& a) {
    using V = Vector<T>;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i * V::N >= a.count) return;
    V x = static_cast<const V*>(a.product)[i];
    const float* bias = static_cast<const float*>(a.bias) + i * V::N % a.n;
    float y[V::N];
#pragma unroll
    for (int k = 0; k < V::N; k++) y[k] = activate(a.activation, to_float(x.values[k]) + bias[k]);
    if (a.other) {
        V other = static_cast<const V*>(a.other)[i];
#pragma unroll
        for (int k = 0; k < V::N; k++) {
            float z = to_float(other.values[k]);
            y[k] = a.multiplies ? y[k] * z : y[k] + z;
        }
    }
#pragma unroll
    for (int k = 0; k < V::N; k++) x.values[k] = from_float<T>(y[k]);
    static_cast<V*>(a.out)[i] = x;
}

KERNEL(finish_f32_f32, FinishArgs, 256) { finish<float, float>(a); }
KERNEL(finish_f32_bf16, FinishArgs, 256) { finish<float, bf16>(a); }
KERNEL(finish_bf16_f32, FinishArgs, 256) { finish<bf16, float>(a); }
KERNEL(finish_bf16_bf16, FinishArgs, 256) { finish<bf16, bf16>(a); }
KERNEL(finish_vectors_f32, FinishArgs, 256) { finish_vectors<float>(a); }
KERNEL(finish_vectors_bf16, FinishArgs, 256) { finish_vectors<bf16>(a); }

// Counts are below 2^31: divisions of 64 bits would take longer than the copies.
struct CutArgs {
    const void* x; // (b, height, width, channels)
    void* out;     // (rows, size_y size_x channels), rows from `first` on
    int first;
    int count; // values of out
    WindowArgs window;
};

// `V` is what is copied at once: a vector where channels are whole vectors.
template <class V, class U, class F> __device__ void cut(const CutArgs& a, F convert) {
    long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= a.count) return;
    int i = int(thread);
    int channel = i % a.window.channels;
    int rest = i / a.window.channels;
    int taps = a.window.size_y * a.window.size_x;
    int tap = rest % taps;
    int row = a.first + rest / taps;
    int x = row % a.window.across * a.window.stride_x + tap % a.window.size_x - a.window.left;
    int above = row / a.window.across;
    int y = above % a.window.down * a.window.stride_y + tap / a.window.size_x - a.window.top;
    long long entry = above / a.window.down;
    U value = {};
    if (x >= 0 && x < a.window.width && y >= 0 && y < a.window.height) {
        value = convert(static_cast<const V*>(a.x)[((entry * a.window.height + y) * a.window.width + x) * a.window.channels + channel]);
    }
    static_cast<U*>(a.out)[i] = value;
}

struct Sixteen {
    alignas(16) unsigned char bytes[16];
};

template <class V, class U> struct Convert {
    __device__ U operator()(V x) const { return from_float<U>(to_float(x)); }
};
struct Same {
    __device__ Sixteen operator()(Sixteen x) const { return x; }
};

KERNEL(cut_u8_f32, CutArgs, 256) { cut<unsigned char, float>(a, Convert<unsigned char, float>()); }
KERNEL(cut_u8_bf16, CutArgs, 256) { cut<unsigned char, bf16>(a, Convert<unsigned char, bf16>()); }
KERNEL(cut_f32_f32, CutArgs, 256) { cut<float, float>(a, Convert<float, float>()); }
KERNEL(cut_bf16_bf16, CutArgs, 256) { cut<bf16, bf16>(a, Convert<bf16, bf16>()); }
// Channels are counted in vectors of 16 bytes here.
KERNEL(cut_vectors, CutArgs, 256) { cut<Sixteen, Sixteen>(a, Same()); }
