// `x + gate y`, rows of one gate.
#include "../cuda/common.cuh"

struct GateArgs {
    const void* x;
    const void* y;
    const void* gate;
    void* out;
    long long count; // of vectors
    int width;       // in vectors
};

template <class T> __device__ void gate(const GateArgs& a) {
    using V = Vector<T>;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.count) return;
    V x = static_cast<const V*>(a.x)[i];
    V y = static_cast<const V*>(a.y)[i];
    V g = static_cast<const V*>(a.gate)[i % a.width];
#pragma unroll
    for (int k = 0; k < V::N; k++) {
        x.values[k] = from_float<T>(to_float(x.values[k]) + to_float(g.values[k]) * to_float(y.values[k]));
    }
    static_cast<V*>(a.out)[i] = x;
}

KERNEL(gate_f32, GateArgs, 256) { gate<float>(a); }
KERNEL(gate_bf16, GateArgs, 256) { gate<bf16>(a); }
