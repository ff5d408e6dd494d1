//! Configuration: environment variables, with a `.env` file below them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tagbrush::Device;

use crate::generate::library::Library;

/// What requests may cost. Everything is checked before work is done for it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of one encoded picture.
    pub image_bytes: usize,
    /// Pixels of one picture.
    pub image_pixels: u64,
    /// Pictures of one edit request.
    pub edit_images: usize,
    /// Outputs of one edit request.
    pub edit_outputs: usize,
    /// Pictures of one tagger request.
    pub tag_images: usize,
    /// Bytes of one text field.
    pub field_bytes: usize,
    /// Edit requests that wait.
    pub edit_queue: usize,
    /// Requests for generation that wait.
    pub generate_queue: usize,
    /// Generated pictures that are denoised together.
    pub generate_batch: usize,
    /// Pictures that wait for the tagger.
    pub tag_queue: usize,
    /// Outputs that are denoised together.
    pub edit_batch: usize,
    /// Pictures that go through a tagger together.
    pub tag_batch: usize,
    /// How long a tagger waits for more pictures.
    pub tag_delay: Duration,
    /// How long the head of a request may take, and a connection rest between two requests.
    pub head: Duration,
    /// How long a body may pause while it is sent.
    pub body_pause: Duration,
    /// How long running work may go on after a stop signal.
    pub grace: Duration,
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub host: String,
    /// Where to listen.
    pub port: u16,
    /// The key that clients must know; without one nobody is asked.
    pub api_key: Option<String>,
    /// Filter of the logs, such as `info` or `server_example=debug,info`.
    pub log_level: String,
    /// Logs as JSON lines.
    pub json_logs: bool,
    /// Where models run.
    pub device: Device,
    /// Taggers: the name that requests use, and what is loaded for it.
    pub taggers: Vec<(String, String)>,
    /// The edit model.
    pub edit_model: String,
    /// Whether the edit model was asked for, so that the server is not ready without it.
    pub edit_is_required: bool,
    /// Other names of the edit model in requests.
    pub edit_names: Vec<String>,
    /// Most bytes of memory for the edit model.
    pub edit_memory: Option<u64>,
    /// The model that generates, and what requests may name beside it.
    pub library: Library,
    /// Most bytes of memory for it.
    pub generate_memory: Option<u64>,
    /// Whether a model that generates was asked for, so that the server is not ready without it.
    pub generate_is_required: bool,
    /// Whether models that requests name may be downloaded.
    pub downloads: bool,
    /// Pictures that were made, and the database of jobs.
    pub outputs: PathBuf,
    /// Pictures that jobs were given.
    pub inputs: PathBuf,
    /// The address of this server in links, where it is not what clients ask for.
    pub public_url: Option<String>,
    /// Whether webhooks may be called at all.
    pub webhooks: bool,
    /// Hosts that webhooks may go to although their addresses are private.
    pub webhook_hosts: Vec<String>,
    /// Signs webhooks.
    pub webhook_secret: Option<String>,
    /// What requests may cost.
    pub bounds: Bounds,
    reload: bool,
}

type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// From variables, most of them optional. The error names the variable.
    pub fn from_vars(vars: Vars<'_>) -> Result<Self, String> {
        let text = |name: &str| vars(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let list = |name: &str| -> Vec<String> {
            let all = text(name).unwrap_or_default();
            all.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
        };
        let (edit_model, edit_is_required) = match text("EDIT_MODEL").or(text("QWEN_MODEL_DIR")) {
            Some(model) => (model, true),
            None => ("demo".to_owned(), false),
        };
        let mut taggers: Vec<_> = list("TAGGER_MODELS")
            .into_iter()
            .map(|entry| match entry.split_once('=') {
                Some((name, model)) => (name.trim().to_owned(), model.trim().to_owned()),
                None => (entry.clone(), entry),
            })
            .collect();
        let memory = |name: &str| {
            let megabytes = number(vars, name, 0u64)?;
            Ok::<_, String>((megabytes > 0).then_some(megabytes << 20))
        };
        if taggers.is_empty() {
            taggers.push(("demo".to_owned(), "demo".to_owned()));
        }
        Ok(Self {
            host: text("HOST").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: number(vars, "PORT", 8000)?,
            api_key: text("API_KEY"),
            log_level: text("LOG_LEVEL").unwrap_or_else(|| "info".to_owned()).to_lowercase(),
            json_logs: flag(vars, "LOG_JSON", false)?,
            device: device(text("DEVICE_MAP").as_deref())?,
            taggers,
            edit_model,
            edit_is_required,
            edit_names: list("EDIT_MODEL_NAMES"),
            edit_memory: memory("EDIT_MEMORY_MB")?,
            generate_memory: memory("GENERATE_MEMORY_MB")?,
            generate_is_required: ["GENERATE_MODEL", "GENERATE_MODELS_DIR"]
                .iter()
                .any(|name| text(name).is_some()),
            library: Library {
                model: text("GENERATE_MODEL"),
                models: text("GENERATE_MODELS_DIR").map(Into::into),
                styles: text("GENERATE_STYLES_DIR").map(Into::into),
                wildcards: text("GENERATE_WILDCARDS_DIR").map(Into::into),
                presets: text("GENERATE_PRESETS_DIR").map(Into::into),
            },
            downloads: flag(vars, "ALLOW_DOWNLOADS", false)?,
            outputs: text("OUTPUT_DIR").unwrap_or_else(|| "outputs".to_owned()).into(),
            inputs: text("INPUT_DIR").unwrap_or_else(|| "inputs".to_owned()).into(),
            public_url: text("PUBLIC_URL").map(|url| url.trim_end_matches('/').to_owned()),
            webhooks: flag(vars, "ALLOW_WEBHOOKS", false)?,
            webhook_hosts: list("WEBHOOK_HOSTS"),
            webhook_secret: text("WEBHOOK_SECRET"),
            bounds: Bounds {
                body: number::<usize>(vars, "MAX_BODY_MB", 64)? << 20,
                image_bytes: number::<usize>(vars, "MAX_IMAGE_MB", 50)? << 20,
                image_pixels: number::<u64>(vars, "MAX_IMAGE_MEGAPIXELS", 64)? * 1_000_000,
                edit_images: number(vars, "MAX_EDIT_IMAGES", 16)?,
                edit_outputs: number(vars, "MAX_EDIT_OUTPUTS", 40)?,
                tag_images: number(vars, "MAX_TAG_IMAGES", 256)?,
                field_bytes: 64 << 10,
                edit_queue: number(vars, "EDIT_QUEUE", 16)?,
                generate_queue: number(vars, "GENERATE_QUEUE", 16)?,
                generate_batch: number(vars, "GENERATE_BATCH", 8)?,
                tag_queue: number(vars, "TAG_QUEUE", 1024)?,
                edit_batch: number(vars, "EDIT_BATCH", 8)?,
                tag_batch: number(vars, "TAG_BATCH", 32)?,
                tag_delay: Duration::from_millis(number(vars, "TAG_DELAY_MS", 5)?),
                head: Duration::from_secs(number(vars, "HEAD_TIMEOUT_S", 30)?),
                body_pause: Duration::from_secs(number(vars, "BODY_TIMEOUT_S", 30)?),
                grace: Duration::from_secs(number(vars, "GRACE_S", 30)?),
            },
            reload: flag(vars, "RELOAD", false)?,
        })
    }

    /// Where to listen, as `host:port`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host.trim_matches(['[', ']']), self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether only programs of this machine can connect.
    pub fn is_local(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// What the operator should know before the first request.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.api_key.is_none() && !self.is_local() {
            warnings.push(format!(
                "ANYONE WHO REACHES {} CAN USE THIS SERVER: it listens beyond this machine and \
                 API_KEY is empty",
                self.address()
            ));
        }
        if self.reload {
            warnings.push("RELOAD has no effect: there is no source to reload".to_owned());
        }
        if self.webhooks && self.webhook_secret.is_none() {
            warnings.push("webhooks are not signed: WEBHOOK_SECRET is empty".to_owned());
        }
        warnings
    }
}

fn number<T: FromStr>(vars: Vars<'_>, name: &str, default: T) -> Result<T, String> {
    match vars(name).filter(|value| !value.trim().is_empty()) {
        None => Ok(default),
        Some(value) => {
            value.trim().parse().map_err(|_| format!("{name} is `{value}`, expected a number"))
        }
    }
}

fn flag(vars: Vars<'_>, name: &str, default: bool) -> Result<bool, String> {
    match vars(name).unwrap_or_default().trim().to_lowercase().as_str() {
        "" => Ok(default),
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other => Err(format!("{name} is `{other}`, expected true or false")),
    }
}

/// The documents' `cuda` and `balanced`, and the library's own names.
fn device(name: Option<&str>) -> Result<Device, String> {
    match name {
        None => Ok(Device::Auto),
        Some("balanced") => {
            Err("DEVICE_MAP is `balanced`, but a model runs on one device; use auto, cpu, cuda or \
                 cuda:N"
                .to_owned())
        }
        Some(name) => name.parse().map_err(|e: tagbrush::Error| format!("DEVICE_MAP: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config, String> {
        Config::from_vars(&|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_it_serves_the_demo_models_to_this_machine() {
        let config = config(&[]).unwrap();
        assert_eq!(config.address(), "127.0.0.1:8000");
        assert_eq!(config.taggers, [("demo".to_owned(), "demo".to_owned())]);
        assert!(config.api_key.is_none() && !config.edit_is_required && !config.downloads);
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn the_documents_variables_are_read() {
        let config = config(&[
            ("QWEN_MODEL_DIR", "/mnt/models"),
            ("API_KEY", "your-secret-key"),
            ("DEVICE_MAP", "cuda"),
            ("HOST", "0.0.0.0"),
            ("PORT", "8000"),
            ("LOG_LEVEL", "info"),
            ("RELOAD", "false"),
        ])
        .unwrap();
        assert_eq!((config.edit_model.as_str(), config.edit_is_required), ("/mnt/models", true));
        assert_eq!(config.device, Device::Cuda(0));
        assert!(config.warnings().is_empty(), "there is a key");
    }

    #[test]
    fn an_open_server_is_warned_about() {
        for (host, warnings) in [("0.0.0.0", 1), ("::", 1), ("localhost", 0), ("::1", 0)] {
            let config = config(&[("HOST", host), ("API_KEY", " ")]).unwrap();
            assert_eq!(config.warnings().len(), warnings, "{host}");
        }
        assert_eq!(config(&[("HOST", "::1")]).unwrap().address(), "[::1]:8000");
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_name() {
        for (name, value) in [
            ("PORT", "80000"),
            ("DEVICE_MAP", "balanced"),
            ("DEVICE_MAP", "gpu"),
            ("RELOAD", "maybe"),
            ("TAG_QUEUE", "-1"),
        ] {
            assert!(config(&[(name, value)]).unwrap_err().contains(name), "{name}");
        }
    }

    #[test]
    fn names_of_taggers_may_differ_from_what_is_loaded() {
        let config = config(&[("TAGGER_MODELS", "demo, wd14-vit-v2=/models/vit")]).unwrap();
        assert_eq!(config.taggers[1], ("wd14-vit-v2".to_owned(), "/models/vit".to_owned()));
    }
}
