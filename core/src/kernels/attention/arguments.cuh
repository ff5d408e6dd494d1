// What the kernels for attention take, which `cuda.rs` has as well.
#pragma once

struct AttentionArgs {
    const void* q; // values of a head lie together and begin at multiples of 16 bytes
    const void* k;
    const void* v;
    void* out;           // (batch, tokens, heads, d)
    const void* bias;    // (heads, n, m), float; null: none
    const void* tokens;  // (windows, n), 32-bit numbers; null: no windows
    const void* regions; // (windows, n), float; null: one region
    long long q_strides[3]; // of batch entries, heads and tokens
    long long k_strides[3];
    long long v_strides[3];
    int heads;
    int group;   // heads of queries for each head of keys
    int n;       // queries, of a window
    int m;       // keys, of a window
    int d;
    int windows; // at least 1
    int causal;
    float scales[64]; // above zero
};
