//! Outputs of jobs on their way to the disk.

use tagbrush::{Error, ErrorKind, Image, ImageFormat, MetadataScheme, Result};

use super::{Spec, grid};
use crate::App;
use crate::engine::models::Picture;
use crate::error::{ApiError, ApiResult};

/// What the way to the end needs to know of a job.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) outputs: usize,
    has_grid: bool,
    format: ImageFormat,
    metadata: Option<MetadataScheme>,
    error: fn(&Error) -> ApiError,
}

impl Job {
    /// A job with pictures that it was given.
    pub(super) fn new<S: Spec>(id: &str, spec: &S, pictures: usize) -> ApiResult<Self> {
        Ok(Self {
            id: id.to_owned(),
            outputs: spec.outputs(pictures),
            has_grid: spec.has_grid(),
            format: spec.format()?,
            metadata: spec.metadata()?,
            error: S::error,
        })
    }
}

/// What a job has made so far.
pub(super) struct Outputs<'a> {
    app: &'a App,
    job: &'a Job,
    /// Where its pictures are.
    pub(super) paths: Vec<String>,
    /// The pictures themselves, if there will be a grid of them.
    pictures: Vec<Image>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(app: &'a App, job: &'a Job) -> Self {
        Self { app, job, paths: Vec::with_capacity(job.outputs), pictures: Vec::new() }
    }

    /// Writes an output. `None` as the error: it was not made because the server stops.
    pub(super) async fn add(
        &mut self,
        index: usize,
        picture: Result<Picture>,
    ) -> std::result::Result<(), Option<ApiError>> {
        let picture = match picture {
            Ok(picture) => picture,
            Err(error) if error.kind() == ErrorKind::Cancelled && self.app.jobs.is_stopping() => {
                return Err(None);
            }
            Err(error) => return Err(Some((self.job.error)(&error))),
        };
        if self.job.has_grid {
            self.pictures.push(picture.image.clone());
        }
        let (format, metadata) = (self.job.format, self.job.metadata);
        self.write(index, move || picture.encode(format, metadata)).await.map_err(Some)
    }

    /// All paths, with that of the grid at the end if there is one: of a single picture there is none.
    pub(super) async fn all(mut self) -> ApiResult<Vec<String>> {
        let pictures = std::mem::take(&mut self.pictures);
        if pictures.len() > 1 {
            let format = self.job.format;
            let encode = move || grid::of(&pictures)?.encode(format);
            self.write(self.job.outputs, encode).await?;
        }
        Ok(self.paths)
    }

    async fn write(
        &mut self,
        index: usize,
        encode: impl FnOnce() -> Result<Vec<u8>> + Send + 'static,
    ) -> ApiResult<()> {
        let (app, id, format, error) =
            (self.app.clone(), self.job.id.clone(), self.job.format, self.job.error);
        let work = move || {
            let bytes = encode().map_err(|e| error(&e))?;
            let failed = |why: String| ApiError::internal(why);
            let store = &app.jobs.store;
            let record = store.get(&id).map_err(|e| failed(e.to_string()))?;
            let record = record.ok_or_else(|| failed("its row is gone".to_owned()))?;
            let day = store.day(record.in_queue_mills).map_err(|e| failed(e.to_string()))?;
            let written = app.jobs.files.write_output(&day, &id, index, format, &bytes);
            written.map_err(|e| failed(format!("cannot write a picture: {e}")))
        };
        let written = tokio::task::spawn_blocking(work).await;
        self.paths.push(written.map_err(|e| ApiError::internal(e.to_string()))??);
        Ok(())
    }
}
