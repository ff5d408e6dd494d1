//! Several vectors at once, as if they were one.
//!
//! A function like GELU is a chain of thirty instructions that wait for each other. A processor looks
//! ahead, but not over whole chains: compiled for four vectors, the steps of four chains come in turn.

use super::simd::Simd;

/// Vectors of `S` in a group.
const N: usize = 4;

/// Groups of vectors of `S`.
#[derive(Clone, Copy)]
pub(crate) struct Group<S>(std::marker::PhantomData<S>);

/// An array of what `$value` is for each vector `$i`, without a closure: that would lose the instruction
/// set.
macro_rules! each {
    ($S:ident, |$i:ident| $value:expr) => {{
        // SAFETY: the trait's contract, for each vector, of what the expression calls.
        unsafe {
            let mut vectors = [$S::splat(0.0); N];
            let mut $i = 0;
            while $i < N {
                vectors[$i] = $value;
                $i += 1;
            }
            vectors
        }
    }};
}

macro_rules! functions {
    ($($name:ident($($argument:ident),*);)*) => {$(
        #[inline(always)]
        unsafe fn $name($($argument: Self::V),*) -> Self::V {
            each!(S, |i| S::$name($($argument[i]),*))
        }
    )*};
}

impl<S: Simd> Simd for Group<S> {
    type V = [S::V; N];
    const LANES: usize = N * S::LANES;

    functions! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        max(a, b);
        min(a, b);
        mul_add(a, b, c);
        if_less(a, b, x, y);
        power_of_two(n);
        scale_or_zero(y, n, x, low);
        reciprocal(x);
        rough_reciprocal(x);
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: the trait's contract.
        unsafe { [S::splat(x); N] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        each!(S, |i| S::load(p.add(i * S::LANES)))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the trait's contract.
            unsafe { S::store(p.add(i * S::LANES), v) };
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        each!(S, |i| S::load_bf16(p.add(i * S::LANES)))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the trait's contract.
            unsafe { S::store_bf16(p.add(i * S::LANES), v) };
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::V {
        each!(S, |i| S::load_u8(p.add(i * S::LANES)))
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, count: usize) -> Self::V {
        each!(S, |i| {
            let count = count.saturating_sub(i * S::LANES).min(S::LANES);
            S::load_part(p.wrapping_add(i * S::LANES), count)
        })
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::V, count: usize) {
        for (i, v) in v.into_iter().enumerate() {
            let count = count.saturating_sub(i * S::LANES).min(S::LANES);
            // SAFETY: the trait's contract.
            unsafe { S::store_part(p.wrapping_add(i * S::LANES), v, count) };
        }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { S::sum(S::add(S::add(v[0], v[1]), S::add(v[2], v[3]))) }
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { S::largest(S::max(S::max(v[0], v[1]), S::max(v[2], v[3]))) }
    }
}
