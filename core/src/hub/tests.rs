//! Downloads from a server on this machine that plays the hub: it cuts connections, damages files
//! and counts what it is asked for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::*;

/// A hub with one model, `acme/tagger`, and an edit model under a known name.
struct FakeHub {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Close the connection after so many bytes of the weights, once for each entry.
    cuts: Mutex<Vec<usize>>,
    /// Send other weights than the listing's hash says, so many times.
    damaged: Mutex<usize>,
    resumes: bool,
    requests: Mutex<Vec<String>>,
}

impl FakeHub {
    fn new() -> Self {
        let weights: Vec<u8> = (0..300_000u32).map(|i| (i * i % 251) as u8).collect();
        let files = [
            ("selected_tags.csv", b"name,category\na,0\n".to_vec()),
            ("config.json", b"{}".to_vec()),
            ("model.safetensors", weights),
            ("README.md", b"not wanted".to_vec()),
        ];
        Self {
            files: files.into(),
            cuts: Mutex::default(),
            damaged: Mutex::default(),
            resumes: true,
            requests: Mutex::default(),
        }
    }

    /// Serves until the test ends; returns the address.
    fn start(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                hub.answer(stream.unwrap());
            }
        });
        address
    }

    fn answer(&self, stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let range = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned))
            .last();
        let from: usize = range.and_then(|r| r.trim_end_matches('-').parse().ok()).unwrap_or(0);
        self.requests.lock().unwrap().push(format!("{path} from {from}"));
        let body = match path.as_str() {
            "/api/models/acme/tagger/revision/main?blobs=true"
            | "/api/models/Qwen/Qwen-Image-Edit-2511/revision/main?blobs=true" => {
                self.listing().into_bytes()
            }
            path => match path.split_once("/resolve/c0ffee/") {
                Some((_, file)) => self.files[file].clone(),
                None => return send(&stream, "404 Not Found", b"", 0),
            },
        };
        let (status, mut body) = match from {
            0 => ("200 OK", body),
            _ if !self.resumes => ("200 OK", body),
            from => ("206 Partial Content", body[from..].to_vec()),
        };
        let length = body.len();
        if path.ends_with(".safetensors") {
            let mut damaged = self.damaged.lock().unwrap();
            if *damaged > 0 {
                *damaged -= 1;
                body[length / 2] ^= 1;
            }
            if let Some(cut) = self.cuts.lock().unwrap().pop() {
                body.truncate(cut);
            }
        }
        send(&stream, status, &body, length);
    }

    fn listing(&self) -> String {
        let sibling = |(name, data): (&&str, &Vec<u8>)| {
            let size = data.len();
            let hash: String = Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect();
            let lfs = format!(r#","lfs":{{"sha256":"{hash}","size":{size}}}"#);
            let lfs = if name.ends_with(".safetensors") { lfs } else { String::new() };
            format!(r#"{{"rfilename":"{name}","size":{size}{lfs}}}"#)
        };
        let siblings: Vec<_> = self.files.iter().map(sibling).collect();
        format!(r#"{{"sha":"c0ffee","siblings":[{}]}}"#, siblings.join(","))
    }

    fn requests(&self, part: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.contains(part)).cloned().collect()
    }
}

fn send(mut stream: &TcpStream, status: &str, body: &[u8], length: usize) {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

impl FakeHub {
    /// A pipeline of this class, with all that repositories have besides what is needed.
    fn pipeline(class: &str) -> Self {
        let index = |files: [&str; 2]| {
            format!(r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#, files[0], files[1]).into_bytes()
        };
        let shards =
            |stem: &str| [1, 2].map(|number| format!("{stem}-0000{number}-of-00002.safetensors"));
        let [one, two] = shards("diffusion_pytorch_model");
        let [three, four] = shards("model");
        let weights: Vec<u8> = (0..150_000u32).map(|i| (i % 241) as u8).collect();
        let files = [
            ("model_index.json", format!(r#"{{"_class_name":"{class}"}}"#).into_bytes()),
            ("transformer/config.json", b"{}".to_vec()),
            ("transformer/diffusion_pytorch_model.safetensors.index.json", index([&one, &two])),
            ("transformer/diffusion_pytorch_model-00001-of-00002.safetensors", weights.clone()),
            ("transformer/diffusion_pytorch_model-00002-of-00002.safetensors", weights.clone()),
            ("text_encoder/config.json", b"{}".to_vec()),
            ("text_encoder/model.safetensors.index.json", index([&three, &four])),
            ("text_encoder/model-00001-of-00002.safetensors", weights.clone()),
            ("text_encoder/model-00002-of-00002.safetensors", weights.clone()),
            ("vae/config.json", b"{}".to_vec()),
            ("vae/diffusion_pytorch_model.safetensors", weights.clone()),
            ("scheduler/scheduler_config.json", b"{}".to_vec()),
            ("tokenizer/vocab.json", b"{}".to_vec()),
            ("tokenizer/merges.txt", b"a b".to_vec()),
            ("processor/preprocessor_config.json", b"{}".to_vec()),
            ("processor/chat_template.jinja", b"{{ a }}".to_vec()),
        ];
        Self { files: files.into(), ..Self::new() }
    }

    fn with(mut self, name: &'static str, data: &[u8]) -> Self {
        self.files.insert(name, data.to_vec());
        self
    }
}

/// All files below a folder, with their contents.
fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/");
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

fn pull_from(hub: &Arc<FakeHub>, cache: &Path, control: &Control) -> Result<PathBuf> {
    let options = PullOptions::default().cache_dir(cache).endpoint(hub.start());
    pull("acme/tagger", &options, control)
}

#[test]
fn downloads_what_is_needed_once_and_reports_bytes() {
    let hub = Arc::new(FakeHub::new());
    let cache = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let control = Control::new().on_progress(move |p| sink.lock().unwrap().push((p.done, p.total)));
    let dir = pull_from(&hub, cache.path(), &control).unwrap();
    for (name, data) in hub.files.iter().filter(|(name, _)| **name != "README.md") {
        assert_eq!(&std::fs::read(dir.join(name)).unwrap(), data, "{name}");
    }
    assert!(!dir.join("README.md").exists());
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!(Some(last.0), last.1);
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    // A second time nothing is asked for.
    let count = hub.requests("").len();
    assert_eq!(pull_from(&hub, cache.path(), &Control::new()).unwrap(), dir);
    assert_eq!(hub.requests("").len(), count);
    assert_eq!(find_or_pull("acme/tagger", Task::Tag, Some(cache.path()), true).unwrap(), dir);
}

#[test]
fn a_cut_connection_continues_where_it_stopped() {
    for resumes in [true, false] {
        let hub = Arc::new(FakeHub { resumes, ..FakeHub::new() });
        *hub.cuts.lock().unwrap() = vec![50_000, 100_000];
        let cache = tempfile::tempdir().unwrap();
        let dir = pull_from(&hub, cache.path(), &Control::new()).unwrap();
        let weights = std::fs::read(dir.join("model.safetensors")).unwrap();
        assert_eq!(weights, hub.files["model.safetensors"]);
        let requests = hub.requests("safetensors");
        assert_eq!(requests.len(), 3);
        assert!(requests[1].ends_with("from 100000"), "{requests:?}");
        assert!(!dir.join("model.safetensors.part").exists());
    }
}

#[test]
fn a_damaged_file_is_fetched_again_and_never_kept() {
    let hub = Arc::new(FakeHub::new());
    *hub.damaged.lock().unwrap() = 1;
    let cache = tempfile::tempdir().unwrap();
    let dir = pull_from(&hub, cache.path(), &Control::new()).unwrap();
    assert_eq!(
        std::fs::read(dir.join("model.safetensors")).unwrap(),
        hub.files["model.safetensors"]
    );

    let hub = Arc::new(FakeHub::new());
    *hub.damaged.lock().unwrap() = 99;
    let cache = tempfile::tempdir().unwrap();
    let error = pull_from(&hub, cache.path(), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(!cache.path().join("acme--tagger/model.safetensors").exists());
    assert!(find_or_pull("acme/tagger", Task::Tag, Some(cache.path()), true).is_err());
}

#[test]
fn a_cancelled_download_can_be_continued() {
    let hub = Arc::new(FakeHub::new());
    let cache = tempfile::tempdir().unwrap();
    let control = Control::new();
    let clone = control.clone();
    let control = control.on_progress(move |p| {
        if p.done > 100_000 {
            clone.cancel()
        }
    });
    let error = pull_from(&hub, cache.path(), &control).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    pull_from(&hub, cache.path(), &Control::new()).unwrap();
    let again = hub.requests("safetensors").pop().unwrap();
    assert!(!again.ends_with("from 0"), "{again}");
}

#[test]
fn unknown_models_and_ids_are_named() {
    let hub = Arc::new(FakeHub::new());
    let cache = tempfile::tempdir().unwrap();
    let options = PullOptions::default().cache_dir(cache.path()).endpoint(hub.start());
    let error = pull("acme/other", &options, &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    let error = find_or_pull("acme/tagger", Task::Tag, Some(cache.path()), true).unwrap_err();
    assert!(error.to_string().contains("acme--tagger"), "{error}");
    for id in ["tagger", "a/b/c", "../x", "a/..", "a/b@", "a b/c", "a/b@../x", "/a", ""] {
        let error = pull(id, &options, &Control::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{id}");
    }
    // Nothing listens there: the error names the address.
    let options = PullOptions::default().cache_dir(cache.path()).endpoint("http://127.0.0.1:1");
    let error = pull("acme/tagger", &options, &Control::new()).unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
}

#[test]
fn an_edit_model_is_downloaded_with_its_folders() {
    for class in ["QwenImageEditPipeline", "QwenImageEditPlusPipeline"] {
        let plain = FakeHub::pipeline(class);
        let expected = plain.files.clone();
        let hub = plain
            .with("README.md", b"not wanted")
            .with("vae/diffusion_pytorch_model.bin", b"not wanted")
            .with("vae/diffusion_pytorch_model.fp16.safetensors", b"not wanted")
            .with("transformer/diffusion_pytorch_model.safetensors", b"not wanted")
            .with("transformer/diffusion_pytorch_model.fp16.safetensors", b"not wanted")
            .with("transformer/diffusion_pytorch_model.safetensors.index.fp16.json", b"{}")
            .with("text_encoder/pytorch_model.bin.index.json", b"{}")
            .with("other/config.json", b"{}")
            // Names that would leave the folder, or mean something to an address.
            .with("transformer/../../evil.json", b"{}")
            .with("../vae/config.json", b"{}")
            .with("/vae/config.json", b"{}")
            .with("vae/sub/config.json", b"{}")
            .with("vae/..", b"{}")
            .with("vae/.hidden.json", b"{}")
            .with("vae/a?b.json", b"{}");
        let hub = Arc::new(hub);
        let cache = tempfile::tempdir().unwrap();
        let dir = pull_from(&hub, cache.path(), &Control::new()).unwrap();
        let found = files_of(cache.path());
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, data)| (format!("acme--tagger/{name}"), data)).collect();
        assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
        assert!(found.values().eq(expected.values().copied()));
        // What names the model comes last, and a second time nothing is asked for.
        let requests = hub.requests("");
        assert!(requests.last().unwrap().contains("model_index.json"), "{requests:?}");
        assert_eq!(find_or_pull("acme/tagger", Task::Edit, Some(cache.path()), true).unwrap(), dir);
        assert_eq!(pull_from(&hub, cache.path(), &Control::new()).unwrap(), dir);
        assert_eq!(hub.requests("").len(), requests.len());
    }
}

#[test]
fn an_edit_model_goes_by_its_alias() {
    let hub = Arc::new(FakeHub::pipeline("QwenImageEditPlusPipeline"));
    let cache = tempfile::tempdir().unwrap();
    let options = PullOptions::default().cache_dir(cache.path()).endpoint(hub.start());
    let dir = pull("qwen-image-edit-2511", &options, &Control::new()).unwrap();
    assert!(dir.ends_with("Qwen--Qwen-Image-Edit-2511"), "{dir:?}");
    let locate = |model: &str, task| locate(model, task, None, Some(cache.path()), true);
    let found = locate("Qwen/Qwen-Image-Edit-2511", Task::Edit).unwrap();
    assert_eq!(found.path(), Some(&*dir));
    assert!(locate(dir.to_str().unwrap(), Task::Edit).is_ok());
    // It is no tagger, whatever it is called by.
    for model in ["qwen-image-edit-2511", "Qwen/Qwen-Image-Edit-2511", dir.to_str().unwrap()] {
        let error = locate(model, Task::Tag).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("edit model, not a tagger"), "{error}");
    }
    let error = locate("wd-vit-tagger-v3", Task::Edit).unwrap_err();
    assert!(error.to_string().contains("a tagger, not an edit model"), "{error}");
}

/// A model of an edit pipeline is whole when all is there that its indices name.
#[test]
fn a_cut_download_of_an_edit_model_goes_on_with_the_files_that_are_missing() {
    let hub = Arc::new(FakeHub::pipeline("QwenImageEditPipeline"));
    let cache = tempfile::tempdir().unwrap();
    let control = Control::new();
    let clone = control.clone();
    let control = control.on_progress(move |p| {
        if p.done > 200_000 {
            clone.cancel()
        }
    });
    let error = pull_from(&hub, cache.path(), &control).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let dir = cache.path().join("acme--tagger");
    let is_whole = || forms::is_complete(&dir, Task::Edit);
    assert!(!is_whole());
    pull_from(&hub, cache.path(), &Control::new()).unwrap();
    assert!(is_whole());
    let resumed: Vec<_> =
        hub.requests("safetensors").into_iter().filter(|r| !r.ends_with("from 0")).collect();
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    // Without any of these it is not.
    for name in [
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
        "model_index.json",
    ] {
        let (path, aside) = (dir.join(name), cache.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        assert!(!is_whole(), "{name}");
        std::fs::rename(&aside, &path).unwrap();
        assert!(is_whole(), "{name}");
    }
}

#[test]
fn other_pipelines_are_refused_before_their_weights_are_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Arc::new(FakeHub::pipeline("StableDiffusionPipeline"));
    let error = pull_from(&hub, cache.path(), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("StableDiffusionPipeline"), "{error}");
    assert!(hub.requests("safetensors").is_empty());

    let pull_for = |hub: FakeHub, task| {
        let options = PullOptions::default().cache_dir(cache.path());
        let options = options.endpoint(Arc::new(hub).start());
        pull_id("acme/tagger", &[task], &options, &Control::new()).unwrap_err()
    };
    let error = pull_for(FakeHub::pipeline("QwenImageEditPipeline"), Task::Tag);
    assert!(error.to_string().contains("an edit model, not a tagger"), "{error}");
    let error = pull_for(FakeHub::new(), Task::Edit);
    assert!(error.to_string().contains("a tagger, not an edit model"), "{error}");

    let mut hub = FakeHub::pipeline("QwenImageEditPipeline");
    hub.files.remove("vae/diffusion_pytorch_model.safetensors");
    let error = pull_for(hub, Task::Edit);
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(files_of(cache.path()).is_empty());
    // An index that names what nobody has.
    let index = br#"{"weight_map":{"a":"../../config.json"}}"#;
    let hub = FakeHub::pipeline("QwenImageEditPipeline");
    let error = pull_for(hub.with("text_encoder/model.safetensors.index.json", index), Task::Edit);
    assert_eq!(error.kind(), ErrorKind::ModelInvalid);
    assert!(error.to_string().contains("index"), "{error}");
}
