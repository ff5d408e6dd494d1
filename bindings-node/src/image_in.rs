//! Pictures as `lib/image.ts` hands them over: a path, the bytes of a file, `{ data, width, height,
//! channels }`, or an `Image`.
//!
//! Bytes are copied once, here, before the call returns: JavaScript may write them right after.

use napi::bindgen_prelude::{ClassInstance, FromNapiValue, TypeName, Uint8ArraySlice, sys};
use napi::bindgen_prelude::{JsObjectValue, Object, Unknown, ValidateNapiValue};
use napi::{JsValue, ValueType};
use tagbrush::{Input, Result};

use crate::image::{Image, from_channels};

/// One picture, or what is wrong with it, which leaves others alone.
pub struct Given(pub(crate) Result<Input>);

impl TypeName for Given {
    fn type_name() -> &'static str {
        "ImageLike"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

impl ValidateNapiValue for Given {}

impl FromNapiValue for Given {
    unsafe fn from_napi_value(env: sys::napi_env, raw: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: what the caller promises.
        let value = unsafe { Unknown::from_raw_unchecked(env, raw) };
        if value.get_type()? == ValueType::String {
            // SAFETY: it is a string.
            let path = unsafe { String::from_napi_value(env, raw)? };
            return Ok(Self(Ok(Input::Path(path.into()))));
        }
        if value.is_typedarray()? {
            // SAFETY: it is a typed array; the borrow ends before JavaScript goes on.
            let bytes = unsafe { Uint8ArraySlice::from_napi_value(env, raw)? };
            return Ok(Self(Ok(Input::Bytes(bytes.to_vec()))));
        }
        // SAFETY: anything else is an object; what is none fails here.
        let object = unsafe { Object::from_napi_value(env, raw)? };
        if object.has_own_property("channels")? {
            let [width, height, channels] =
                ["width", "height", "channels"].map(|name| object.get_named_property::<u32>(name));
            let data: Uint8ArraySlice<'_> = object.get_named_property_unchecked("data")?;
            let image = from_channels(width?, height?, channels?, &data);
            return Ok(Self(image.map(Input::Image)));
        }
        // SAFETY: fails for what is no instance.
        let image = unsafe { ClassInstance::<Image>::from_napi_value(env, raw)? };
        Ok(Self(Ok(Input::Image(image.image.clone()))))
    }
}
