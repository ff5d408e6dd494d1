//! Downloads: resumable, verified, and never visible half-done.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::http::StatusCode;

use super::forms;
use super::locate::is_other;
use super::{ModelId, Task};
use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::sha256;

const PUBLIC_HUB: &str = "https://huggingface.co";
/// How often a file is tried before its failure is reported.
const TRIES: u32 = 5;

/// What the hub says of a model.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Sibling {
    fn size(&self) -> Option<u64> {
        self.lfs.as_ref().map(|lfs| lfs.size).or(self.size)
    }
}

struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// Downloads the files of a model for one of `tasks` into `dir`.
pub(super) fn download(
    id: &ModelId,
    tasks: &[Task],
    dir: &Path,
    endpoint: Option<&str>,
    control: &Control,
) -> Result<()> {
    let model = format!("{}/{}", id.owner, id.name);
    let hub = Hub::new(endpoint);
    let listing = hub.list(&model, id.revision.as_deref().unwrap_or("main"))?;
    if listing.sha.is_empty() || !listing.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(failed("the hub gave no valid commit").with("model", &model));
    }
    let resolve = format!("{}/{model}/resolve/{}", hub.endpoint, listing.sha);
    let (task, files) =
        hub.wanted(&listing.siblings, tasks, &resolve).map_err(|e| e.with("model", &model))?;
    let total: u64 = files.iter().filter_map(|file| file.size()).sum();
    let mut progress = Bytes { control, done: 0, total: total as usize };
    for file in files {
        let url = format!("{resolve}/{}", file.rfilename);
        hub.fetch(&url, file, dir, &mut progress)
            .map_err(|e| e.with("file", &file.rfilename).with("model", &model))?;
    }
    if forms::is_complete(dir, task) {
        return Ok(());
    }
    Err(Error::model_invalid("an index of the model names files that the model does not have")
        .with("folder", dir.display())
        .with("model", &model))
}

/// Progress over all files of a model.
struct Bytes<'a> {
    control: &'a Control,
    done: u64,
    total: usize,
}

impl Bytes<'_> {
    fn report(&self) {
        self.control.report(self.done as usize, Some(self.total));
    }
}

impl Hub {
    fn new(endpoint: Option<&str>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = endpoint
            .map(str::to_owned)
            .or_else(|| variable("HF_ENDPOINT"))
            .unwrap_or_else(|| PUBLIC_HUB.to_owned());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("tagbrush/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: variable("HF_TOKEN"),
        }
    }

    fn get(&self, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>> {
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| {
            failed(format!("cannot reach the hub: {e}")).with("url", url).caused_by(e)
        })?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            StatusCode::NOT_FOUND => {
                Err(Error::new(ErrorKind::ModelNotFound, "the hub has no such model or file")
                    .with("url", url))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed(
                "the hub wants an account for this model; set HF_TOKEN to its access token",
            )
            .with("url", url)),
            status => Err(failed(format!("the hub answered {status}")).with("url", url)),
        }
    }

    /// A short text.
    fn text(&self, url: &str) -> Result<String> {
        self.get(url, 0)?.body_mut().read_to_string().map_err(|e| {
            failed(format!("cannot read the hub's answer: {e}")).with("url", url).caused_by(e)
        })
    }

    fn list(&self, model: &str, revision: &str) -> Result<Listing> {
        let url = format!("{}/api/models/{model}/revision/{revision}?blobs=true", self.endpoint);
        let text = self.text(&url)?;
        serde_json::from_str(&text).map_err(|e| {
            failed(format!("the hub's answer is no file list: {e}")).with("url", &url).caused_by(e)
        })
    }

    /// What the files of a model are for, and those that it needs.
    fn wanted<'a>(
        &self,
        siblings: &'a [Sibling],
        tasks: &[Task],
        resolve: &str,
    ) -> Result<(Task, Vec<&'a Sibling>)> {
        let names: Vec<&str> = siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let all = |wanted: Vec<&str>| {
            let find = |name| siblings.iter().find(|sibling| sibling.rfilename == name);
            wanted.into_iter().filter_map(find).collect()
        };
        if let Some(files) = forms::tagger(&names) {
            return match tasks {
                [Task::Edit] => Err(is_other(Task::Tag, Task::Edit)),
                _ => Ok((Task::Tag, all(files))),
            };
        }
        if let Some(files) = forms::editor(&names) {
            // A folder of this form may be of another pipeline, which is not worth its gigabytes.
            let class = forms::pipeline(&self.text(&format!("{resolve}/{}", forms::PIPELINE))?)?;
            return match tasks {
                _ if !forms::is_editor(&class) => Err(Error::unsupported(format!(
                    "the model is a `{class}`, which is not supported"
                ))),
                [Task::Tag] => Err(is_other(Task::Edit, Task::Tag)),
                _ => Ok((Task::Edit, all(files))),
            };
        }
        let names: Vec<_> = names.into_iter().take(20).collect();
        Err(Error::new(
            ErrorKind::ModelNotFound,
            format!("the model has no files that can be read; it has {}", names.join(", ")),
        ))
    }

    /// Downloads one file under its final name, in as many tries as it takes.
    fn fetch(&self, url: &str, file: &Sibling, dir: &Path, progress: &mut Bytes<'_>) -> Result<()> {
        let path = dir.join(&file.rfilename);
        let size = file.size();
        if path.is_file() {
            progress.done += size.unwrap_or(0);
            progress.report();
            return Ok(());
        }
        let part = dir.join(format!("{}.part", file.rfilename));
        let folder = path.parent().unwrap_or(dir);
        fs::create_dir_all(folder).map_err(|e| Error::io("make a folder", folder, e))?;
        let before = progress.done;
        for tried in 1.. {
            progress.control.check()?;
            progress.done = before;
            match self.continue_part(url, &part, size, progress).and_then(|()| verify(&part, file))
            {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Download && tried < TRIES => {
                    std::thread::sleep(Duration::from_millis(100 << tried));
                }
                Err(error) => return Err(error),
            }
        }
        fs::rename(&part, &path).map_err(|e| Error::io("rename the download", &part, e))
    }

    /// Appends to the partial file what it lacks.
    fn continue_part(
        &self,
        url: &str,
        part: &Path,
        size: Option<u64>,
        progress: &mut Bytes<'_>,
    ) -> Result<()> {
        let there = fs::metadata(part).map_or(0, |metadata| metadata.len());
        if there > 0 && Some(there) == size {
            progress.done += there;
            return Ok(());
        }
        let mut response = self.get(url, there)?;
        // A server that does not resume sends the whole file again.
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let _ = fs::remove_file(part);
            return Err(failed("the partial download does not fit the file"));
        }
        let mut out = OpenOptions::new()
            .create(true)
            .write(true)
            .append(resumed)
            .truncate(!resumed)
            .open(part)
            .map_err(|e| Error::io("write the download", part, e))?;
        progress.done += if resumed { there } else { 0 };
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            progress.control.check()?;
            let read = body.read(&mut buffer).map_err(|e| {
                failed(format!("the download was cut: {e}")).with("url", url).caused_by(e)
            })?;
            if read == 0 {
                return out.flush().map_err(|e| Error::io("write the download", part, e));
            }
            out.write_all(&buffer[..read]).map_err(|e| Error::io("write the download", part, e))?;
            progress.done += read as u64;
            progress.report();
        }
    }
}

/// Compares the partial file with the size and hash that the hub states; a wrong one is removed.
fn verify(part: &Path, file: &Sibling) -> Result<()> {
    let length = fs::metadata(part).map_err(|e| Error::io("read the download", part, e))?.len();
    if let Some(size) = file.size()
        && length != size
    {
        if length > size {
            let _ = fs::remove_file(part);
        }
        return Err(failed(format!("the download has {length} bytes of {size}")));
    }
    let Some(lfs) = &file.lfs else { return Ok(()) };
    let found = sha256(part).map_err(|e| Error::io("read the download", part, e))?;
    if found.eq_ignore_ascii_case(&lfs.sha256) {
        return Ok(());
    }
    let _ = fs::remove_file(part);
    Err(failed(format!("the download is damaged: its SHA-256 is {found}, not {}", lfs.sha256)))
}

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Download, message)
}
