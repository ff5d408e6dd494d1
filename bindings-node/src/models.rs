//! What stands beside the models: finding and downloading them, threads, and the command line tool.

use napi_derive::napi;
use tagbrush::PullOptions;

use crate::errors::{Answer, answer, invalid};
use crate::lane::Lane;
use crate::running::{Listener, QUIET, Running, start, wait};
use crate::values::decimal;

/// The version of the package.
#[napi]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A model on the hub.
#[napi(object)]
pub struct KnownModel {
    /// Its repository.
    pub id: String,
    /// What it is for.
    pub task: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Where precision and recall are equal.
    pub recommended_threshold: Option<f64>,
    /// Why it cannot be loaded.
    pub unsupported: Option<String>,
}

fn known(model: &tagbrush::KnownModel) -> KnownModel {
    KnownModel {
        id: model.id.to_owned(),
        task: model.task.name().to_owned(),
        aliases: model.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        recommended_threshold: model.recommended_threshold.map(decimal),
        unsupported: model.unsupported.map(str::to_owned),
    }
}

/// The general threshold unless another one is set.
#[napi]
pub fn default_threshold() -> f64 {
    decimal(tagbrush::DEFAULT_THRESHOLD)
}

/// Every known model.
#[napi]
pub fn known_models() -> Vec<KnownModel> {
    tagbrush::KNOWN_MODELS.iter().map(known).collect()
}

/// The known model of this name.
#[napi]
pub fn find_known(name: String) -> Option<KnownModel> {
    tagbrush::find_known(&name).map(known)
}

/// Downloads a model and gives its folder.
#[napi]
pub fn pull(
    model: String,
    cache_dir: Option<String>,
    endpoint: Option<String>,
    listener: Listener<'_>,
) -> Answer<Running> {
    let mut options = PullOptions::default();
    (options.cache_dir, options.endpoint) = (cache_dir.map(Into::into), endpoint);
    answer(start(Lane::models(), listener, QUIET, move |control| {
        tagbrush::pull(&model, &options, control).map(|folder| folder.display().to_string())
    }))
}

/// The folder of downloaded models.
#[napi]
pub fn cache_dir() -> Answer<String> {
    answer(tagbrush::cache_dir().map(|folder| folder.display().to_string()))
}

/// Which kernels compute on this machine's CPU.
#[napi]
pub fn cpu_kernels() -> Answer<String> {
    answer(tagbrush::cpu_kernels().map(|kernels| kernels.to_string()))
}

/// Sets the number of threads of the whole process.
#[napi]
pub fn set_threads(threads: f64) -> Answer<()> {
    answer(match threads.fract() == 0.0 && threads >= 0.0 {
        true => tagbrush::set_threads(threads as usize),
        false => Err(invalid("threads", format!("expected a whole number, got {threads}"))),
    })
}

/// The command line tool with these arguments, the first of which is the program's name.
#[napi]
pub fn main(arguments: Vec<String>) -> Answer<u8> {
    wait(|_| Ok(tagbrush::cli::run(arguments)))
}
