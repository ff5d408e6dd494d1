//! Published models by their id: found in the local caches, or downloaded into ours.
//!
//! A downloaded model is a plain folder with the published files. Files appear in it under their
//! names only when they are whole and verified, so a folder that has all of them is complete.

mod cache;
#[cfg(feature = "hub")]
mod download;
mod forms;
mod known;
mod locate;
#[cfg(all(test, feature = "hub"))]
mod tests;

use std::path::{Path, PathBuf};

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};

pub use known::{KNOWN_MODELS, KnownModel, Task, find_known};
pub(crate) use locate::{DEMO, Embedded, embedded, locate};

/// How a model is downloaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// Where downloaded models are kept; the user's cache folder unless set.
    pub cache_dir: Option<PathBuf>,
    /// The hub's address; the variable `HF_ENDPOINT`, else the public hub, unless set.
    pub endpoint: Option<String>,
}

impl PullOptions {
    /// The same options with another folder for downloaded models.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// The same options with another hub.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }
}

/// A model's id on the hub: `owner/name`, with `@revision` behind it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelId {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl ModelId {
    fn parse(id: &str) -> Result<Self> {
        let (path, revision) = match id.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (id, None),
        };
        // The parts become names of folders and pieces of addresses.
        let is_plain = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let parts = path.split_once('/').filter(|(owner, name)| {
            is_plain(owner) && is_plain(name) && revision.is_none_or(is_plain)
        });
        let Some((owner, name)) = parts else {
            return Err(Error::invalid_input(format!(
                "`{id}` is no model id; expected `owner/name` or `owner/name@revision`"
            ))
            .with("field", "model"));
        };
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

/// The folder of a model for `task` that is here already, or that is downloaded now unless `offline`.
fn find_or_pull(id: &str, task: Task, cache_dir: Option<&Path>, offline: bool) -> Result<PathBuf> {
    let parsed = ModelId::parse(id)?;
    if let Some(dir) = cache::find(&parsed, task, cache_dir) {
        return Ok(dir);
    }
    if offline {
        return Err(Error::new(
            ErrorKind::ModelNotFound,
            "the model is in no local cache, and downloading is switched off",
        )
        .with("model", id)
        .with("searched", cache::searched(&parsed, cache_dir)));
    }
    let options = PullOptions { cache_dir: cache_dir.map(Path::to_owned), endpoint: None };
    pull_id(id, &[task], &options, &Control::new())
}

/// Downloads a model and returns its folder; one that is complete already is not touched.
///
/// `model` is an id on the hub (`owner/name`, `@revision` optional) or an alias of a
/// [known model](KNOWN_MODELS). Taggers and edit models are told apart by their files. Progress counts
/// bytes. A download that was cut continues where it stopped, and every file is checked against the
/// size and hash that the hub states.
///
/// # Errors
/// [`ModelNotFound`](ErrorKind::ModelNotFound) if the hub has no such model or it has no files that
/// can be read, [`Download`](ErrorKind::Download) if the network fails or a file is damaged,
/// [`Cancelled`](ErrorKind::Cancelled), and [`Unsupported`](ErrorKind::Unsupported) if the model
/// cannot be loaded anyway or this build has no feature `hub`.
pub fn pull(model: &str, options: &PullOptions, control: &Control) -> Result<PathBuf> {
    let known = find_known(model);
    if let Some(reason) = known.and_then(|known| known.unsupported) {
        return Err(Error::unsupported(reason).with("model", model));
    }
    match known {
        Some(known) => pull_id(known.id, &[known.task], options, control),
        None => pull_id(model, &[Task::Tag, Task::Edit], options, control),
    }
}

/// Downloads the model of an id for one of `tasks`.
fn pull_id(
    model: &str,
    tasks: &[Task],
    options: &PullOptions,
    control: &Control,
) -> Result<PathBuf> {
    let id = ModelId::parse(model)?;
    let dir = cache::own(&id, options.cache_dir.as_deref())?;
    if tasks.iter().any(|task| forms::is_complete(&dir, *task)) {
        return Ok(dir);
    }
    #[cfg(feature = "hub")]
    return download::download(&id, tasks, &dir, options.endpoint.as_deref(), control)
        .map(|()| dir);
    #[cfg(not(feature = "hub"))]
    {
        let _ = control;
        Err(Error::unsupported("this build cannot download models (feature `hub` is off)")
            .with("model", model))
    }
}

/// The folder that downloaded models are kept in.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if the user has no home folder and the variable
/// `TAGBRUSH_CACHE` is not set.
pub fn cache_dir() -> Result<PathBuf> {
    cache::root(None)
}
