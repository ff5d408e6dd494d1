//! Rows of numbers that numpy shows without copying them.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A number of the core as people wrote it: 0.35, and not 0.3499999940395355. The nearest `f32` of it is
/// the number itself.
pub(crate) fn decimal(number: f32) -> f64 {
    // Rust prints the shortest text that is read back as the same `f32`, and that text is a number.
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

enum Data {
    /// Ours alone: Python may write it.
    Own(UnsafeCell<Vec<f32>>),
    /// Shared with the core: read-only.
    Shared(Arc<[f32]>),
}

/// Numbers of type `f32` in C order, for numpy through the buffer protocol.
#[pyclass(frozen)]
pub(crate) struct Floats {
    data: Data,
    shape: Vec<isize>,
    strides: Vec<isize>,
}

// SAFETY: after construction the numbers are only reached through the buffer protocol, whose users
// synchronise among themselves as they do for every other array; Rust code never reads or writes them.
unsafe impl Sync for Floats {}

impl Floats {
    /// Numbers that belong to Python from here on.
    pub(crate) fn own(data: Vec<f32>, shape: &[usize]) -> Self {
        debug_assert_eq!(data.len(), shape.iter().product::<usize>());
        Self::new(Data::Own(UnsafeCell::new(data)), shape)
    }

    /// Numbers that the core also has.
    pub(crate) fn shared(data: Arc<[f32]>, shape: &[usize]) -> Self {
        debug_assert_eq!(data.len(), shape.iter().product::<usize>());
        Self::new(Data::Shared(data), shape)
    }

    fn new(data: Data, shape: &[usize]) -> Self {
        let shape: Vec<isize> = shape.iter().map(|side| *side as isize).collect();
        let mut strides = vec![size_of::<f32>() as isize; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        Self { data, shape, strides }
    }
}

#[pymethods]
impl Floats {
    #[getter]
    fn shape(&self) -> Vec<isize> {
        self.shape.clone()
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let (pointer, readonly) = match &this.data {
            // SAFETY: nobody holds a reference to the vector, see `Sync` above.
            Data::Own(data) => (unsafe { (*data.get()).as_mut_ptr() }.cast(), false),
            Data::Shared(data) => (data.as_ptr().cast_mut().cast(), true),
        };
        let buffer = Buffer {
            pointer,
            readonly,
            item: size_of::<f32>() as isize,
            format: c"f",
            shape: &this.shape,
            strides: &this.strides,
        };
        // SAFETY: `view` is what Python passed, and the view keeps `slf` and with it the numbers,
        // shape and strides alive.
        unsafe { buffer.fill(view, flags, slf.as_any()) }
    }
}

/// What a view of the buffer protocol is made of.
pub(crate) struct Buffer<'a> {
    pub(crate) pointer: *mut c_void,
    pub(crate) readonly: bool,
    pub(crate) item: isize,
    pub(crate) format: &'static std::ffi::CStr,
    pub(crate) shape: &'a [isize],
    pub(crate) strides: &'a [isize],
}

impl Buffer<'_> {
    /// Fills a view that keeps `owner` alive.
    ///
    /// # Safety
    /// `view` is null or points to a view that Python wants filled. What `self` points to lives as long
    /// as `owner` and is in C order.
    pub(crate) unsafe fn fill(
        &self,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        owner: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        if self.readonly && flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            // SAFETY: checked above; Python wants it null after an error.
            unsafe { (*view).obj = ptr::null_mut() };
            return Err(PyBufferError::new_err("the buffer is read-only"));
        }
        let has = |flag: c_int| flags & flag == flag;
        let or_null = |wanted: bool, values: &[isize]| match wanted {
            true => values.as_ptr().cast_mut(),
            false => ptr::null_mut(),
        };
        let items: isize = self.shape.iter().product();
        // SAFETY: the caller promises that `view` may be written. Consumers do not write through
        // `shape`, `strides` and `format`, which are pointers to mutable data for historical reasons.
        unsafe {
            (*view).buf = self.pointer;
            (*view).len = items * self.item;
            (*view).readonly = c_int::from(self.readonly);
            (*view).itemsize = self.item;
            (*view).format = match has(ffi::PyBUF_FORMAT) {
                true => self.format.as_ptr().cast_mut(),
                false => ptr::null_mut(),
            };
            (*view).ndim = self.shape.len() as c_int;
            (*view).shape = or_null(has(ffi::PyBUF_ND), self.shape);
            (*view).strides = or_null(has(ffi::PyBUF_STRIDES), self.strides);
            (*view).suboffsets = ptr::null_mut();
            (*view).internal = ptr::null_mut();
            (*view).obj = owner.clone().into_ptr();
        }
        Ok(())
    }
}
