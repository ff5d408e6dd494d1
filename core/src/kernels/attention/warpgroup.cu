// Attention on Hopper (FlashAttention-3; Shah et al., arXiv 2407.08608, without its specialised warps), bfloat16, heads of 64 or
// 128 values, nothing added to scores.
//
// A block has 128 queries, half of them for each four warps, and goes over keys and values in tiles of 128. While the
// scores of one tile become weights, the values of the tile before are being weighed, and the next tiles are on their
// way to shared memory.
#include "../cuda/warpgroup.cuh"
#include "arguments.cuh"

namespace hopper {

constexpr int ROWS = 128;
constexpr int KEYS = 128;
constexpr int THREADS = 256;

// Rows `first`.. of a view as tiles of 64 values beside each other; what is not there is zero.
template <int D>
__device__ __forceinline__ void load(unsigned char* tile, const bf16* x, long long stride, int first, int count) {
    constexpr int VECTORS = D / 8;
    int column = threadIdx.x % VECTORS * 8;
    unsigned char* to = tile + column / SWAPPED * (ROWS * 128);
    const bf16* from = x + column;
#pragma unroll 4
    for (int row = threadIdx.x / VECTORS; row < ROWS; row += THREADS / VECTORS) {
        bool is_there = first + row < count;
        copy_async(to + place(row, column % SWAPPED), is_there ? from + (first + row) * stride : x, is_there);
    }
}

// Scores of a warpgroup's queries and a tile of keys.
template <int D> __device__ __forceinline__ void score(float (&scores)[64], unsigned queries, unsigned keys) {
#pragma unroll
    for (int i = 0; i < D; i += 16) {
        int at = i / SWAPPED * (ROWS * 128) + i % SWAPPED * 2;
        multiply_async(scores, matrix_at(queries + at), matrix_at(keys + at), i > 0);
    }
}

// Adds a tile of values by their weights.
template <int D>
__device__ __forceinline__ void weigh(float (&sums)[D / 2], unsigned (&weights)[KEYS / 16][4], unsigned values) {
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        multiply_async(sums, weights[i], matrix_at(values + i * 2 * GROUP, KEYS * 128), true);
    }
}

// Scores to weights relative to the largest score so far; `shrink` is what sums until here are to be multiplied by.
struct Softmax {
    float unit; // of scores, to be powers of two
    float largest[2] = {-INFINITY, -INFINITY};
    float total[2] = {};
    float shrink[2];

    __device__ __forceinline__ void take(float (&scores)[64]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int j = 0; j < 16; j++) {
                most = fmaxf(most, fmaxf(scores[4 * j + 2 * half], scores[4 * j + 2 * half + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            shrink[half] = power_of_two((largest[half] - most) * unit);
            largest[half] = most;
            float sum = 0.0f, zero = most * unit;
#pragma unroll
            for (int j = 0; j < 16; j++) {
#pragma unroll
                for (int c = 4 * j + 2 * half; c < 4 * j + 2 * half + 2; c++) {
                    scores[c] = power_of_two(fmaf(scores[c], unit, -zero));
                    sum += scores[c];
                }
            }
            total[half] = total[half] * shrink[half] + sum;
        }
    }
};

__device__ __forceinline__ void forget_behind(float (&scores)[64], int start, int end) {
    int x = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i++) {
        if (start + i / 4 * 8 + x + i % 2 >= end) scores[i] = -INFINITY;
    }
}

__device__ __forceinline__ void round(unsigned (&weights)[KEYS / 16][4], const float (&scores)[64]) {
#pragma unroll
    for (int i = 0; i < 32; i++) weights[i / 4][i % 4] = pack(scores[2 * i], scores[2 * i + 1]);
}

// What this block copied has come, and nobody reads any more what the next copies write to.
__device__ __forceinline__ void meet() {
    wait_for_copies();
    show_to_products();
    __syncthreads();
}

template <int D> __device__ __forceinline__ void attention(const AttentionArgs& a) {
    constexpr int TILE = ROWS * D * 2;
    // A block's shared memory begins where it will.
    unsigned char* memory = shared<unsigned char>();
    memory += -shared_address(memory) & (GROUP - 1);
    unsigned char* queries = memory;
    unsigned char* keys = queries + TILE;       // two tiles
    unsigned char* values = keys + 2 * TILE; // two tiles

    int tiles = (a.n + ROWS - 1) / ROWS;
    int first = blockIdx.x % tiles * ROWS;
    int head = blockIdx.y;
    long long entry = blockIdx.x / tiles;
    const bf16* q = static_cast<const bf16*>(a.q) + entry * a.q_strides[0] + head * a.q_strides[1];
    const bf16* k = static_cast<const bf16*>(a.k) + entry * a.k_strides[0] + head / a.group * a.k_strides[1];
    const bf16* v = static_cast<const bf16*>(a.v) + entry * a.v_strides[0] + head / a.group * a.v_strides[1];

    int warpgroup = threadIdx.x / 128;
    unsigned mine = shared_address(queries) + warpgroup * (64 * 128);
    float scores[64], sums[D / 2] = {};
    unsigned weights[KEYS / 16][4];
    Softmax softmax;
    softmax.unit = a.scales[head] * LOG2_E;

    int count = (a.m + KEYS - 1) / KEYS;
    load<D>(queries, q, a.q_strides[2], first, a.n);
    load<D>(keys, k, a.k_strides[2], 0, a.m);
    meet();
    load<D>(values, v, a.v_strides[2], 0, a.m);
    load<D>(keys + TILE, k, a.k_strides[2], KEYS, a.m);
    begin_products();
    score<D>(scores, mine, shared_address(keys));
    end_products();
    wait_for_products<0>();
    hold(scores);
    if (count == 1) forget_behind(scores, 0, a.m);
    softmax.take(scores);
    round(weights, scores);

    // The scores of tile i, and the values of the tile before.
    for (int i = 1; i < count; i++) {
        meet();
        unsigned now = i % 2 * TILE, other = TILE - now;
        load<D>(values + now, v, a.v_strides[2], i * KEYS, a.m);
        load<D>(keys + other, k, a.k_strides[2], (i + 1) * KEYS, a.m);
        hold(sums);
        hold(weights);
        begin_products();
        score<D>(scores, mine, shared_address(keys) + now);
        end_products();
        weigh<D>(sums, weights, shared_address(values) + other);
        end_products();
        wait_for_products<1>();
        hold(scores);
        if (i + 1 == count) forget_behind(scores, i * KEYS, a.m);
        softmax.take(scores);
        wait_for_products<0>();
        hold(sums);
#pragma unroll
        for (int j = 0; j < D / 2; j++) sums[j] *= softmax.shrink[j / 2 % 2];
        round(weights, scores);
    }
    meet();
    hold(sums);
    hold(weights);
    begin_products();
    weigh<D>(sums, weights, shared_address(values) + (count - 1) % 2 * TILE);
    end_products();
    wait_for_products<0>();
    hold(sums);

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = softmax.total[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        int row = first + warp * 16 + lane / 4 + 8 * half;
        if (row >= a.n) continue;
        bf16* out = static_cast<bf16*>(a.out) + ((entry * a.n + row) * a.heads + head) * D + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            const float* two = &sums[4 * j + 2 * half];
            *reinterpret_cast<unsigned*>(out + 8 * j) = pack(two[0] / sum, two[1] / sum);
        }
    }
}

} // namespace hopper

KERNEL(hopper_attention_64, AttentionArgs, 256) { hopper::attention<64>(a); }
KERNEL(hopper_attention_128, AttentionArgs, 256) { hopper::attention<128>(a); }
