//! A task as server-sent events, in the documented frames: a line of JSON, an empty `data:`, and nothing but
//! these. Progress is told as fast as the client reads; only the newest step counts, and no other message is
//! left out. When the client goes, the stream is dropped, and its task with it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tagbrush::{Image, ImageFormat, Preview};
use tokio::sync::watch;

use crate::base64url;
use crate::engine::queue::Stage;
use crate::jobs::Ended;
use crate::jobs::runner::Accepted;

/// How long nothing is said at most.
const QUIET: Duration = Duration::from_secs(15);
/// Where sampling begins, of 100.
const BEFORE_SAMPLING: usize = 13;

struct Story {
    task: Accepted,
    stage: watch::Receiver<Stage>,
    done: watch::Receiver<usize>,
    ended: watch::Receiver<Option<Ended>>,
    outputs: usize,
    base: String,
    note: Option<String>,
    has_begun: bool,
    is_prepared: bool,
    steps: usize,
    saved: usize,
    is_over: bool,
}

/// The answer with a task's events.
pub(super) fn events(
    task: Accepted,
    outputs: usize,
    note: Option<String>,
    base: String,
) -> Response {
    let id = HeaderValue::from_str(&task.id).unwrap_or(HeaderValue::from_static(""));
    let story = Story {
        stage: task.live.stage.clone(),
        done: task.live.done.subscribe(),
        ended: task.live.ended.subscribe(),
        task,
        outputs,
        base,
        note,
        has_begun: false,
        is_prepared: false,
        steps: 0,
        saved: 0,
        is_over: false,
    };
    let frames = unfold(story, |mut story| async move {
        let frame = story.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), story))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (HeaderName::from_static("x-task-id"), id),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

impl Story {
    /// The next frame.
    async fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        if let Some(note) = self.note.take() {
            return Some(frame(1, &Value::Null, &format!("Note: {note}"), &[]));
        }
        loop {
            if let Some(frame) = self.news() {
                return Some(frame);
            }
            let changed = async {
                tokio::select! {
                    Ok(()) = self.done.changed() => {}
                    // At the end the sender is gone; what follows is the end itself.
                    Ok(()) = self.stage.changed() => {}
                    _ = self.ended.changed() => {}
                }
            };
            if tokio::time::timeout(QUIET, changed).await.is_err() {
                return Some(": ping\r\n\r\n".to_owned());
            }
        }
    }

    /// What was not told yet, the oldest first.
    fn news(&mut self) -> Option<String> {
        let stage = self.stage.borrow_and_update().clone();
        let (done, ended) =
            (*self.done.borrow_and_update(), self.ended.borrow_and_update().clone());
        if stage.is_running && !self.has_begun {
            self.has_begun = true;
            return Some(frame(2, &Value::Null, "Loading models ...", &[]));
        }
        if stage.is_prepared && !self.is_prepared {
            self.is_prepared = true;
            let message = format!("Preparing task 1/{} ...", self.outputs);
            return Some(frame(BEFORE_SAMPLING, &Value::Null, &message, &[]));
        }
        if let Some(preview) = stage.preview.filter(|_| stage.steps > self.steps) {
            self.steps = stage.steps;
            return Some(self.step(&preview));
        }
        if done > self.saved {
            self.saved += 1;
            let message = format!("Saving image {}/{} to system ...", self.saved, self.outputs);
            return Some(frame(sampled(self.saved, self.outputs), &Value::Null, &message, &[]));
        }
        let ended = ended?;
        self.is_over = true;
        let links: Vec<_> =
            ended.paths.iter().map(|path| format!("{}/outputs/{path}", self.base)).collect();
        let message = match (&ended.error, ended.status) {
            (Some(error), _) => format!("Failed: {}", error.message),
            (None, "canceled") => "Cancelled".to_owned(),
            _ => "Finished".to_owned(),
        };
        Some(frame(100, &Value::Null, &message, &links))
    }

    fn step(&self, preview: &Preview) -> String {
        let total = preview.steps * self.outputs;
        let progress = sampled(self.steps.saturating_sub(1).min(total), total);
        let (step, steps) = (preview.step, preview.steps);
        let (image, images) = (preview.output + 1, self.outputs);
        let message = format!("Sampling step {step}/{steps}, image {image}/{images} ...");
        let picture = match self.task.live.has_previews {
            true => encoded(preview).map_or(Value::Null, |url| json!(url)),
            false => Value::Null,
        };
        frame(progress, &picture, &message, &[])
    }
}

/// The progress when so much of sampling is done.
fn sampled(done: usize, all: usize) -> usize {
    BEFORE_SAMPLING + (100 - BEFORE_SAMPLING) * done / all.max(1)
}

fn encoded(preview: &Preview) -> Option<String> {
    let image = Image::from_rgb8(preview.width, preview.height, &*preview.pixels).ok()?;
    let png = image.encode(ImageFormat::Png).ok()?;
    Some(format!("data:image/png;base64,{}", base64url::encode(&png)))
}

/// As the document shows it: keys in this order, spaces after `:` and `,`, nothing but ASCII.
fn frame(progress: usize, preview: &Value, message: &str, images: &[String]) -> String {
    let images: Vec<_> = images.iter().map(|image| json!(image).to_string()).collect();
    let json = format!(
        "{{\"progress\": {progress}, \"preview\": {preview}, \"message\": {}, \"images\": [{}]}}",
        json!(message),
        images.join(", ")
    );
    let mut ascii = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter.is_ascii() {
            true => ascii.push(letter),
            false => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }),
        }
    }
    format!("data: {ascii}\r\ndata: \r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_documented() {
        let images = ["http://a/outputs/b.png".to_owned(), "c".to_owned()];
        assert_eq!(
            frame(100, &Value::Null, "Fertig \"ü\" 😀", &images),
            "data: {\"progress\": 100, \"preview\": null, \"message\": \"Fertig \\\"\\u00fc\\\" \\ud83d\\ude00\", \
             \"images\": [\"http://a/outputs/b.png\", \"c\"]}\r\ndata: \r\n\r\n"
        );
        let steps: Vec<_> = (0..4).map(|step| sampled(step, 4)).collect();
        assert_eq!(steps, [13, 34, 56, 78]);
        assert_eq!(sampled(4, 4), 100);
    }
}
