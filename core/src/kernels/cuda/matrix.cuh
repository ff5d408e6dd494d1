// Matrix units and what feeds them: fragments of 16 x 16 and 16 x 8 values, copies that run beside the
// arithmetic. Layouts of fragments: PTX ISA, "Matrix fragments for mma.m16n8k16".
#pragma once
#include "common.cuh"

// d += a b: `a` is 16 x 16 by rows, `b` 16 x 8 by columns, both bfloat16; sums are float.
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef EMULATED
    emulated::mma(d, a, b0, b1);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four matrices of 8 x 8 values out of shared memory; thread i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const bf16* row) {
#ifdef EMULATED
    emulated::load_matrices(r, row, false);
#else
    unsigned address = unsigned(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(unsigned (&r)[4], const bf16* row) {
#ifdef EMULATED
    emulated::load_matrices(r, row, true);
#else
    unsigned address = unsigned(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

// Starts to copy 16 bytes to shared memory, or to fill them with zeros.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool is_there) {
#ifdef EMULATED
    emulated::copy_async(to, from, is_there);
#else
    unsigned address = unsigned(__cvta_generic_to_shared(to));
    int bytes = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
#endif
}

// Waits for all copies that this thread started.
__device__ __forceinline__ void wait_for_copies() {
#ifdef EMULATED
    emulated::wait_for_copies();
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
