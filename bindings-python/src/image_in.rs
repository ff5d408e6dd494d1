//! Pictures as Python people have them: paths, bytes, files, Pillow images, arrays, our own.
//!
//! Pixels are copied once, here, while the interpreter's lock is held: another thread may write an array
//! as soon as it is not.

use std::path::PathBuf;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyOSError, PySyntaxError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};
use tagbrush::{Error, ErrorKind, Input};

use crate::errors::{OrRaise, invalid, raised};
use crate::image::Image;

const KINDS: &str = "a path, the bytes of an image file, a file object, a Pillow image, an array of \
                     uint8 or a tagbrush.Image";

/// One picture. The outer error is a mistake of the program (an object that is no picture, a file
/// object that fails); the inner one is a fault of this picture and leaves others alone.
pub(crate) fn input(object: &Bound<'_, PyAny>) -> PyResult<PyResult<Input>> {
    let py = object.py();
    if let Ok(image) = object.cast::<Image>() {
        return Ok(Ok(Input::Image(image.get().0.clone())));
    }
    if object.is_instance_of::<PyString>() || object.hasattr("__fspath__")? {
        return Ok(Ok(Input::Path(object.extract::<PathBuf>()?)));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Ok(Input::Bytes(bytes.as_bytes().to_vec())));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(Ok(Input::Bytes(bytes.to_vec())));
    }
    if object.is_instance_of::<PyMemoryView>() {
        return Ok(memory(object));
    }
    if is_pillow(object)? {
        return Ok(pillow(object).map_err(|e| undecoded(py, e)));
    }
    if object.hasattr("__array_interface__")? {
        let array = py.import("numpy")?.call_method1("asarray", (object,))?;
        return Ok(pixels(&array));
    }
    if object.hasattr("read")? {
        let bytes = object.call_method0("read")?;
        let bytes = bytes.cast::<PyBytes>().map_err(|_| {
            PyTypeError::new_err("a file with a picture must be opened in binary mode")
        })?;
        return Ok(Ok(Input::Bytes(bytes.as_bytes().to_vec())));
    }
    let name = object.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!("an image is {KINDS}; got {name}")))
}

/// Pictures in a list or another iterable.
pub(crate) fn inputs(objects: &Bound<'_, PyAny>) -> PyResult<Vec<PyResult<Input>>> {
    refuse_single(objects)?;
    objects.try_iter()?.map(|object| input(&object?)).collect()
}

/// Refuses one picture where many are expected: a string would be taken for a list of its letters,
/// and a picture for a list of its rows.
pub(crate) fn refuse_single(objects: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_array_of_many = |object: &Bound<'_, PyAny>| {
        let dimensions = object.getattr("ndim").and_then(|n| n.extract::<usize>());
        dimensions.is_ok_and(|n| n == 4)
    };
    let is_single = objects.is_instance_of::<PyString>()
        || objects.is_instance_of::<PyBytes>()
        || objects.is_instance_of::<PyByteArray>()
        || objects.is_instance_of::<PyMemoryView>()
        || objects.hasattr("__fspath__")?
        || objects.hasattr("read")?
        || (objects.hasattr("__array_interface__")?
            && !is_array_of_pictures(objects, is_array_of_many)?);
    match is_single {
        true => Err(PyTypeError::new_err("expected a list of images, got one image")),
        false => Ok(()),
    }
}

/// Whether an array holds many pictures: four dimensions, or objects.
fn is_array_of_pictures<'py>(
    array: &Bound<'py, PyAny>,
    has_four: impl Fn(&Bound<'py, PyAny>) -> bool,
) -> PyResult<bool> {
    let kind = array.getattr("dtype").and_then(|dtype| dtype.getattr("kind"));
    let is_objects =
        kind.is_ok_and(|kind| kind.extract::<String>().is_ok_and(|k| "OSUT".contains(&k)));
    Ok(is_objects || has_four(array))
}

/// A view of bytes is an encoded picture if it is flat.
fn memory(view: &Bound<'_, PyAny>) -> PyResult<Input> {
    let py = view.py();
    let buffer = PyUntypedBuffer::get(view)?;
    if buffer.dimensions() > 1 {
        return pixels(view);
    }
    match buffer.as_typed::<u8>() {
        Ok(bytes) => Ok(Input::Bytes(bytes.to_vec(py)?)),
        Err(_) => Err(invalid("image", "the memory holds no bytes of an image file")).or_raise(py),
    }
}

/// What Pillow raises while it decodes a file that it had only opened, as our error.
fn undecoded(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyOSError>(py) && !error.is_instance_of::<PySyntaxError>(py) {
        return error;
    }
    let message = format!("Pillow cannot decode the image: {}", error.value(py));
    let ours = raised(py, &Error::new(ErrorKind::ImageDecode, message));
    ours.set_cause(py, Some(error));
    ours
}

/// An array of pixels: rows, columns and 1, 3 or 4 channels of uint8, or rows and columns of greys.
fn pixels(array: &Bound<'_, PyAny>) -> PyResult<Input> {
    let py = array.py();
    let wrong = |message: String| Err(raised(py, &invalid("image", message)));
    let other_type = || {
        let dtype = array.getattr("dtype").map(|dtype| dtype.to_string());
        let dtype = dtype.unwrap_or_else(|_| "another type".to_owned());
        wrong(format!(
            "an array of {dtype}; expected uint8 from 0 to 255 (for values from 0 to 1: \
             (array * 255).round().astype(\"uint8\"))"
        ))
    };
    // Some types, dates for one, have no buffers at all.
    let Ok(buffer) = PyUntypedBuffer::get(array) else { return other_type() };
    let Ok(typed) = buffer.as_typed::<u8>() else { return other_type() };
    let (height, width, channels) = match *buffer.shape() {
        [height, width] => (height, width, 1),
        [height, width, channels @ (1 | 3 | 4)] => (height, width, channels),
        ref shape => {
            return wrong(format!(
                "an array of shape {shape:?}; expected (height, width), or (height, width, channels) \
                 with 1, 3 or 4 channels"
            ));
        }
    };
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return wrong(format!("an array of {height} rows and {width} columns is too large"));
    };
    let values = typed.to_vec(py)?;
    let image = match channels {
        4 => tagbrush::Image::from_rgba8(width, height, values),
        3 => tagbrush::Image::from_rgb8(width, height, values),
        _ => {
            let values: Vec<u8> = values.into_iter().flat_map(|grey| [grey; 3]).collect();
            tagbrush::Image::from_rgb8(width, height, values)
        }
    };
    Ok(Input::Image(image.or_raise(py)?))
}

/// Told by what it can do, so that Pillow is never imported for people who do not use it.
fn is_pillow(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.hasattr("mode")? && object.hasattr("getbands")? && object.hasattr("tobytes")?)
}

/// A Pillow image, in whatever mode that has 8 bits for a channel.
fn pillow(image: &Bound<'_, PyAny>) -> PyResult<Input> {
    let py = image.py();
    let mode: String = image.getattr("mode")?.extract()?;
    let info = image.getattr("info")?;
    let converted = match mode.as_str() {
        "RGB" | "RGBA" => image.clone(),
        "LA" | "La" | "PA" | "RGBa" => image.call_method1("convert", ("RGBA",))?,
        "1" | "L" | "P" if info.contains("transparency")? => {
            image.call_method1("convert", ("RGBA",))?
        }
        "1" | "L" | "P" | "RGBX" | "CMYK" | "YCbCr" | "LAB" | "HSV" => {
            image.call_method1("convert", ("RGB",))?
        }
        _ => {
            let message =
                format!("a Pillow image of mode {mode} has no 8 bits for a channel; convert it");
            return Err(raised(py, &invalid("image", message)));
        }
    };
    let (width, height): (u32, u32) = converted.getattr("size")?.extract()?;
    let has_alpha = converted.getattr("mode")?.extract::<String>()? == "RGBA";
    let values = converted.call_method0("tobytes")?;
    let values = values.cast::<PyBytes>()?.as_bytes();
    let image = match has_alpha {
        true => tagbrush::Image::from_rgba8(width, height, values),
        false => tagbrush::Image::from_rgb8(width, height, values),
    };
    Ok(Input::Image(image.or_raise(py)?))
}
