// Matrix units of Hopper (compute capability 9.0): products of four warps together, which read shared memory themselves
// and run beside what the warps do. PTX ISA, "Asynchronous warpgroup level matrix instructions".
//
// Tiles in shared memory are rows of 64 values, 128 bytes; the vectors of 16 bytes in a row are swapped by the row's
// number, so that 8 rows below each other begin in different banks ("128-byte swizzle"). Tiles begin at multiples of 1024 bytes.
#pragma once
#include "matrix.cuh"

constexpr int SWAPPED = 64; // values of a row
constexpr int GROUP = 1024; // bytes of 8 rows

// Where a vector of a tile is: `column` counts values and is a multiple of 8.
__device__ __forceinline__ int place(int row, int column) { return row * 128 + ((column / 8 ^ row & 7) << 4); }

// The address of shared memory as the units count it.
__device__ __forceinline__ unsigned shared_address(const void* p) {
#ifdef EMULATED
    return unsigned(static_cast<const unsigned char*>(p) - emulated::shared_bytes);
#else
    return unsigned(__cvta_generic_to_shared(p));
#endif
}

// Names a matrix in shared memory. `across` is the distance of neighbouring tiles, in bytes; only matrices whose rows run
// along the sum have more than one.
__device__ __forceinline__ unsigned long long matrix_at(unsigned address, int across = 16) {
    unsigned long long swapped = 1ull << 62;
    return swapped | (unsigned long long)(GROUP >> 4) << 32 | (unsigned long long)(across >> 4) << 16 | (address & 0x3ffff) >> 4;
}

// Sums of 64 x 128 values, of which a thread has 64: as fragments of 16 x 8 beside each other, a warp 16 rows. `a` is 64 x 16 and
// `b` 128 x 16, both by rows, in shared memory. Unless it adds, what was in `d` is forgotten.
__device__ __forceinline__ void multiply_async(float (&d)[64], unsigned long long a, unsigned long long b, bool adds) {
#ifdef EMULATED
    emulated::multiply_async(d, 128, nullptr, a, b, false, adds);
#else
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %66, 0; "
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, "
        "%56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b), "r"(int(adds)));
#endif
}

// The same, with `a` in registers, as fragments of 16 x 16, and `b` 16 x 128 by rows.
__device__ __forceinline__ void multiply_async(float (&d)[64], const unsigned (&a)[4], unsigned long long b, bool adds) {
#ifdef EMULATED
    emulated::multiply_async(d, 128, a, 0, b, true, adds);
#else
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %69, 0; "
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, "
        "%56, %57, %58, %59, %60, %61, %62, %63"
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(adds)));
#endif
}

// 64 columns.
__device__ __forceinline__ void multiply_async(float (&d)[32], const unsigned (&a)[4], unsigned long long b, bool adds) {
#ifdef EMULATED
    emulated::multiply_async(d, 64, a, 0, b, true, adds);
#else
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %37, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31"
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(adds)));
#endif
}

// What the warps wrote to registers is seen by the products from here on.
__device__ __forceinline__ void begin_products() {
#ifndef EMULATED
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// The products since the last call are a group.
__device__ __forceinline__ void end_products() {
#ifdef EMULATED
    emulated::end_products();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most `N` groups are unfinished.
template <int N> __device__ __forceinline__ void wait_for_products() {
#ifdef EMULATED
    emulated::wait_for_products(N);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

// The compiler has these registers as they are here, neither before nor behind.
template <int N> __device__ __forceinline__ void hold(float (&d)[N]) {
#ifndef EMULATED
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}
template <int N> __device__ __forceinline__ void hold(unsigned (&a)[N][4]) {
#ifndef EMULATED
#pragma unroll
    for (int i = 0; i < 4 * N; i++) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
#endif
}

// What this thread wrote to shared memory is seen by the products that begin behind the next barrier.
__device__ __forceinline__ void show_to_products() {
#ifndef EMULATED
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
