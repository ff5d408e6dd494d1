// Runs kernels on the processor, for tests on machines without a device: the threads of a block are
// fibers on one thread of the system, which change at barriers and at what warps do together.
//
// What a device would leave to chance is made visible: the fibers' order turns around with every launch,
// shared memory starts as NaN and is watched for writes behind its end, and asynchronous copies happen no
// sooner than somebody waits for them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define __device__
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
};

namespace emulated {

struct Thread {
    dim3 index;
};

// Of the running block and fiber.
extern thread_local Thread* current;
extern thread_local dim3 block_index, block_size, grid_size;
extern thread_local unsigned char* shared_bytes;

using Kernel = void (*)(const void*);
struct Entry {
    Entry(const char* name, Kernel kernel);
};
// The kernel of that name, or none.
Kernel find(const char* name);
// Runs a kernel over a grid.
void run(Kernel kernel, dim3 grid, dim3 size, unsigned shared, const void* arguments);

void barrier();
float exchange(float x, int mask);
void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
void load_matrices(unsigned (&r)[4], const void* row, bool transposed);
void copy_async(void* to, const void* from, bool is_there);
void wait_for_copies();
void multiply_async(float* d, int columns, const unsigned* a, unsigned long long left, unsigned long long right, bool transposed,
                    bool adds);
void end_products();
void wait_for_products(int unfinished);

inline unsigned bits(float x) {
    unsigned y;
    memcpy(&y, &x, 4);
    return y;
}
inline float number(unsigned x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
// To the nearest, ties to even.
inline unsigned short round_bf16(float x) {
    unsigned y = bits(x);
    if ((y & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((y >> 16) | 0x40);
    return (unsigned short)((y + 0x7fffu + ((y >> 16) & 1)) >> 16);
}

} // namespace emulated

#define threadIdx (emulated::current->index)
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block_size)
#define gridDim (emulated::grid_size)

#define KERNEL(name, Args, threads)                                                                             \
    static void name(const Args& a);                                                                            \
    static const emulated::Entry entry_##name(#name, [](const void* a) { name(*static_cast<const Args*>(a)); }); \
    static void name(const Args& a)

template <class T> T* shared() { return reinterpret_cast<T*>(emulated::shared_bytes); }

inline void __syncthreads() { emulated::barrier(); }
inline float __shfl_xor_sync(unsigned, float x, int mask) { return emulated::exchange(x, mask); }
inline float __uint_as_float(unsigned x) { return emulated::number(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> inline T min(T a, T b) { return a < b ? a : b; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
