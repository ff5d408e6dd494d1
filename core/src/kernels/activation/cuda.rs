//! Activation functions on CUDA: a kernel of their own, and a part of others.

use candle_core::{DType, Result, Tensor};

use super::super::cuda::{self, Address, Grid};
use super::Activation;

#[repr(C)]
struct Args {
    x: Address,
    out: Address,
    count: i64,
    activation: i32,
}

pub(super) fn forward(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let out = cuda::empty(x.dtype(), x.shape(), x.device())?;
    let args = Args {
        x: cuda::address(&x)?,
        out: cuda::address(&out)?,
        count: x.elem_count() as i64,
        activation: activation.number(),
    };
    let name = if x.dtype() == DType::BF16 { "activate_bf16" } else { "activate_f32" };
    // SAFETY: `ActivateArgs` in `cuda.cu`.
    unsafe { cuda::launch(x.device(), name, Grid::of(x.elem_count()), &args)? };
    Ok(out)
}

impl Activation {
    /// The number of the function in `cuda/common.cuh`.
    pub(in super::super) fn number(self) -> i32 {
        match self {
            Self::Identity => 0,
            Self::GeluErf => 1,
            Self::GeluTanh => 2,
            Self::QuickGelu => 3,
            Self::Silu => 4,
            Self::Relu => 5,
            Self::LeakyRelu => 6,
        }
    }
}
