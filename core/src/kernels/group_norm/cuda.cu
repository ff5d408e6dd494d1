// Group norm, channels last, in three launches: the moments of groups in runs of positions, those of
// whole entries out of them, and the result.
//
// Moments are the mean and the sum of squares around it, joined as in Chan, Golub and LeVeque, "Updating
// formulae and a pairwise algorithm for computing sample variances" (1979).
#include "../cuda/common.cuh"

struct GroupNormArgs {
    const void* x;      // (entries, positions, channels)
    const void* shift;  // (entries, channels), float; null: none
    const void* weight; // (channels), float
    const void* bias;
    void* parts;   // (entries, runs, groups, 2), float
    void* moments; // (entries, groups, 2), float: mean, 1 / deviation
    void* out;
    long long positions;
    long long count; // values of one entry
    int run;    // positions of a run
    int runs;
    int channels, groups;
    int activation;
    float eps;
};

template <class T> __device__ __forceinline__ float shifted(const GroupNormArgs& a, long long entry, const T* row, int channel) {
    float x = to_float(row[channel]);
    return a.shift ? x + static_cast<const float*>(a.shift)[entry * a.channels + channel] : x;
}

// A block for each run of positions of an entry. Threads have channels of their own, and where channels
// are few, positions too. Groups are summed in the order of their threads.
template <class T> __device__ void group_moments(const GroupNormArgs& a) {
    float* sums = shared<float>();              // of threads
    float* means = sums + blockDim.x;           // of groups
    long long entry = blockIdx.y;
    long long first = (long long)blockIdx.x * a.run;
    int rows = int(min((long long)a.run, a.positions - first));
    const T* x = static_cast<const T*>(a.x) + (entry * a.positions + first) * a.channels;
    // `lanes` threads side by side look at `lanes` channels; `steps` of them at different positions.
    int lanes = min(int(blockDim.x), a.channels);
    int steps = blockDim.x / lanes;
    int lane = threadIdx.x % lanes, step = threadIdx.x / lanes;
    int each = a.channels / a.groups;
    float count = float(rows) * each;
    for (int pass = 0; pass < 2; pass++) {
        // Channels in turns of as many as there are lanes; a group may lie in two turns.
        for (int g = threadIdx.x; pass == 0 && g < 2 * a.groups; g += blockDim.x) means[g] = 0.0f;
        for (int turn = 0; turn < a.channels; turn += lanes) {
            int channel = turn + lane;
            float sum = 0.0f;
            if (step < steps && channel < a.channels) {
                float mean = pass ? means[channel / each] : 0.0f;
                for (int row = step; row < rows; row += steps) {
                    float value = shifted(a, entry, x + (long long)row * a.channels, channel) - mean;
                    sum += pass ? value * value : value;
                }
            }
            __syncthreads();
            sums[threadIdx.x] = sum;
            __syncthreads();
            int last = min(turn + lanes, a.channels) - 1;
            for (int g = turn / each + threadIdx.x; g <= last / each; g += blockDim.x) {
                int from = max(g * each, turn), to = min((g + 1) * each, last + 1);
                float total = 0.0f;
                for (int s = 0; s < steps; s++) {
                    for (int c = from; c < to; c++) total += sums[s * lanes + c - turn];
                }
                means[pass * a.groups + g] += total;
            }
        }
        __syncthreads();
        for (int g = threadIdx.x; pass == 0 && g < a.groups; g += blockDim.x) means[g] /= count;
        __syncthreads();
    }
    float* parts = static_cast<float*>(a.parts) + (entry * a.runs + blockIdx.x) * a.groups * 2;
    for (int g = threadIdx.x; g < a.groups; g += blockDim.x) {
        parts[2 * g] = means[g];
        parts[2 * g + 1] = means[a.groups + g];
    }
}

KERNEL(group_moments_f32, GroupNormArgs, 256) { group_moments<float>(a); }
KERNEL(group_moments_bf16, GroupNormArgs, 256) { group_moments<bf16>(a); }

// A thread for each group of an entry.
KERNEL(group_join, GroupNormArgs, 256) {
    int g = blockIdx.x * blockDim.x + threadIdx.x;
    if (g >= a.groups) return;
    long long entry = blockIdx.y;
    int each = a.channels / a.groups;
    float count = 0.0f, mean = 0.0f, squares = 0.0f;
    const float* parts = static_cast<const float*>(a.parts) + entry * a.runs * a.groups * 2;
    for (int run = 0; run < a.runs; run++) {
        float more = float(min((long long)a.run, a.positions - (long long)run * a.run)) * each;
        float delta = parts[(run * a.groups + g) * 2] - mean;
        float total = count + more;
        mean += delta * (more / total);
        squares += parts[(run * a.groups + g) * 2 + 1] + delta * delta * count * (more / total);
        count = total;
    }
    float* moments = static_cast<float*>(a.moments) + (entry * a.groups + g) * 2;
    moments[0] = mean;
    moments[1] = rsqrtf(squares / count + a.eps);
}

// `N` neighbouring channels for a thread: those of 16 bytes, or one.
template <class T, int N> __device__ void group_apply(const GroupNormArgs& a) {
    struct alignas(N * sizeof(T)) Some {
        T values[N];
    };
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i >= a.count) return;
    long long entry = blockIdx.y;
    int channel = int(i % a.channels);
    Some some = *reinterpret_cast<const Some*>(static_cast<const T*>(a.x) + entry * a.count + i);
    const float* shift = a.shift ? static_cast<const float*>(a.shift) + entry * a.channels + channel : nullptr;
    const float* weight = static_cast<const float*>(a.weight) + channel;
    const float* bias = static_cast<const float*>(a.bias) + channel;
    const float* moments = static_cast<const float*>(a.moments) + entry * a.groups * 2;
    int each = a.channels / a.groups;
#pragma unroll
    for (int k = 0; k < N; k++) {
        const float* of = moments + (channel + k) / each * 2;
        float x = to_float(some.values[k]) + (shift ? shift[k] : 0.0f);
        some.values[k] = from_float<T>(activate(a.activation, (x - of[0]) * of[1] * weight[k] + bias[k]));
    }
    *reinterpret_cast<Some*>(static_cast<T*>(a.out) + entry * a.count + i) = some;
}

KERNEL(group_apply_f32, GroupNormArgs, 256) { group_apply<float, 1>(a); }
KERNEL(group_apply_bf16, GroupNormArgs, 256) { group_apply<bf16, 1>(a); }
KERNEL(group_apply_vectors_f32, GroupNormArgs, 256) { group_apply<float, 4>(a); }
KERNEL(group_apply_vectors_bf16, GroupNormArgs, 256) { group_apply<bf16, 8>(a); }
