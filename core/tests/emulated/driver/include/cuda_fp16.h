// What the tensor library's kernels take from the headers of CUDA, for a C++ compiler: the small number formats,
// atomic operations (blocks run one after another), and exchanges within a warp.
#pragma once
#include "cuda/emulate.h"

#include <cassert>
#include <cmath>
#include <cstdint>
#include <type_traits>

#define __host__
#define __global__ EMULATED_GLOBAL
#define EMULATED_GLOBAL
#define __restrict__
#define __launch_bounds__(...)
// Of the running block: one runs at a time on a thread.
#define __shared__ static thread_local
#define CUDART_INF INFINITY

using std::isinf;
using std::isnan;
using std::signbit;

namespace emulated {

inline float half_to_float(unsigned short bits) {
    _Float16 y;
    memcpy(&y, &bits, 2);
    return float(y);
}
inline unsigned short float_to_half(float x) {
    _Float16 y = _Float16(x);
    unsigned short bits;
    memcpy(&bits, &y, 2);
    return bits;
}

// Computes in `float` and rounds after every operation, as devices do.
template <bool IS_HALF> struct Small {
    unsigned short bits;

    Small() = default;
    template <class N, class = std::enable_if_t<std::is_arithmetic_v<N>>>
    Small(N x) : bits(IS_HALF ? float_to_half(float(x)) : round_bf16(float(x))) {}
    operator float() const { return IS_HALF ? half_to_float(bits) : number(unsigned(bits) << 16); }

    Small operator-() const { return -float(*this); }
    friend Small operator+(Small a, Small b) { return float(a) + float(b); }
    friend Small operator-(Small a, Small b) { return float(a) - float(b); }
    friend Small operator*(Small a, Small b) { return float(a) * float(b); }
    friend Small operator/(Small a, Small b) { return float(a) / float(b); }
    template <class N> Small& operator+=(N b) { return *this = *this + Small(b); }
    template <class N> Small& operator*=(N b) { return *this = *this * Small(b); }
    friend bool operator<(Small a, Small b) { return float(a) < float(b); }
    friend bool operator<=(Small a, Small b) { return float(a) <= float(b); }
    friend bool operator>(Small a, Small b) { return float(a) > float(b); }
    friend bool operator>=(Small a, Small b) { return float(a) >= float(b); }
    friend bool operator==(Small a, Small b) { return float(a) == float(b); }
    friend bool operator!=(Small a, Small b) { return float(a) != float(b); }
};

template <class T> struct Pair { T x, y; };

} // namespace emulated

using __half = emulated::Small<true>;
using half = __half;
using __half2 = emulated::Pair<__half>;
using __nv_bfloat16 = emulated::Small<false>;
using __nv_bfloat162 = emulated::Pair<__nv_bfloat16>;
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }

inline __half __float2half(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short x) { __half y; y.bits = x; return y; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }

template <bool H> using Small = emulated::Small<H>;
template <bool H> bool __hisnan(Small<H> x) { return std::isnan(float(x)); }
template <bool H> Small<H> __habs(Small<H> x) { return fabsf(x); }
template <bool H> Small<H> hsqrt(Small<H> x) { return sqrtf(x); }
template <bool H> Small<H> hsin(Small<H> x) { return sinf(x); }
template <bool H> Small<H> hcos(Small<H> x) { return cosf(x); }
template <bool H> Small<H> hexp(Small<H> x) { return expf(x); }
template <bool H> Small<H> hlog(Small<H> x) { return logf(x); }
template <bool H> Small<H> __hmax_nan(Small<H> a, Small<H> b) { return __hisnan(a) || a > b ? a : b; }
template <bool H> Small<H> __hmin_nan(Small<H> a, Small<H> b) { return __hisnan(a) || a < b ? a : b; }
template <class T> emulated::Pair<T> __hadd2(emulated::Pair<T> a, emulated::Pair<T> b) { return {a.x + b.x, a.y + b.y}; }
template <class T> emulated::Pair<T> __hsub2(emulated::Pair<T> a, emulated::Pair<T> b) { return {a.x - b.x, a.y - b.y}; }
template <class T> emulated::Pair<T> __hmul2(emulated::Pair<T> a, emulated::Pair<T> b) { return {a.x * b.x, a.y * b.y}; }
template <class T> emulated::Pair<T> __h2div(emulated::Pair<T> a, emulated::Pair<T> b) { return {a.x / b.x, a.y / b.y}; }
inline float normcdff(float x) { return 0.5f * erfcf(-0.70710678f * x); }
inline double normcdf(double x) { return 0.5 * erfc(-0.70710678118654752 * x); }

template <class To, class From> To reinterpret_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
inline unsigned __float_as_uint(float x) { return reinterpret_bits<unsigned>(x); }
inline int __float_as_int(float x) { return reinterpret_bits<int>(x); }
inline float __int_as_float(int x) { return reinterpret_bits<float>(x); }
inline long long __double_as_longlong(double x) { return reinterpret_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return reinterpret_bits<double>(x); }

// Threads change only at barriers.
template <class T, class N> T atomicAdd(T* at, N x) {
    T old = *at;
    *at = old + T(x);
    return old;
}
template <class T, class N> T atomicMax(T* at, N x) {
    T old = *at;
    *at = old < T(x) ? T(x) : old;
    return old;
}
template <class T, class N> T atomicMin(T* at, N x) {
    T old = *at;
    *at = T(x) < old ? T(x) : old;
    return old;
}
template <class T, class N, class M> T atomicCAS(T* at, N expected, M x) {
    T old = *at;
    if (old == T(expected)) *at = T(x);
    return old;
}

template <class T> T __shfl_xor_sync(unsigned, T x, int mask, int) {
    unsigned words[(sizeof(T) + 3) / 4] = {};
    memcpy(words, &x, sizeof x);
    for (unsigned& word : words) word = emulated::bits(emulated::exchange(emulated::number(word), mask));
    memcpy(&x, words, sizeof x);
    return x;
}
