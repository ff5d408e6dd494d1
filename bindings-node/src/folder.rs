//! `tagFolder`: the core's folder run.

use napi_derive::napi;
use tagbrush::{Control, FolderRun, Result, Tagger};

use crate::errors::Failure;
use crate::options::{Options, caption_options, folder_options, folder_tag_options};

/// Options of the run, and of the captions that it writes.
#[napi(object, object_to_js = false)]
pub struct Folder<'a> {
    /// Where and in which form tags are written.
    pub run: Options<'a>,
    /// How tags are written as one line.
    pub caption: Options<'a>,
}

/// What a run did.
#[napi(object, object_from_js = false)]
pub struct Summary {
    /// Pictures whose tags were written.
    pub tagged: u32,
    /// Pictures that were left alone.
    pub skipped: u32,
    /// Pictures that failed.
    pub failures: Vec<FailedFile>,
}

/// A picture that failed.
#[napi(object, object_from_js = false)]
pub struct FailedFile {
    /// The file.
    pub path: String,
    /// The reason.
    pub failure: Failure,
}

/// The work of a run, with its options checked.
pub(crate) fn prepare(
    tagger: Tagger,
    paths: Vec<String>,
    folder: &Folder<'_>,
    tags: &Options<'_>,
) -> Result<impl FnOnce(&Control) -> Result<Summary> + Send + use<>> {
    let run = folder_options(&folder.run)?;
    let caption = caption_options(&folder.caption)?;
    let tags = folder_tag_options(tags)?;
    let paths: Vec<_> = paths.into_iter().map(Into::into).collect();
    Ok(move |control: &Control| {
        let summary =
            FolderRun::new(&paths, run)?.run(&tagger, &tags, &caption, control, |_| ())?;
        let failures = summary.failures.into_iter().map(|(path, error)| FailedFile {
            path: path.display().to_string(),
            failure: error.into(),
        });
        Ok(Summary {
            tagged: summary.tagged as u32,
            skipped: summary.skipped as u32,
            failures: failures.collect(),
        })
    })
}
