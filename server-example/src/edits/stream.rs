//! Edits as server-sent events, in OpenAI's form: a few partial pictures, then each finished one.
//!
//! The events are made as fast as the client reads: partial pictures that it is too slow for are left
//! out, finished ones never. When the client goes, the stream is dropped, and its edit with it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tagbrush::{Image, ImageFormat, Preview};

use super::spec::EditSpec;
use super::{Usage, made};
use crate::base64url;
use crate::engine::queue::Handle;
use crate::error::ApiError;
use crate::ids::now_millis;

struct State {
    handle: Handle,
    spec: EditSpec,
    format: ImageFormat,
    inputs: usize,
    expected: usize,
    given: usize,
    /// Partial pictures that each output still gets, and those that it got.
    partials: Vec<usize>,
    wanted: usize,
    start: Instant,
    is_over: bool,
}

/// The stream of events.
pub(super) fn events(
    handle: Handle,
    spec: EditSpec,
    inputs: usize,
    partial_images: usize,
    start: Instant,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let expected = spec.outputs(inputs);
    let state = State {
        format: spec.format().unwrap_or_default(),
        handle,
        spec,
        inputs,
        expected,
        given: 0,
        partials: vec![0; expected],
        wanted: partial_images,
        start,
        is_over: false,
    };
    let events = unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok(event), state))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)).text("ping"))
}

impl State {
    async fn next(&mut self) -> Option<Event> {
        while !self.is_over && self.given < self.expected {
            tokio::select! {
                biased;
                output = self.handle.outputs.recv() => return Some(self.output(output).await),
                changed = self.handle.stage.changed(), if self.wanted > 0 => {
                    if changed.is_err() {
                        // The run is over; what it made is in the other channel.
                        self.wanted = 0;
                        continue;
                    }
                    let preview = self.handle.stage.borrow_and_update().preview.clone();
                    if let Some(event) = preview.and_then(|preview| self.partial(&preview)) {
                        return Some(event);
                    }
                }
            }
        }
        None
    }

    /// A partial picture, if it is time for the output's next one: they are spread over its steps.
    fn partial(&mut self, preview: &Preview) -> Option<Event> {
        let sent = self.partials.get(preview.output).copied()?;
        let is_due = sent < self.wanted
            && preview.step * (self.wanted + 1) >= preview.steps * (sent + 1)
            && preview.step < preview.steps;
        if !is_due {
            return None;
        }
        self.partials[preview.output] += 1;
        let image =
            Image::from_rgb8(preview.width, preview.height, &*preview.pixels.clone()).ok()?;
        let bytes = image.encode(self.format).ok()?;
        let size = format!("{}x{}", preview.width, preview.height);
        let kind = "image_edit.partial_image";
        let mut body = self.body(kind, base64url::encode(&bytes), size);
        body["partial_image_index"] = json!(sent);
        body["output_index"] = json!(preview.output);
        Some(event(kind, &body))
    }

    async fn output(
        &mut self,
        output: Option<(usize, tagbrush::Result<crate::engine::models::Picture>)>,
    ) -> Event {
        let (index, picture) = match output {
            Some((index, Ok(picture))) => (index, picture),
            Some((_, Err(error))) => return self.fail(&ApiError::generation(&error)),
            None => return self.fail(&ApiError::stopping()),
        };
        let size = format!("{}x{}", picture.image.width(), picture.image.height());
        let format = self.format;
        let encoded = tokio::task::spawn_blocking(move || made(&picture, format)).await;
        let made = match encoded {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return self.fail(&error),
            Err(_) => return self.fail(&ApiError::internal("the image could not be written")),
        };
        self.given += 1;
        let kind = "image_edit.completed";
        let mut body = self.body(kind, made.b64_json, size);
        body["seed"] = json!(made.seed);
        body["output_index"] = json!(index);
        body["usage"] = json!(Usage {
            processing_time_seconds: self.start.elapsed().as_secs_f64(),
            input_images: self.inputs,
            generated_images: self.given,
        });
        event(kind, &body)
    }

    fn fail(&mut self, error: &ApiError) -> Event {
        self.is_over = true;
        event("error", &json!({"error": error.openai()}))
    }

    fn body(&self, kind: &str, b64_json: String, size: String) -> Value {
        json!({
            "type": kind,
            "b64_json": b64_json,
            "created_at": now_millis() / 1000,
            "size": size,
            "quality": "auto",
            "background": "opaque",
            "output_format": self.spec.output_format,
        })
    }
}

fn event(kind: &str, body: &Value) -> Event {
    Event::default().event(kind).data(body.to_string())
}
