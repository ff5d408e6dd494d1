//! Which instructions this processor has, and the kernels compiled for them.

use std::sync::OnceLock;

use super::engine::{Plain, Product};
use super::simd::{Kernel, Portable};
#[cfg(target_arch = "x86_64")]
use super::{
    amx::Tiles,
    bf16::Dot,
    engine::Engine,
    x86::{Avx2, Avx512},
};

/// The variable that caps the instructions, for tests and for comparing paths.
pub(crate) const VARIABLE: &str = "TAGBRUSH_ISA";

/// Sets of instructions; each one includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    /// What every processor of the target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with the bfloat16 dot product.
    Avx512Bf16,
    /// The tiles of AMX, with AVX-512 around them.
    Amx,
}

impl Isa {
    /// All of them, from small to large.
    pub(crate) const ALL: [Self; 5] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name in [`VARIABLE`] and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }

    /// The best set that this processor and system allow.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The set in use: the best one, unless [`VARIABLE`] names a smaller one.
    ///
    /// # Errors
    /// A sentence if the variable names no set, or one that this machine does not have.
    pub(crate) fn chosen() -> Result<Self, &'static str> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| choose(std::env::var(VARIABLE).ok().as_deref()))
            .as_ref()
            .copied()
            .map_err(String::as_str)
    }
}

/// What the CPU computes with, in words: the set of instructions in use, and how products of each
/// precision are made.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the variable `TAGBRUSH_ISA` names
/// no set, or one that this machine does not have.
pub fn cpu_kernels() -> crate::Result<String> {
    let isa = Isa::chosen()
        .map_err(|message| crate::Error::invalid_input(message).with("variable", VARIABLE))?;
    let (f32, bf16) = match isa {
        Isa::Portable | Isa::Avx2 | Isa::Avx512 => ("multiply-add", "multiply-add in f32"),
        Isa::Avx512Bf16 => ("multiply-add", "dot products"),
        Isa::Amx => ("tiles, three products of split operands", "tiles"),
    };
    let best = match Isa::best() {
        best if best == isa => String::new(),
        best => format!("; this machine has {}", best.name()),
    };
    Ok(format!("{}: f32 by {f32}, bf16 by {bf16}{best}", isa.name()))
}

fn choose(wanted: Option<&str>) -> Result<Isa, String> {
    let best = Isa::best();
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(best) };
    match Isa::ALL.into_iter().find(|isa| isa.name() == wanted) {
        Some(isa) if isa <= best => Ok(isa),
        Some(_) => {
            Err(format!("{VARIABLE} is `{wanted}`, but this machine has {} at best", best.name()))
        }
        None => {
            let names = Isa::ALL.map(Isa::name).join(", ");
            Err(format!("{VARIABLE} is `{wanted}`; known: {names}"))
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
    match (bf16, avx512, avx2) {
        (true, _, _) if super::amx::is_usable() => Isa::Amx,
        (true, _, _) => Isa::Avx512Bf16,
        (_, true, _) => Isa::Avx512,
        (_, _, true) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

/// As what the operands of a product are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Products as exact as those of `f32`.
    F32,
    /// Products of bfloat16 values, sums in `f32`.
    Bf16,
}

/// Runs `kernel` compiled for the instruction set `isa`.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    // SAFETY of all arms: `Isa` values above `Portable` exist only where `detect` found the set.
    match isa {
        // SAFETY: needs nothing.
        Isa::Portable => unsafe { kernel.run::<Portable>() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        Isa::Avx512Bf16 | Isa::Amx => unsafe { run_avx512_bf16(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: needs nothing.
        _ => unsafe { kernel.run::<Portable>() },
    }
}

/// As many rows of sums as the registers hold: ARM64 has 32 of them, the oldest x86-64 16.
const PORTABLE_ROWS: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };

/// Runs `product` with the engine for operands of `format`.
pub(crate) fn run_product<P: Product>(isa: Isa, format: Format, product: P) -> P::Output {
    // SAFETY of all arms: as in `run`.
    match (isa, format) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        (Isa::Amx, Format::Bf16) => unsafe { product_amx::<Tiles<1>, P>(product) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        (Isa::Amx, Format::F32) => unsafe { product_amx::<Tiles<2>, P>(product) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        (Isa::Avx512Bf16, Format::Bf16) => unsafe { product_dot(product) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        (Isa::Avx512 | Isa::Avx512Bf16, _) => unsafe { product_avx512(product) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: see above.
        (Isa::Avx2, _) => unsafe { product_avx2(product) },
        // SAFETY: needs nothing.
        _ => unsafe { product.run::<Plain<Portable, PORTABLE_ROWS>>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<Avx512<false>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<Avx512<true>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2<P: Product>(product: P) -> P::Output {
    // SAFETY: the caller's promise.
    unsafe { product.run::<Plain<Avx2, 6>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn product_avx512<P: Product>(product: P) -> P::Output {
    // SAFETY: the caller's promise.
    unsafe { product.run::<Plain<Avx512<false>, 8>>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn product_dot<P: Product>(product: P) -> P::Output {
    // SAFETY: the caller's promise.
    unsafe { product.run::<Dot>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn product_amx<E: Engine, P: Product>(product: P) -> P::Output {
    // SAFETY: the caller's promise.
    unsafe { product.run::<E>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_set_is_taken_or_refused() {
        assert_eq!(choose(None), Ok(Isa::best()));
        assert_eq!(choose(Some("")), Ok(Isa::best()));
        assert_eq!(choose(Some("portable")), Ok(Isa::Portable));
        assert!(choose(Some("avx9")).unwrap_err().contains("avx512-bf16"));
        for isa in Isa::ALL {
            assert_eq!(choose(Some(isa.name())).is_ok(), isa <= Isa::best());
        }
    }
}
