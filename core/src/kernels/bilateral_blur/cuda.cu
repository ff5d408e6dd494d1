// Joint bilateral blur of pictures of four channels: a thread sums the window of its pixel.
#include "../cuda/common.cuh"

struct BlurArgs {
    const void* x;     // (height, width, 4), float
    const void* guide; // as x
    void* out;         // as x
    int height, width, reach;
    float scale; // of squares of distances, to be logarithms of weights
};

// The pixel that is seen at `i`, which may be outside.
__device__ __forceinline__ int mirror(int i, int side) {
    int period = 2 * max(side - 1, 1);
    i = (i < 0 ? -i : i) % period;
    return min(min(i, period - i), side - 1);
}

KERNEL(bilateral_blur, BlurArgs, 256) {
    using V = Vector<float>;
    int pixel = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (pixel >= a.height * a.width) return;
    const V* x = static_cast<const V*>(a.x);
    const V* guide = static_cast<const V*>(a.guide);
    int row = pixel / a.width, column = pixel % a.width;
    V here = guide[pixel];
    float sums[4] = {}, weights = 0.0f;
    for (int i = -a.reach; i <= a.reach; i++) {
        int line = mirror(row + i, a.height) * a.width;
        for (int j = -a.reach; j <= a.reach; j++) {
            int at = line + mirror(column + j, a.width);
            V there = guide[at], value = x[at];
            float off = 0.0f;
#pragma unroll
            for (int k = 0; k < 4; k++) off += fabsf(there.values[k] - here.values[k]);
            float weight = power_of_two(LOG2_E * a.scale * (off * off + float(i * i + j * j)));
            weights += weight;
#pragma unroll
            for (int k = 0; k < 4; k++) sums[k] += weight * value.values[k];
        }
    }
    V mean;
#pragma unroll
    for (int k = 0; k < 4; k++) mean.values[k] = sums[k] / weights;
    static_cast<V*>(a.out)[pixel] = mean;
}
