// Depthwise convolution, channels last: neighbouring threads have neighbouring channels, each of them
// four pixels of a row, so that a weight is read once for four sums.
#include "../cuda/common.cuh"

struct DepthwiseArgs {
    const void* x;      // (b, height, width, channels)
    const void* weight; // (side, side, channels), float
    const void* bias;   // (channels), float
    void* out;
    long long count; // of groups of four pixels, times channels
    int height, width, channels, side;
};

constexpr int PIXELS = 4;

template <class T> __device__ void depthwise(const DepthwiseArgs& a) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.count) return;
    int across = (a.width + PIXELS - 1) / PIXELS;
    int channel = int(i % a.channels);
    long long rest = i / a.channels;
    int left = int(rest % across) * PIXELS;
    rest /= across;
    int row = int(rest % a.height);
    long long entry = rest / a.height;
    const float* weight = static_cast<const float*>(a.weight) + channel;
    float sums[PIXELS];
#pragma unroll
    for (int p = 0; p < PIXELS; p++) sums[p] = static_cast<const float*>(a.bias)[channel];
    int half = a.side / 2;
    for (int dy = 0; dy < a.side; dy++) {
        int y = row + dy - half;
        if (y < 0 || y >= a.height) continue;
        const T* line = static_cast<const T*>(a.x) + (entry * a.height + y) * a.width * a.channels + channel;
        for (int dx = 0; dx < a.side; dx++) {
            float w = weight[(dy * a.side + dx) * a.channels];
#pragma unroll
            for (int p = 0; p < PIXELS; p++) {
                int x = left + p + dx - half;
                if (x >= 0 && x < a.width) sums[p] += w * to_float(line[(long long)x * a.channels]);
            }
        }
    }
    T* out = static_cast<T*>(a.out) + (entry * a.height + row) * a.width * a.channels + channel;
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        if (left + p < a.width) out[(long long)(left + p) * a.channels] = from_float<T>(sums[p]);
    }
}

KERNEL(depthwise_f32, DepthwiseArgs, 256) { depthwise<float>(a); }
KERNEL(depthwise_bf16, DepthwiseArgs, 256) { depthwise<bf16>(a); }
