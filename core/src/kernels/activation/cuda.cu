// An activation function of every value.
#include "../cuda/common.cuh"

struct ActivateArgs {
    const void* x;
    void* out;
    long long count;
    int activation;
};

template <class T> __device__ void activate_all(const ActivateArgs& a) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.count) return;
    static_cast<T*>(a.out)[i] = from_float<T>(activate(a.activation, to_float(static_cast<const T*>(a.x)[i])));
}

KERNEL(activate_f32, ActivateArgs, 256) { activate_all<float>(a); }
KERNEL(activate_bf16, ActivateArgs, 256) { activate_all<bf16>(a); }
