// Convolutions on Hopper as products whose left side is never laid out: a block has 128 pixels of the result and 128 of its
// channels, and copies of a window's pixels what it multiplies next. Channels are multiples of 64.
#include "../cuda/warpgroup.cuh"
#include "window.cuh"

struct ConvolutionArgs {
    const void* x;      // (b, height, width, channels), bfloat16
    const void* weight; // (n, size_y size_x channels), bfloat16
    const void* bias;   // (n), float
    const void* other;  // null, or of the type and shape of out
    void* out;          // (rows, n), bfloat16
    int rows;           // b down across
    int n;              // even
    WindowArgs window;
    int activation;
    int multiplies; // else `other` is added
};

namespace hopper {

constexpr int PIXELS = 128;  // of a block
constexpr int OUTPUTS = 128; // channels of a block
constexpr int STAGES = 3;    // tiles in shared memory, so that there is room for two blocks
constexpr int TILE = PIXELS * 128;
constexpr int MINE = PIXELS / 32; // rows of a tile that a thread copies a vector of

// Where the windows of a thread's pixels begin.
struct Window {
    int y, x;
    int entry; // pixels before its picture; below 0: no pixel
};

__device__ __forceinline__ void convolution(const ConvolutionArgs& a) {
    unsigned char* memory = shared<unsigned char>();
    memory += -shared_address(memory) & (GROUP - 1);
    unsigned char* pixels = memory;
    unsigned char* weights = pixels + STAGES * TILE;

    int columns = (a.n + OUTPUTS - 1) / OUTPUTS;
    int first = int(blockIdx.x / columns) * PIXELS, from = int(blockIdx.x % columns) * OUTPUTS;
    const bf16* x = static_cast<const bf16*>(a.x);
    const bf16* weight = static_cast<const bf16*>(a.weight);
    int depth = a.window.size_y * a.window.size_x * a.window.channels;

    int row = threadIdx.x / 8, column = threadIdx.x % 8 * 8;
    Window windows[MINE];
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        int pixel = first + row + 32 * i, above = pixel / a.window.across;
        windows[i].x = pixel % a.window.across * a.window.stride_x - a.window.left;
        windows[i].y = above % a.window.down * a.window.stride_y - a.window.top;
        windows[i].entry = pixel < a.rows ? above / a.window.down * a.window.height * a.window.width : -1;
    }

    // What is copied next: 64 channels of one pixel of the windows.
    int down = 0, right = 0, channel = 0, at = 0;
    auto load = [&](int stage) {
        if (at < depth) {
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                int line = row + 32 * i, place_of = place(line, column);
                int y = windows[i].y + down, z = windows[i].x + right;
                bool is_there = windows[i].entry >= 0 && y >= 0 && y < a.window.height && z >= 0 && z < a.window.width;
                long long pixel = is_there ? windows[i].entry + y * a.window.width + z : 0;
                copy_async(pixels + stage * TILE + place_of, x + pixel * a.window.channels + channel + column, is_there);
                bool is_output = from + line < a.n;
                long long output = is_output ? from + line : 0;
                copy_async(weights + stage * TILE + place_of, weight + output * depth + at + column, is_output);
            }
            at += SWAPPED;
            channel += SWAPPED;
            if (channel == a.window.channels) {
                channel = 0;
                if (++right == a.window.size_x) right = 0, down++;
            }
        }
    };

    float sums[64] = {};
    unsigned mine = shared_address(pixels) + threadIdx.x / 128 * (64 * 128);
    load(0);
    int steps = depth / SWAPPED;
    for (int step = 0; step < steps; step++) {
        // This tile has come, and both warpgroups are done with the one before the last.
        wait_for_copies();
        show_to_products();
        __syncthreads();
        load((step + 1) % STAGES);
        int tile = step % STAGES * TILE;
        hold(sums);
        begin_products();
#pragma unroll
        for (int i = 0; i < SWAPPED; i += 16) {
            multiply_async(sums, matrix_at(mine + tile + 2 * i), matrix_at(shared_address(weights) + tile + 2 * i), true);
        }
        end_products();
        wait_for_products<1>();
    }
    wait_for_products<0>();
    hold(sums);

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float* bias = static_cast<const float*>(a.bias);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int pixel = first + warp * 16 + lane / 4 + 8 * half;
        if (pixel >= a.rows) continue;
        const bf16* other = a.other ? static_cast<const bf16*>(a.other) + (long long)pixel * a.n : nullptr;
        bf16* out = static_cast<bf16*>(a.out) + (long long)pixel * a.n;
#pragma unroll
        for (int j = 0; j < OUTPUTS / 8; j++) {
            int output = from + 8 * j + lane % 4 * 2;
            if (output >= a.n) continue;
            float two[2];
#pragma unroll
            for (int c = 0; c < 2; c++) {
                two[c] = activate(a.activation, sums[4 * j + 2 * half + c] + bias[output + c]);
                if (other) {
                    float z = to_float(other[output + c]);
                    two[c] = a.multiplies ? two[c] * z : two[c] + z;
                }
            }
            *reinterpret_cast<unsigned*>(out + output) = pack(two[0], two[1]);
        }
    }
}

} // namespace hopper

KERNEL(hopper_convolution, ConvolutionArgs, 256) { hopper::convolution(a); }
