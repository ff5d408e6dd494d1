//! `tagbrush.Image`: pixels that numpy and Pillow read without or with one copy.

use std::borrow::Cow;
use std::ffi::c_int;
use std::path::PathBuf;

use pyo3::basic::CompareOp;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyTuple};
use tagbrush::{ImageFormat, Input};

use crate::errors::{OrRaise, invalid};
use crate::floats::Buffer;
use crate::image_in::input;

/// An 8-bit RGB or RGBA picture. Never changes; copies share the pixels.
#[pyclass(frozen, module = "tagbrush")]
pub(crate) struct Image(pub(crate) tagbrush::Image);

impl Image {
    fn channels(&self) -> usize {
        if self.0.has_alpha() { 4 } else { 3 }
    }
}

#[pymethods]
impl Image {
    /// A picture out of anything that the package takes as one, decoded now.
    #[new]
    #[pyo3(signature = (source, /))]
    fn new(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let decoded = match input(source)?? {
            Input::Path(path) => py.detach(|| tagbrush::Image::open(path)),
            Input::Bytes(bytes) => py.detach(|| tagbrush::Image::decode(&bytes)),
            Input::Image(image) => Ok(image),
            _ => Err(invalid("source", "a picture of an unknown kind")),
        };
        decoded.or_raise(py).map(Self)
    }

    /// Reads and decodes a file.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| tagbrush::Image::open(path)).or_raise(py).map(Self)
    }

    /// Decodes the bytes of a JPEG, PNG, WebP, BMP or GIF file.
    #[staticmethod]
    #[pyo3(signature = (data, /))]
    fn decode(py: Python<'_>, data: Cow<'_, [u8]>) -> PyResult<Self> {
        py.detach(|| tagbrush::Image::decode(&data)).or_raise(py).map(Self)
    }

    /// A picture of `width * height` pixels of three bytes, row by row.
    #[staticmethod]
    #[pyo3(signature = (width, height, pixels, /))]
    fn from_rgb8(py: Python<'_>, width: u32, height: u32, pixels: Cow<'_, [u8]>) -> PyResult<Self> {
        tagbrush::Image::from_rgb8(width, height, &*pixels).or_raise(py).map(Self)
    }

    /// A picture of `width * height` pixels of four bytes, row by row.
    #[staticmethod]
    #[pyo3(signature = (width, height, pixels, /))]
    fn from_rgba8(
        py: Python<'_>,
        width: u32,
        height: u32,
        pixels: Cow<'_, [u8]>,
    ) -> PyResult<Self> {
        tagbrush::Image::from_rgba8(width, height, &*pixels).or_raise(py).map(Self)
    }

    /// The width in pixels.
    #[getter]
    fn width(&self) -> u32 {
        self.0.width()
    }

    /// The height in pixels.
    #[getter]
    fn height(&self) -> u32 {
        self.0.height()
    }

    /// Width and height, as Pillow has it.
    #[getter]
    fn size(&self) -> (u32, u32) {
        (self.0.width(), self.0.height())
    }

    /// Rows, columns and channels, as numpy has it.
    #[getter]
    fn shape(&self) -> (u32, u32, usize) {
        (self.0.height(), self.0.width(), self.channels())
    }

    /// ``"RGB"`` or ``"RGBA"``.
    #[getter]
    fn mode(&self) -> &'static str {
        if self.0.has_alpha() { "RGBA" } else { "RGB" }
    }

    /// The array interface of numpy, version 3: read-only bytes, not copied.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("shape", self.shape())?;
        interface.set_item("data", (self.0.pixels().as_ptr() as usize, true))?;
        interface.set_item("strides", py.None())?;
        Ok(interface)
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let (height, width, channels) = this.shape();
        let (height, width, channels) = (height as isize, width as isize, channels as isize);
        // The view needs them for as long as it lives, and pixels are the only thing that an image
        // keeps; they are given back in `__releasebuffer__`.
        let geometry = Box::new([height, width, channels, width * channels, channels, 1]);
        let (shape, strides) = geometry.split_at(3);
        let buffer = Buffer {
            pointer: this.0.pixels().as_ptr().cast_mut().cast(),
            readonly: true,
            item: 1,
            format: c"B",
            shape,
            strides,
        };
        // SAFETY: `view` is what Python passed; it keeps `slf`, and so the pixels, alive, and
        // `__releasebuffer__` frees what shape and strides point to when the view ends.
        unsafe {
            buffer.fill(view, flags, slf.as_any())?;
            (*view).internal = Box::into_raw(geometry).cast();
        }
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: `internal` is what `__getbuffer__` put there, and a view is released once.
        drop(unsafe { Box::from_raw((*view).internal.cast::<[isize; 6]>()) });
    }

    /// The pixels as bytes, row by row.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.pixels())
    }

    /// The picture as a Pillow image, which copies the pixels.
    fn to_pil<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let pillow = slf.py().import("PIL.Image")?;
        pillow.call_method1("frombytes", (slf.get().mode(), slf.get().size(), slf))
    }

    /// The pixels as a read-only array of shape (height, width, 3 or 4), not copied.
    fn to_numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("numpy")?.call_method1("asarray", (slf,))
    }

    /// Writes a file in the format that its name ends with: .png, .jpg, .jpeg or .webp.
    #[pyo3(signature = (path, /))]
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(path)).or_raise(py)
    }

    /// The bytes of a file of this format.
    #[pyo3(signature = (format = "png", *, quality = None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        format: &str,
        quality: Option<u8>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let format = file_format(format, quality).or_raise(py)?;
        let bytes = py.detach(|| self.0.encode(format)).or_raise(py)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn _repr_png_<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.encode(py, "png", None)
    }

    fn __repr__(&self) -> String {
        format!("Image({} x {}, {})", self.0.width(), self.0.height(), self.mode())
    }

    fn __richcmp__(&self, py: Python<'_>, other: &Bound<'_, PyAny>, op: CompareOp) -> Py<PyAny> {
        let equal = other.cast::<Self>().map(|other| self.0 == other.get().0);
        let answer = |value: bool| PyBool::new(py, value).to_owned().into_any().unbind();
        match (op, equal) {
            (CompareOp::Eq, Ok(equal)) => answer(equal),
            (CompareOp::Ne, Ok(equal)) => answer(!equal),
            _ => py.NotImplemented(),
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, image) = (slf.py(), slf.get());
        let name = if image.0.has_alpha() { "from_rgba8" } else { "from_rgb8" };
        let make = slf.get_type().getattr(name)?;
        let arguments = (image.0.width(), image.0.height(), image.tobytes(py));
        PyTuple::new(py, [make, arguments.into_pyobject(py)?.into_any()])
    }
}

/// A format by its name, with the quality that only one of them has.
pub(crate) fn file_format(name: &str, quality: Option<u8>) -> tagbrush::Result<ImageFormat> {
    match (name.parse()?, quality) {
        (format, None) => Ok(format),
        (ImageFormat::Jpeg { .. }, Some(quality)) => Ok(ImageFormat::Jpeg { quality }),
        (_, Some(_)) => Err(invalid("quality", "only JPEG has a quality")),
    }
}
