//! Attention on CUDA: one kernel that normalises and turns queries and keys, and one for everything else,
//! in bfloat16. `f32`, and heads of other sizes than the kernel's, are plain products of matrices.

use candle_core::{DType, Device, Result, Tensor};

use super::super::cuda::{self, Address, Grid, THREADS, Units};
use super::super::{largest, norm};
use super::{Options, Rotation, Run, reference};

/// Keys of a tile, warps of a block, and values that follow a row of a tile; as in `cuda.cu`.
const KEYS: usize = 64;
const WARPS: usize = 4;
const APART: usize = 8;
/// Head sizes that the kernel is compiled for; smaller ones are filled up with zeros.
const SIZES: [usize; 4] = [32, 64, 96, 128];
/// Sizes of heads for warpgroups, and queries and keys of their tiles; as in `warpgroup.cu`.
const WARPGROUP_SIZES: [usize; 2] = [64, 128];
const WARPGROUP_ROWS: usize = 128;
/// What tiles in shared memory begin at multiples of.
const ALIGNED: usize = 1024;
/// What units may differ by where values are of -1 to 1: the rounding of weights, in another order.
const DIFFERENCE: f32 = 0.02;
/// Most heads: their scales are part of the arguments.
const HEADS: usize = 64;
/// Values of 16 bytes.
const VECTOR: usize = 8;
/// Most values of a head that is normalised or turned.
const WIDEST: usize = 512;

#[repr(C)]
struct Args {
    q: Address,
    k: Address,
    v: Address,
    out: Address,
    bias: Address,
    tokens: Address,
    regions: Address,
    q_strides: [i64; 3],
    k_strides: [i64; 3],
    v_strides: [i64; 3],
    heads: i32,
    group: i32,
    n: i32,
    m: i32,
    d: i32,
    windows: i32,
    causal: i32,
    scales: [f32; HEADS],
}

#[repr(C)]
struct HeadArgs {
    x: Address,
    out: Address,
    weight: Address,
    bias: Address,
    sin: Address,
    cos: Address,
    strides: [i64; 3],
    rows: i64,
    n: i32,
    heads: i32,
    d: i32,
    prefix: i32,
    centred: i32,
    eps: f32,
}

pub(super) fn forward(
    [q, k, v]: [&Tensor; 3],
    options: &Options,
    scale: &[f32],
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let d = q.dim(3)?;
    if (options.norms.is_some() || rotation.is_some()) && !takes_heads(q, d) {
        return reference::forward(q, k, v, options, scale, rotation);
    }
    let norms = options.norms.as_ref();
    let q = head(q, norms.map(|(q, _)| q), rotation)?;
    let k = head(k, norms.map(|(_, k)| k), rotation)?;
    attend([&q, &k, v], options, scale)
}

/// Whether heads of `d` values can be normalised and turned.
pub(super) fn takes_heads(x: &Tensor, d: usize) -> bool {
    cuda::takes(x) && d.is_multiple_of(2) && d <= WIDEST
}

/// Attention of what is normalised and turned already.
fn attend(qkv: [&Tensor; 3], options: &Options, scale: &[f32]) -> Result<Tensor> {
    let [q, k, v] = qkv;
    let d = q.dim(3)?;
    let mut fits = q.dtype() == DType::BF16 && d.is_multiple_of(VECTOR) && scale.len() <= HEADS;
    fits &= scale.iter().all(|scale| *scale > 0.0);
    match SIZES.into_iter().find(|size| d <= *size) {
        Some(size) if fits => flash(qkv, options, scale, size),
        _ => reference::attend(q, k, v, options, scale),
    }
}

/// Runs of tokens as one sequence; see `joint.rs`.
pub(super) fn joint(
    runs: &[Run<'_>],
    options: &Options,
    scale: &[f32],
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let (_, heads, d) = runs[0].q.dims3()?;
    let n = runs.iter().map(|run| run.q.dims()[0]).sum::<usize>();
    let device = runs[0].q.device();
    let empty = || cuda::empty(runs[0].q.dtype(), (1, n, heads, d), device);
    let (q, k, v) = (empty()?, empty()?, empty()?);
    let mut first = 0;
    for run in runs {
        let (q_norm, k_norm) = run.norms;
        let turned = rotation.map(|rotation| (rotation, first));
        let place = |x: &Tensor| {
            let start = cuda::address(x)?;
            Ok::<_, candle_core::Error>(start.offset(first * heads * d, x.dtype()))
        };
        let four = |x: &Tensor| x.transpose(0, 1)?.unsqueeze(0);
        head_to(&four(run.q)?, Some(q_norm), turned, place(&q)?)?;
        head_to(&four(run.k)?, Some(k_norm), turned, place(&k)?)?;
        head_to(&four(run.v)?, None, None, place(&v)?)?;
        first += run.q.dims()[0];
    }
    let [q, k, v] = [q, k, v].map(|x| x.transpose(1, 2));
    attend([&q?, &k?, &v?], options, scale)
}

/// Queries or keys `(b, h, n, d)`, normalised and turned.
fn head(x: &Tensor, norm: Option<&norm::Weights>, rotation: Option<&Rotation>) -> Result<Tensor> {
    if norm.is_none() && rotation.is_none() {
        return Ok(x.clone());
    }
    let (b, heads, n, d) = x.dims4()?;
    let out = cuda::empty(x.dtype(), (b, n, heads, d), x.device())?;
    let to = cuda::address(&out)?;
    head_to(x, norm, rotation.map(|rotation| (rotation, 0)), to)?;
    out.transpose(1, 2)
}

/// The same as `(b, n, h, d)` to the memory from `out` on; a rotation is that of the tokens from its
/// number on.
fn head_to(
    x: &Tensor,
    norm: Option<&norm::Weights>,
    rotation: Option<(&Rotation, usize)>,
    out: Address,
) -> Result<()> {
    let (b, heads, n, d) = x.dims4()?;
    let are_pairs = |x: &Tensor| x.layout().start_offset().is_multiple_of(2);
    let fits = x.stride()[3] == 1 && x.stride()[..3].iter().all(|stride| stride % 2 == 0);
    let x = if fits && are_pairs(x) { x.clone() } else { x.force_contiguous()? };
    let norm = norm.map(norm::Weights::parameters);
    let tables = match rotation {
        Some((r, first)) => Some((r.sin.contiguous()?, r.cos.contiguous()?, first * d)),
        None => None,
    };
    let table = |of: fn(&(Tensor, Tensor, usize)) -> &Tensor| {
        tables.as_ref().map_or(Ok(Address::NONE), |tables| {
            Ok::<_, candle_core::Error>(cuda::address(of(tables))?.offset(tables.2, DType::F32))
        })
    };
    let rows = b * n * heads;
    let args = HeadArgs {
        x: cuda::address(&x)?,
        out,
        weight: cuda::address_of(norm.as_ref().map(|norm| norm.weight))?,
        bias: cuda::address_of(norm.as_ref().map(|norm| norm.bias))?,
        sin: table(|tables| &tables.0)?,
        cos: table(|tables| &tables.1)?,
        strides: strides(&x),
        rows: rows as i64,
        n: n as i32,
        heads: heads as i32,
        d: d as i32,
        prefix: rotation.map_or(0, |(rotation, _)| rotation.prefix) as i32,
        centred: i32::from(norm.as_ref().is_some_and(|norm| norm.kind == norm::Kind::Layer)),
        eps: norm.as_ref().map_or(0.0, |norm| norm.eps as f32),
    };
    let down = THREADS / 32;
    let grid = Grid { blocks: [rows.div_ceil(down), 1, 1], threads: [32, down], shared: 0 };
    let name = if x.dtype() == DType::BF16 { "head_bf16" } else { "head_f32" };
    // SAFETY: `HeadArgs` in `cuda.cu`; the shapes were checked, and `out` has room for all rows.
    unsafe { cuda::launch(x.device(), name, grid, &args) }
}

/// Of batch entries, heads and tokens.
fn strides(x: &Tensor) -> [i64; 3] {
    let strides = x.stride();
    [strides[0], strides[1], strides[2]].map(|stride| stride as i64)
}

/// Attention by the kernels for heads of `size` values.
fn flash(qkv: [&Tensor; 3], options: &Options, scale: &[f32], size: usize) -> Result<Tensor> {
    let is_plain = options.bias.is_none() && options.windows.is_none() && !options.causal;
    let is_whole = WARPGROUP_SIZES.contains(&qkv[0].dims()[3]);
    let units = match is_plain && is_whole && has_warpgroups(qkv[0].device()) {
        true => Units::Warpgroups,
        false => Units::Warps,
    };
    flash_by(units, qkv, options, scale, size)
}

/// Attention by one kind of units; the caller knows that the device has them.
pub(crate) fn flash_by(
    units: Units,
    [q, k, v]: [&Tensor; 3],
    options: &Options,
    scale: &[f32],
    size: usize,
) -> Result<Tensor> {
    let (b, heads, n, d) = q.dims4()?;
    let (_, groups, m, _) = k.dims4()?;
    let (q, k, v) = (aligned(q)?, aligned(k)?, aligned(v)?);
    let device = q.device();
    let out = cuda::empty(q.dtype(), (b, n, heads * d), device)?;
    let (windows, n, m) = match &options.windows {
        Some(windows) => {
            let (count, length) = windows.tokens.dims2()?;
            (count, length, length)
        }
        None => (1, n, m),
    };
    let float = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
    let bias = options.bias.as_ref().map(float).transpose()?;
    let regions = options.windows.as_ref().and_then(|windows| windows.regions.as_ref());
    let regions = regions.map(float).transpose()?;
    let mut scales = [0.0; HEADS];
    scales[..heads].copy_from_slice(scale);
    let args = Args {
        q: cuda::address(&q)?,
        k: cuda::address(&k)?,
        v: cuda::address(&v)?,
        out: cuda::address(&out)?,
        bias: cuda::address_of(bias.as_ref())?,
        tokens: cuda::address_of(options.windows.as_ref().map(|windows| &windows.tokens))?,
        regions: cuda::address_of(regions.as_ref())?,
        q_strides: strides(&q),
        k_strides: strides(&k),
        v_strides: strides(&v),
        heads: heads as i32,
        group: (heads / groups.max(1)) as i32,
        n: n as i32,
        m: m as i32,
        d: d as i32,
        windows: windows as i32,
        causal: i32::from(options.causal),
        scales,
    };
    let is_biased = bias.is_some() || regions.is_some() || options.causal;
    let tiles = |rows: usize| 2 * (rows + 2 * KEYS) * (size + APART);
    let (name, rows, threads, shared) = match (units, is_biased) {
        (Units::Warpgroups, _) => {
            let (rows, tile) = (WARPGROUP_ROWS, 2 * WARPGROUP_ROWS * d);
            (format!("hopper_attention_{d}"), rows, 256, 5 * tile + ALIGNED)
        }
        (_, true) => {
            (format!("attention_biased_{size}"), 16 * WARPS, 32 * WARPS, tiles(16 * WARPS))
        }
        (_, false) => (format!("attention_{size}"), 32 * WARPS, 32 * WARPS, tiles(32 * WARPS)),
    };
    let blocks = [b * windows * n.div_ceil(rows), heads, 1];
    let grid = Grid { blocks, threads: [threads, 1], shared };
    // SAFETY: `AttentionArgs` in `arguments.cuh`; the shapes were checked, and windows name each token once.
    unsafe { cuda::launch(device, &name, grid, &args)? };
    Ok(out)
}

/// Whether attention runs on the matrix units of warpgroups: `warpgroup.cu`, for heads of [`WARPGROUP_SIZES`] without windows
/// and with nothing added to scores.
pub(crate) fn has_warpgroups(device: &Device) -> bool {
    cuda::has_warpgroups(device, "attention", DIFFERENCE, || {
        let [a, b] = WARPGROUP_SIZES.map(|d| difference_of_units(device, d));
        let (a, b) = (a?, b?);
        Ok(if a > b || a.is_nan() { a } else { b })
    })
}

/// The largest difference of what both kinds of units give for made-up values of -1 to 1.
pub(super) fn difference_of_units(device: &Device, d: usize) -> Result<f32> {
    // More than two tiles of keys, the last of which is not full.
    let (heads, n) = (2, 300);
    let made = |factor: f32| {
        let values = (0..heads * n * d).map(|i| (i as f32 * factor).sin());
        let values = Tensor::from_iter(values, &Device::Cpu)?.reshape((1, heads, n, d))?;
        values.to_dtype(DType::BF16)?.to_device(device)
    };
    let (q, k, v) = (made(0.37)?, made(0.61)?, made(0.89)?);
    let scale = [(d as f32).powf(-0.5); 2];
    let by =
        |units| flash_by(units, [&q, &k, &v], &Options::default(), &scale, d)?.to_dtype(DType::F32);
    largest(&(by(Units::Warps)? - by(Units::Warpgroups)?)?)
}

/// The same values so that each head of a token begins at a multiple of 16 bytes and lies together.
fn aligned(x: &Tensor) -> Result<Tensor> {
    let strides = x.stride();
    let fits = strides[3] == 1 && strides[..3].iter().all(|stride| stride.is_multiple_of(VECTOR));
    if fits && cuda::address(x)?.is_aligned() {
        return Ok(x.clone());
    }
    x.force_contiguous()
}
