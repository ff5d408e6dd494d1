//! Products of matrices in bfloat16 by cuBLASLt, which adds a bias and a residual and applies GELU to sums that are
//! still in `f32`, before it stores them: what follows a product costs no way through the memory of its own.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublaslt::{result as library, sys};
use candle_core::{DType, Device, Error, Result, Tensor, bail};

use super::{Address, address};

use sys::cublasLtMatmulDescAttributes_t as Attribute;
use sys::cublasLtMatmulPreferenceAttributes_t as Preference;

/// What the library may take for its work, as it advises for devices since Hopper.
const WORKSPACE: usize = 32 << 20;
/// Shapes whose algorithms are kept. Beyond them all are asked for anew.
const KEPT: usize = 4096;

/// `gelu(x W^T + bias + other)`.
pub(in super::super) struct Product<'a> {
    /// `(rows, k)` in bfloat16, contiguous.
    pub(in super::super) x: &'a Tensor,
    /// `(n, k)` in bfloat16, contiguous.
    pub(in super::super) weight: &'a Tensor,
    /// `(n)` in bfloat16, contiguous.
    pub(in super::super) bias: &'a Tensor,
    /// Whether GELU is applied, the one with a hyperbolic tangent.
    pub(in super::super) gelu: bool,
    /// `rows` rows of `n` values in bfloat16 that are added.
    pub(in super::super) other: Option<Address>,
    /// The same for the result.
    pub(in super::super) out: Address,
}

/// What an algorithm is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    device: usize,
    n: usize,
    rows: usize,
    k: usize,
    gelu: bool,
    adds: bool,
    alignments: [u32; 4],
}

type Found = Option<sys::cublasLtMatmulHeuristicResult_t>;
/// The library's choices.
static FOUND: LazyLock<Mutex<HashMap<Shape, Found>>> = LazyLock::new(Mutex::default);

impl Product<'_> {
    /// Launches the product; false if the library has no algorithm for it, and nothing was done.
    ///
    /// # Safety
    /// `other` and `out` are addresses of as many values as there have to be, and nobody else reads or writes
    /// `out`.
    pub(in super::super) unsafe fn run(&self) -> Result<bool> {
        let ((rows, k), (n, width)) = (self.x.dims2()?, self.weight.dims2()?);
        let are_bf16 = [self.x, self.weight, self.bias].iter().all(|x| x.dtype() == DType::BF16);
        if !are_bf16 || width != k || self.bias.dims() != [n] {
            bail!("a product of {:?} and {:?}", self.x.dims(), self.weight.dims());
        }
        let Device::Cuda(device) = self.x.device() else { bail!("a product on no device of CUDA") };
        let [a, b, bias] = [address(self.weight)?, address(self.x)?, address(self.bias)?];
        let (c, d) = (self.other.unwrap_or(self.out), self.out);
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let shape = Shape {
            device: stream.context().ordinal(),
            n,
            rows,
            k,
            gelu: self.gelu,
            adds: self.other.is_some(),
            alignments: [a, b, c, d].map(Address::alignment),
        };
        // The library's matrices are columns behind each other: rows of `out` are columns of its `W x^T`.
        let operation = Operation::new(shape, bias).map_err(failed)?;
        let Some(found) = operation.algorithm(device, shape).map_err(failed)? else {
            return Ok(false);
        };
        let room = match found.workspaceSize {
            0 => None,
            size => Some(super::empty(DType::U8, size, self.x.device())?),
        };
        let workspace = room.as_ref().map_or(Ok(Address::NONE), address)?;
        let (alpha, beta) = (1f32, if shape.adds { 1f32 } else { 0.0 });
        let number = |x: &f32| std::ptr::from_ref(x).cast::<c_void>();
        // SAFETY: the caller's promise; the layouts are those of the operands.
        let launched = unsafe {
            library::matmul(
                handle(device),
                operation.description,
                number(&alpha),
                number(&beta),
                a.pointer(),
                operation.weight,
                b.pointer(),
                operation.x,
                c.pointer(),
                operation.out,
                d.pointer(),
                operation.out,
                &found.algo,
                workspace.pointer(),
                found.workspaceSize,
                stream.cu_stream().cast(),
            )
        };
        match launched {
            Ok(()) => Ok(true),
            // It chose what it cannot do.
            Err(library::CublasError(NOT_SUPPORTED)) => {
                kept().insert(shape, None);
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

const NOT_SUPPORTED: sys::cublasStatus_t = sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;

/// The choices so far.
fn kept() -> MutexGuard<'static, HashMap<Shape, Found>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle of cuBLAS is one of cuBLASLt as well.
fn handle(device: &CudaDevice) -> sys::cublasLtHandle_t {
    (*device.cublas_handle().handle()).cast()
}

fn failed(error: library::CublasError) -> Error {
    Error::Msg(format!("cuBLASLt: {error}"))
}

/// The library's descriptions of a product, to be given back.
struct Operation {
    description: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl Operation {
    fn new(shape: Shape, bias: Address) -> std::result::Result<Self, library::CublasError> {
        let Shape { n, rows, k, .. } = shape;
        let single = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let none = std::ptr::null_mut();
        // What exists is given back, also if the rest cannot be made.
        let mut made = Self { description: std::ptr::null_mut(), weight: none, x: none, out: none };
        made.description = library::create_matmul_desc(single, sys::cudaDataType::CUDA_R_32F)?;
        let layout = |rows: usize, columns: usize| {
            let bf16 = sys::cudaDataType::CUDA_R_16BF;
            library::create_matrix_layout(bf16, rows as u64, columns as u64, rows as i64)
        };
        made.weight = layout(k, n)?;
        made.x = layout(k, rows)?;
        made.out = layout(n, rows)?;
        let epilogue = match shape.gelu {
            true => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
            false => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
        };
        let turned = cublasOperation_t::CUBLAS_OP_T;
        // SAFETY: the description is there, and the values are of the attributes' types.
        unsafe {
            made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &turned)?;
            made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            made.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.pointer())?;
        }
        Ok(made)
    }

    /// # Safety
    /// The value is of the attribute's type.
    unsafe fn set<T>(
        &self,
        attribute: Attribute,
        value: &T,
    ) -> std::result::Result<(), library::CublasError> {
        let (value, size) = (std::ptr::from_ref(value).cast(), size_of::<T>());
        // SAFETY: the caller's promise.
        unsafe { library::set_matmul_desc_attribute(self.description, attribute, value, size) }
    }

    /// The library's choice for a shape; none if it has no algorithm.
    fn algorithm(
        &self,
        device: &CudaDevice,
        shape: Shape,
    ) -> std::result::Result<Found, library::CublasError> {
        let mut kept = kept();
        if let Some(found) = kept.get(&shape) {
            return Ok(*found);
        }
        let wishes = library::create_matmul_pref()?;
        let ask = || {
            let wish = |attribute, value: *const c_void, size| {
                // SAFETY: the wishes are there, and the values are of the attributes' types.
                unsafe { library::set_matmul_pref_attribute(wishes, attribute, value, size) }
            };
            let most = std::ptr::from_ref(&WORKSPACE).cast();
            wish(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most, size_of::<usize>())?;
            let operands = [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ];
            for (attribute, alignment) in operands.into_iter().zip(&shape.alignments) {
                wish(attribute, std::ptr::from_ref(alignment).cast(), size_of::<u32>())?;
            }
            // SAFETY: all descriptions are there.
            unsafe {
                library::get_matmul_algo_heuristic(
                    handle(device),
                    self.description,
                    self.weight,
                    self.x,
                    self.out,
                    self.out,
                    wishes,
                )
            }
        };
        let found = match ask() {
            Ok(found) => Ok(Some(found)),
            Err(library::CublasError(NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(error),
        };
        // SAFETY: they were made above.
        let _ = unsafe { library::destroy_matmul_pref(wishes) };
        if kept.len() >= KEPT {
            kept.clear();
        }
        let found = found?;
        kept.insert(shape, found);
        Ok(found)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: what is there was made by `new`. There is nobody to tell of an error.
        unsafe {
            if !self.description.is_null() {
                let _ = library::destroy_matmul_desc(self.description);
            }
            for layout in [self.weight, self.x, self.out] {
                if !layout.is_null() {
                    let _ = library::destroy_matrix_layout(layout);
                }
            }
        }
    }
}
