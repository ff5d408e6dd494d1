//! How a picture was generated, for the files that say so, under `lib/generate.ts`.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use tagbrush::{Generated, MetadataScheme, Result};

use crate::errors::{Answer, answer};
use crate::image::file_format;
use crate::lane::Lane;
use crate::running::{Listener, QUIET, Running, start};

/// The core's output, without its values. Its pixels are those of the picture beside it.
#[napi]
pub struct Origin(pub(crate) Generated);

#[napi]
impl Origin {
    /// What a file says of it. The whole file of a model may be read for its hash.
    #[napi]
    pub fn metadata(&self, scheme: String, listener: Listener<'_>) -> Answer<Running> {
        let made = self.0.clone();
        answer(parsed(&scheme).and_then(|scheme| {
            start(Lane::pictures(), listener, QUIET, move |_| made.metadata(scheme))
        }))
    }

    /// The bytes of a file that says it.
    #[napi]
    pub fn encode(
        &self,
        format: String,
        quality: Option<f64>,
        scheme: String,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let made = self.0.clone();
        let how = file_format(&format, quality).and_then(|format| Ok((format, parsed(&scheme)?)));
        answer(how.and_then(|(format, scheme)| {
            start(Lane::pictures(), listener, QUIET, move |_| {
                made.encode(format, Some(scheme)).map(Buffer::from)
            })
        }))
    }

    /// Writes a file that says it.
    #[napi]
    pub fn save(&self, path: String, scheme: String, listener: Listener<'_>) -> Answer<Running> {
        let made = self.0.clone();
        answer(parsed(&scheme).and_then(|scheme| {
            start(Lane::pictures(), listener, QUIET, move |_| made.save(path, Some(scheme)))
        }))
    }
}

fn parsed(scheme: &str) -> Result<MetadataScheme> {
    scheme.parse()
}
