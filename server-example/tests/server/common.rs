//! A server of its own for each test, in process, and models that are fast and can be held up.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use server_example::App;
use server_example::config::Config;
use server_example::engine::generating::{GenerateModel, ModelFacts, Setup};
use server_example::engine::models::{
    EditModel, Models, Origin, Picture, RealModels, Sink, TagModel,
};
use tagbrush::{
    Control, EditOptions, EditRequest, Error, ErrorKind, GenerateRequest, Image, ImageFormat,
    Input, MetadataScheme, OutputSize, Preview, Result, TagOptions, Tags,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// A server and its folders.
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) folder: Arc<TempDir>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of a good answer.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// OpenAI's code of an error, whose documented form must be there, too.
    #[track_caller]
    pub(crate) fn code(&self, status: u16) -> String {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{body}");
        let json = self.json();
        assert!(json["detail"].is_string() || json["detail"]["error"].is_string(), "{body}");
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn config(folder: &Path, vars: &[(&str, &str)]) -> Config {
    let path = |name: &str| Some(folder.join(name).display().to_string());
    Config::from_vars(&|name| match vars.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Some((*value).to_owned()),
        None if name == "OUTPUT_DIR" => path("outputs"),
        None if name == "INPUT_DIR" => path("inputs"),
        None => None,
    })
    .unwrap()
}

impl Server {
    /// With the fake edit model and the demo tagger.
    pub(crate) async fn new(vars: &[(&str, &str)]) -> (Self, Arc<Fake>) {
        let fake = Arc::new(Fake::default());
        let server = Self::with(
            vars,
            Arc::new(FakeModels(Arc::clone(&fake))),
            Arc::new(tempfile::tempdir().unwrap()),
        );
        let server = server.await;
        fake.calls.lock().unwrap().clear();
        (server, fake)
    }

    pub(crate) async fn with(
        vars: &[(&str, &str)],
        models: Arc<dyn Models>,
        folder: Arc<TempDir>,
    ) -> Self {
        let app = App::start(config(folder.path(), vars), models).unwrap();
        let server = Self { app, folder };
        let until = Instant::now() + Duration::from_secs(120);
        while server.get("/ready").await.status != StatusCode::OK {
            assert!(Instant::now() < until, "{:?}", server.get("/ready").await.json());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    /// With the library's own models: the demo tagger, and the small random edit model.
    pub(crate) async fn real(vars: &[(&str, &str)]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let model = small_model().display().to_string();
        let vars: Vec<_> = vars.iter().copied().chain([("EDIT_MODEL", model.as_str())]).collect();
        let models = Arc::new(RealModels::new(&config(folder.path(), &vars)));
        Self::with(&vars, models, folder).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.router().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, json: &Value) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(json.to_string().into()).unwrap()).await
    }

    pub(crate) async fn edit(&self, form: Form) -> Answer {
        self.send(form.request()).await
    }

    /// Waits until a task has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let task = self.get(&format!("/tasks/{id}")).await.ok();
            if task["finish_mills"].as_i64().is_some_and(|at| at > 0) {
                return task;
            }
            assert!(Instant::now() < until, "{task}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A multipart form.
#[derive(Clone, Default)]
pub(crate) struct Form(Vec<u8>);

const BOUNDARY: &str = "----a-boundary";

impl Form {
    #[must_use]
    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        self.0.extend([head.as_bytes(), value.as_bytes(), b"\r\n"].concat());
        self
    }

    #[must_use]
    pub(crate) fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n"
        );
        self.0.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        self
    }

    pub(crate) fn body(mut self) -> Vec<u8> {
        self.0.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.0
    }

    pub(crate) fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    pub(crate) fn request(self) -> Request<Body> {
        let request = Request::post("/v1/images/edits");
        request.header(header::CONTENT_TYPE, Self::content_type()).body(self.body().into()).unwrap()
    }
}

/// A form that is fine: an edit of one picture.
pub(crate) fn form() -> Form {
    Form::default()
        .text("prompt", "make the sky blue")
        .file("images", &png(7))
        .text("size", "64x64")
}

/// A PNG whose pixels follow from a number.
pub(crate) fn png(number: u8) -> Vec<u8> {
    let pixels: Vec<u8> =
        (0..64u32 * 64 * 3).map(|i| (i / 7) as u8 ^ number.wrapping_mul(29)).collect();
    Image::from_rgb8(64, 64, pixels).unwrap().encode(ImageFormat::Png).unwrap()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn unbase64(text: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// The small random edit model of the library's own tests.
pub(crate) fn small_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/goldens/edit-pipeline")
}

/// The demo tagger, and an edit model that paints what it was asked for. Both can be held up, and
/// tell what they were called with.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// Number of inputs of every call.
    pub(crate) calls: Mutex<Vec<usize>>,
    held: Mutex<bool>,
    released: Condvar,
    pub(crate) waiting: AtomicUsize,
    /// Runs that saw that they were cancelled.
    pub(crate) cancelled: AtomicUsize,
    /// What the model that generates was called with.
    pub(crate) setups: Mutex<Vec<Setup>>,
    pub(crate) requests: Mutex<Vec<Vec<GenerateRequest>>>,
    /// In which notations its pictures were asked to say how they were made.
    pub(crate) schemes: Mutex<Vec<MetadataScheme>>,
    /// Steps that it may make; any number unless set.
    steps: Mutex<Option<usize>>,
    /// Steps that it made.
    pub(crate) steps_made: AtomicUsize,
}

impl Fake {
    /// Holds up the next calls.
    pub(crate) fn hold(self: &Arc<Self>) {
        *self.held.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    /// Lets the model that generates make so many steps more, and no others.
    pub(crate) fn allow(&self, steps: usize) {
        *self.steps.lock().unwrap().get_or_insert(0) += steps;
    }

    /// Waits for a step that is allowed.
    fn pause(&self, is_cancelled: &dyn Fn() -> bool) {
        while !is_cancelled() {
            let mut steps = self.steps.lock().unwrap();
            match &mut *steps {
                Some(0) => drop(steps),
                Some(steps) => {
                    *steps -= 1;
                    break;
                }
                None => break,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.steps_made.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until a call is held up.
    pub(crate) async fn until_held(&self) {
        self.until(|fake| fake.waiting.load(Ordering::SeqCst) > 0).await;
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_so(self) {
            assert!(Instant::now() < until, "waited too long");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Notes a call, and waits while calls are held up or until it is cancelled.
    fn called(&self, inputs: usize, control: &Control) {
        self.calls.lock().unwrap().push(inputs);
        let mut held = self.held.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *held && !control.is_cancelled() {
            held = self.released.wait_timeout(held, Duration::from_millis(5)).unwrap().0;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// [`Fake`] as models of the engine.
pub(crate) struct FakeModels(pub(crate) Arc<Fake>);

struct FakeTagger(Arc<Fake>, Arc<dyn TagModel>);

struct FakeEditor(Arc<Fake>);

struct FakeGenerator(Arc<Fake>, ModelFacts);

impl Models for FakeModels {
    fn tagger(&self, name: &str) -> Result<Arc<dyn TagModel>> {
        match name {
            "demo" => {
                let real = RealModels::new(&config(&std::env::temp_dir(), &[])).tagger("demo")?;
                Ok(Arc::new(FakeTagger(Arc::clone(&self.0), real)))
            }
            _ => Err(Error::new(ErrorKind::ModelNotFound, "it is in no local cache")),
        }
    }

    fn editor(&self) -> Result<Arc<dyn EditModel>> {
        Ok(Arc::new(FakeEditor(Arc::clone(&self.0))))
    }

    fn generator(&self) -> Result<Arc<dyn GenerateModel>> {
        let (model, name) = ("fake".to_owned(), "fake".to_owned());
        let facts = ModelFacts { model, name, size: (1152, 896), styles: None, needs_loras: false };
        Ok(Arc::new(FakeGenerator(Arc::clone(&self.0), facts)))
    }

    fn tagger_key(&self, name: &str) -> Option<String> {
        ["demo", "wd14-vit-v2"].contains(&name).then(|| name.to_owned())
    }

    fn configured(&self) -> Vec<String> {
        vec!["demo".to_owned()]
    }
}

impl TagModel for FakeTagger {
    fn scores(&self, images: Vec<Input>) -> Vec<Result<Vec<f32>>> {
        self.0.called(images.len(), &Control::new());
        self.1.scores(images)
    }

    fn select(&self, scores: &[f32], options: &TagOptions) -> Result<Tags> {
        self.1.select(scores, options)
    }
}

impl EditModel for FakeEditor {
    fn check(&self, requests: &[EditRequest], options: &EditOptions) -> Result<()> {
        let invalid = |field: &'static str| {
            Err(Error::new(ErrorKind::InvalidInput, "a wrong value").with("field", field))
        };
        match options {
            options if !(1..=10).contains(&options.n) => invalid("n"),
            EditOptions { size: OutputSize::Exact(w, h), .. } if *w.min(h) < 16 => invalid("size"),
            _ if requests.iter().any(|request| request.prompt.trim().is_empty()) => {
                invalid("prompt")
            }
            _ => Ok(()),
        }
    }

    /// Flat pictures: red is the first letter of the prompt, green the seed, blue the number of
    /// references. The prompt `break` panics, `fail` fails.
    fn edit(
        &self,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        self.0.called(requests.len() * options.n, control);
        if control.is_cancelled() {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        for (i, request) in requests.iter().enumerate() {
            assert!(request.prompt != "break", "broken on purpose");
            for variant in 0..options.n {
                let seed = request.seed.or(options.seed).unwrap() + variant as u64;
                let red = request.prompt.as_bytes()[0];
                let colour = [red, seed as u8, request.images.len() as u8];
                let image = Image::from_rgb8(32, 32, colour.repeat(32 * 32))?;
                let made = match request.prompt.as_str() {
                    _ if control.is_cancelled() => {
                        Err(Error::new(ErrorKind::Cancelled, "cancelled"))
                    }
                    "fail" => Err(Error::new(ErrorKind::OutOfMemory, "CUDA out of memory")),
                    _ => Ok(Picture { image, seed, origin: None }),
                };
                sink(i * options.n + variant, made);
            }
        }
        Ok(())
    }

    fn defaults(&self) -> (usize, usize) {
        (1024 * 1024, 50)
    }
}

/// The origin of a picture of the fake model, which says nothing and notes that it was asked to.
#[derive(Debug)]
struct Told {
    image: Image,
    to: Arc<Fake>,
}

impl Origin for Told {
    fn encode(&self, format: ImageFormat, scheme: MetadataScheme) -> Result<Vec<u8>> {
        self.to.schemes.lock().unwrap().push(scheme);
        self.image.encode(format)
    }
}

impl GenerateModel for FakeGenerator {
    fn facts(&self) -> &ModelFacts {
        &self.1
    }

    fn prepare(&self, setup: &Setup) -> Result<()> {
        self.0.setups.lock().unwrap().push(setup.clone());
        Ok(())
    }

    /// Flat pictures: red is the first letter of the prompt, green the seed, blue the number of pictures that
    /// were made before in the run. Each makes its steps when it is let go on, or all at once. Prompts that
    /// begin with `break` panic, those with `fail` fail.
    fn generate(
        &self,
        requests: &[GenerateRequest],
        setup: &Setup,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        self.0.requests.lock().unwrap().push(requests.to_vec());
        self.0.called(requests.len(), control);
        if control.is_cancelled() {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        for (i, request) in requests.iter().enumerate() {
            assert!(!request.prompt.starts_with("break"), "broken on purpose");
            let is_cancelled = || control.is_cancelled() || control.is_output_cancelled(i);
            for step in 1..=setup.options.steps {
                self.0.pause(&is_cancelled);
                if is_cancelled() {
                    break;
                }
                control.show(Preview::new(i, (step, setup.options.steps), (1, 1), [9; 3]));
            }
            let seed = request.seed.unwrap();
            let red = request.prompt.bytes().next().unwrap_or_default();
            let image = Image::from_rgb8(32, 32, [red, seed as u8, i as u8].repeat(32 * 32))?;
            let made = match request.prompt.as_str() {
                _ if is_cancelled() => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
                prompt if prompt.starts_with("fail") => {
                    Err(Error::new(ErrorKind::OutOfMemory, "CUDA out of memory"))
                }
                _ => {
                    let told = Told { image: image.clone(), to: Arc::clone(&self.0) };
                    Ok(Picture { image, seed, origin: Some(Arc::new(told)) })
                }
            };
            sink(i, made);
        }
        Ok(())
    }
}

/// The colour that the fake edit model painted, out of an answer's `data`.
pub(crate) fn colour(data: &Value) -> [u8; 3] {
    let image = Image::decode(&unbase64(&data["b64_json"])).unwrap();
    [image.pixels()[0], image.pixels()[1], image.pixels()[2]]
}
