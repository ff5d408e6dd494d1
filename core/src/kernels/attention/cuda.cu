// Attention that never stores its scores (FlashAttention-2; Dao, arXiv 2307.08691), bfloat16.
//
// A block has the queries of 4 warps, each 16 or 32 rows, and goes over keys and values in tiles of 64.
// Scores, their largest value and their sum stay in registers; the values are weighed with powers of two
// relative to the largest score so far. While a warp multiplies queries and keys, the values are on their
// way to shared memory, and the next keys while it multiplies with the values.
#include "../cuda/matrix.cuh"
#include "arguments.cuh"

constexpr int WARPS = 4;
constexpr int KEYS = 64;
constexpr float APART = -100.0f;

// Rows of a tile in shared memory are one vector longer than they need to be, so that 8 rows below each
// other begin in different banks.
template <int D> constexpr int TILE_ROW = D + 8;

// Rows `first`.. of a view as a tile; what is not there is zero.
template <int D>
__device__ __forceinline__ void load_tile(bf16* tile, int rows, const bf16* x, long long stride, const unsigned* tokens,
                                          int first, int count, int d) {
    constexpr int VECTORS = D / 8;
    // Unrolled, the addresses would take registers that the sums need.
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * VECTORS; i += WARPS * 32) {
        int row = i / VECTORS, column = i % VECTORS * 8;
        bool is_there = first + row < count && column < d;
        long long token = is_there ? (tokens ? tokens[first + row] : first + row) : 0;
        copy_async(tile + row * TILE_ROW<D> + column, is_there ? x + token * stride + column : x, is_there);
    }
}

// `M` times 16 rows for a warp; `BIASED` where there is more to scores than the end of the keys.
template <int D, int M, bool BIASED> __device__ __forceinline__ void attention(const AttentionArgs& a) {
    constexpr int ROWS = WARPS * 16 * M;
    constexpr int ROW = TILE_ROW<D>;
    bf16* queries = shared<bf16>();
    bf16* keys = queries + ROWS * ROW;
    bf16* values = keys + KEYS * ROW;

    int tiles = (a.n + ROWS - 1) / ROWS;
    int first = blockIdx.x % tiles * ROWS;
    int head = blockIdx.y;
    int window = blockIdx.x / tiles % a.windows;
    long long entry = blockIdx.x / tiles / a.windows;
    const bf16* q = static_cast<const bf16*>(a.q) + entry * a.q_strides[0] + head * a.q_strides[1];
    const bf16* k = static_cast<const bf16*>(a.k) + entry * a.k_strides[0] + head / a.group * a.k_strides[1];
    const bf16* v = static_cast<const bf16*>(a.v) + entry * a.v_strides[0] + head / a.group * a.v_strides[1];
    const unsigned* tokens = a.tokens ? static_cast<const unsigned*>(a.tokens) + (long long)window * a.n : nullptr;
    const float* regions = BIASED && a.regions ? static_cast<const float*>(a.regions) + (long long)window * a.n : nullptr;
    const float* bias = BIASED && a.bias ? static_cast<const float*>(a.bias) + (long long)head * a.n * a.m : nullptr;
    float scale = a.scales[head] * LOG2_E;
    float unit = BIASED ? 1.0f : scale;

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Of a fragment of 16 x 8 values a thread has rows `y` and `y + 8` and columns `x` and `x + 1`.
    int y = lane / 4, x = lane % 4 * 2;
    int mine = warp * 16 * M;

    float sums[M][D / 8][4];
    float largest[M][2], total[M][2];
#pragma unroll
    for (int r = 0; r < M; r++) {
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) sums[r][j][c] = 0.0f;
        }
        largest[r][0] = largest[r][1] = -INFINITY;
        total[r][0] = total[r][1] = 0.0f;
    }

    // A causal block needs no keys behind those of its last query.
    bool causal = BIASED && a.causal;
    int end = causal ? min(a.m, first + ROWS + a.m - a.n) : a.m;
    load_tile<D>(queries, ROWS, q, a.q_strides[2], tokens, first, a.n, a.d);
    load_tile<D>(keys, KEYS, k, a.k_strides[2], tokens, 0, a.m, a.d);
    for (int start = 0; start < end; start += KEYS) {
        // The keys have come, and nobody reads the values of the last turn any more.
        wait_for_copies();
        __syncthreads();
        load_tile<D>(values, KEYS, v, a.v_strides[2], tokens, start, a.m, a.d);

        float scores[M][KEYS / 8][4];
#pragma unroll
        for (int r = 0; r < M; r++) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int c = 0; c < 4; c++) scores[r][j][c] = 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < D; i += 16) {
            unsigned left[M][4];
#pragma unroll
            for (int r = 0; r < M; r++) {
                load_matrices(left[r], queries + (mine + 16 * r + lane % 16) * ROW + i + lane / 16 * 8);
            }
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                unsigned right[4];
                load_matrices(right, keys + (16 * j + lane / 16 * 8 + lane % 8) * ROW + i + lane / 8 % 2 * 8);
#pragma unroll
                for (int r = 0; r < M; r++) {
                    multiply(scores[r][2 * j], left[r], right[0], right[1]);
                    multiply(scores[r][2 * j + 1], left[r], right[2], right[3]);
                }
            }
        }

        // Without scores that are not to be seen. Biased ones are in powers of two now, others where they
        // are used: that is one instruction less.
        if (BIASED) {
#pragma unroll
            for (int r = 0; r < M; r++) {
#pragma unroll
                for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        float score = scores[r][j][c] * scale;
                        int row = first + mine + 16 * r + y + c / 2 * 8, column = start + 8 * j + x + c % 2;
                        bool is_there = row < a.n && column < a.m;
                        if (bias && is_there) score += bias[(long long)row * a.m + column] * LOG2_E;
                        if (regions && is_there && regions[row] != regions[column]) score += APART * LOG2_E;
                        if (column >= a.m || (causal && column > row + a.m - a.n)) score = -INFINITY;
                        scores[r][j][c] = score;
                    }
                }
            }
        } else if (start + KEYS > a.m) {
#pragma unroll
            for (int r = 0; r < M; r++) {
#pragma unroll
                for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        if (start + 8 * j + x + c % 2 >= a.m) scores[r][j][c] = -INFINITY;
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < M; r++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = largest[r][half];
#pragma unroll
                for (int j = 0; j < KEYS / 8; j++) {
                    most = fmaxf(most, fmaxf(scores[r][j][2 * half], scores[r][j][2 * half + 1]));
                }
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                float shrink = power_of_two((largest[r][half] - most) * unit);
                largest[r][half] = most;
                float sum = 0.0f, zero = most * unit;
#pragma unroll
                for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                    for (int c = 2 * half; c < 2 * half + 2; c++) {
                        scores[r][j][c] = power_of_two(fmaf(scores[r][j][c], unit, -zero));
                        sum += scores[r][j][c];
                    }
                }
                total[r][half] = total[r][half] * shrink + sum;
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    sums[r][j][2 * half] *= shrink;
                    sums[r][j][2 * half + 1] *= shrink;
                }
            }
        }

        // The values have come, and nobody reads these keys any more.
        wait_for_copies();
        __syncthreads();
        if (start + KEYS < end) load_tile<D>(keys, KEYS, k, a.k_strides[2], tokens, start + KEYS, a.m, a.d);
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            unsigned left[M][4];
#pragma unroll
            for (int r = 0; r < M; r++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const float* two = &scores[r][2 * j + c / 2][c % 2 * 2];
                    left[r][c] = pack(two[0], two[1]);
                }
            }
#pragma unroll
            for (int i = 0; i < D; i += 16) {
                unsigned right[4];
                load_transposed(right, values + (16 * j + lane % 16) * ROW + i + lane / 16 * 8);
#pragma unroll
                for (int r = 0; r < M; r++) {
                    multiply(sums[r][i / 8], left[r], right[0], right[1]);
                    multiply(sums[r][i / 8 + 1], left[r], right[2], right[3]);
                }
            }
        }
    }

#pragma unroll
    for (int r = 0; r < M; r++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[r][half];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            int row = first + mine + 16 * r + y + 8 * half;
            if (row >= a.n) continue;
            long long token = tokens ? tokens[row] : row;
            long long all = tokens ? (long long)a.windows * a.n : a.n;
            bf16* out = static_cast<bf16*>(a.out) + ((entry * all + token) * a.heads + head) * a.d;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                if (8 * j + x >= a.d) continue;
                const float* two = &sums[r][j][2 * half];
                *reinterpret_cast<unsigned*>(out + 8 * j + x) = pack(two[0] / sum, two[1] / sum);
            }
        }
    }
}

KERNEL(attention_32, AttentionArgs, 128) { attention<32, 2, false>(a); }
KERNEL(attention_64, AttentionArgs, 128) { attention<64, 2, false>(a); }
KERNEL(attention_96, AttentionArgs, 128) { attention<96, 2, false>(a); }
KERNEL(attention_128, AttentionArgs, 128) { attention<128, 2, false>(a); }
KERNEL(attention_biased_32, AttentionArgs, 128) { attention<32, 1, true>(a); }
KERNEL(attention_biased_64, AttentionArgs, 128) { attention<64, 1, true>(a); }
KERNEL(attention_biased_96, AttentionArgs, 128) { attention<96, 1, true>(a); }
KERNEL(attention_biased_128, AttentionArgs, 128) { attention<128, 1, true>(a); }

// Queries or keys, normalised and turned, one warp for each head of a token: its threads have pairs of
// neighbouring values.
struct HeadArgs {
    const void* x; // heads begin at whole pairs
    void* out;     // (batch, n, heads, d)
    const void* weight;     // (d), float; null: no norm
    const void* bias;       // (d), float
    const void* sin;        // (n - prefix, d), float; null: no rotation
    const void* cos;
    long long strides[3]; // of batch entries, heads and tokens
    long long rows;       // batch n heads
    int n, heads, d, prefix;
    int centred;
    float eps;
};

constexpr int MOST_PAIRS = 8;

template <class T> __device__ void head(const HeadArgs& a) {
    struct alignas(2 * sizeof(T)) Pair {
        T first, second;
    };
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    bool is_there = row < a.rows;
    int head = int(row % a.heads);
    int token = int(row / a.heads % a.n);
    long long entry = row / a.heads / a.n;
    const T* x = static_cast<const T*>(a.x) + entry * a.strides[0] + head * a.strides[1] + token * a.strides[2];
    int pairs = a.d / 2;
    float even[MOST_PAIRS], odd[MOST_PAIRS];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < MOST_PAIRS; k++) {
        int pair = threadIdx.x + 32 * k;
        bool is_mine = is_there && pair < pairs;
        Pair both = {};
        if (is_mine) both = reinterpret_cast<const Pair*>(x)[pair];
        even[k] = to_float(both.first);
        odd[k] = to_float(both.second);
        sum += even[k] + odd[k];
    }
    if (a.weight) {
        float mean = a.centred ? warp_sum(sum) / a.d : 0.0f;
        float squares = 0.0f;
#pragma unroll
        for (int k = 0; k < MOST_PAIRS; k++) {
            if (int(threadIdx.x) + 32 * k >= pairs) continue;
            even[k] -= mean, odd[k] -= mean;
            squares += even[k] * even[k] + odd[k] * odd[k];
        }
        float scale = rsqrtf(warp_sum(squares) / a.d + a.eps);
        const float *weight = static_cast<const float*>(a.weight), *bias = static_cast<const float*>(a.bias);
#pragma unroll
        for (int k = 0; k < MOST_PAIRS; k++) {
            int i = 2 * (threadIdx.x + 32 * k);
            if (i >= a.d) continue;
            even[k] = even[k] * scale * weight[i] + bias[i];
            odd[k] = odd[k] * scale * weight[i + 1] + bias[i + 1];
        }
    }
    if (!is_there) return;
    long long turned = token - a.prefix;
    T* out = static_cast<T*>(a.out) + row * a.d;
#pragma unroll
    for (int k = 0; k < MOST_PAIRS; k++) {
        int i = 2 * (threadIdx.x + 32 * k);
        if (i >= a.d) continue;
        float first = even[k], second = odd[k];
        if (a.sin && turned >= 0) {
            const float* sin = static_cast<const float*>(a.sin) + turned * a.d + i;
            const float* cos = static_cast<const float*>(a.cos) + turned * a.d + i;
            first = even[k] * cos[0] - odd[k] * sin[0];
            second = odd[k] * cos[1] + even[k] * sin[1];
        }
        reinterpret_cast<Pair*>(out)[i / 2] = Pair{from_float<T>(first), from_float<T>(second)};
    }
}

KERNEL(head_f32, HeadArgs, 256) { head<float>(a); }
KERNEL(head_bf16, HeadArgs, 256) { head<bf16>(a); }
