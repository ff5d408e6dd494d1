//! `/v1/images/edits`: both dialects, what is refused, merging, leaving, streaming.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Form, Server, base64, colour, form, png, unbase64};
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tagbrush::{EditOptions, EditPipeline, EditRequest, Image, OutputSize};
use tower::ServiceExt;

#[tokio::test]
async fn pictures_times_variants_come_in_the_documented_order() {
    let (server, _) = Server::new(&[]).await;
    let form = Form::default()
        .text("prompt", "enhance colors")
        .file("images", &png(1))
        .file("images", &png(2))
        .file("images", &png(3))
        .text("n", "2")
        .text("seed", "100");
    let answer = server.edit(form).await;
    assert_eq!(answer.headers["x-edit-mode"], "batch");
    let body = answer.ok();
    let colours: Vec<_> = body["data"].as_array().unwrap().iter().map(colour).collect();
    assert_eq!(colours, [[b'e', 100, 1], [b'e', 101, 1]].repeat(3));
    assert_eq!(body["usage"]["input_images"], 3);
    assert_eq!(body["usage"]["generated_images"], 6);
    assert!(body["usage"]["processing_time_seconds"].is_f64());
    assert!(body["created"].as_i64().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn the_field_decides_whether_pictures_are_edits_or_references() {
    let (server, _) = Server::new(&[]).await;
    let with = |name: &str, count: u8| {
        (0..count).fold(Form::default().text("prompt", "x").text("seed", "1"), |form, i| {
            form.file(name, &png(i))
        })
    };
    for (form, outputs, references) in [
        (with("images", 2), 2, 1),
        (with("images[]", 2), 2, 1),
        (with("image", 1), 1, 1),
        (with("image[]", 3), 1, 3),
        (with("images", 2).text("edit_mode", "reference"), 1, 2),
        (with("image[]", 2).text("edit_mode", "batch"), 2, 1),
    ] {
        let body = server.edit(form).await.ok();
        let data = body["data"].as_array().unwrap();
        assert_eq!((data.len(), colour(&data[0])[2]), (outputs, references));
    }
    let mixed = with("images", 1).file("image", &png(9));
    assert_eq!(server.edit(mixed).await.code(400), "ambiguous_image_fields");
}

#[tokio::test]
async fn json_pictures_are_data_urls_and_nothing_is_fetched() {
    let (server, _) = Server::new(&[]).await;
    let url = format!("data:image/png;base64,{}", base64(&png(1)));
    let request = json!({"prompt": "x", "n": 2, "seed": 5, "mask": null,
        "images": [{"image_url": url}, {"image_url": url}]});
    let body = server.post("/v1/images/edits", &request).await.ok();
    let colours: Vec<_> = body["data"].as_array().unwrap().iter().map(colour).collect();
    assert_eq!(colours, [[b'x', 5, 2], [b'x', 6, 2]]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let inside = format!("http://{}/a.png", listener.local_addr().unwrap());
    for (image, code) in [
        (json!({"image_url": inside}), "unsupported_parameter"),
        (json!({"image_url": "file:///etc/passwd"}), "unsupported_parameter"),
        (json!({"file_id": "a"}), "unsupported_parameter"),
        (json!({"image_url": "data:image/png;base64,%"}), "invalid_input"),
        (json!(3), "invalid_input"),
    ] {
        let request = json!({"prompt": "x", "images": [image]});
        assert_eq!(server.post("/v1/images/edits", &request).await.code(400), code, "{image}");
    }
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn each_picture_may_have_a_prompt_of_its_own() {
    let (server, _) = Server::new(&[]).await;
    let two = Form::default().file("images", &png(1)).file("images", &png(2)).text("seed", "0");
    let body = server.edit(two.clone().text("prompt", "a").text("prompt", "b")).await.ok();
    let colours: Vec<_> = body["data"].as_array().unwrap().iter().map(colour).collect();
    assert_eq!(colours, [[b'a', 0, 1], [b'b', 0, 1]]);
    let three = two.text("prompt", "a").text("prompt", "b").text("prompt", "c");
    assert_eq!(server.edit(three).await.json()["error"]["param"], "prompt");
}

#[tokio::test]
async fn every_documented_parameter_is_taken() {
    let (server, _) = Server::new(&[]).await;
    let full = Form::default()
        .text("prompt", "make the sky more vibrant blue")
        .text("negative_prompt", "dark, low quality, blurry")
        .file("images", &png(1))
        .text("size", "1024x1024")
        .text("n", "2")
        .text("num_inference_steps", "50")
        .text("guidance_scale", "7.5")
        .text("true_cfg_scale", "4.0")
        .text("output_type", "pil")
        .text("max_sequence_length", "512");
    assert_eq!(server.edit(full).await.ok()["data"].as_array().unwrap().len(), 2);
    let openai = form()
        .text("model", "edit")
        .text("quality", "low")
        .text("background", "auto")
        .text("response_format", "b64_json")
        .text("output_format", "webp")
        .text("user", "somebody");
    let body = server.edit(openai).await.ok();
    assert!(unbase64(&body["data"][0]["b64_json"]).starts_with(b"RIFF"));
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_its_name() {
    let (server, fake) = Server::new(&[("MAX_EDIT_IMAGES", "3"), ("MAX_EDIT_OUTPUTS", "6")]).await;
    for (name, value, code) in [
        ("output_type", "pt", "unsupported_parameter"),
        ("background", "transparent", "unsupported_parameter"),
        ("output_format", "svg", "unsupported_parameter"),
        ("output_format", "gif", "unsupported_parameter"),
        ("response_format", "url", "unsupported_parameter"),
        ("quality", "max", "unsupported_parameter"),
        ("input_fidelity", "high", "unsupported_parameter"),
        ("markup", "x", "unsupported_parameter"),
        ("steps", "5", "unsupported_parameter"),
        ("mask", "x", "unsupported_parameter"),
        ("n", "0", "invalid_input"),
        ("n", "11", "invalid_input"),
        ("n", "7", "invalid_input"),
        ("n", "-1", "invalid_input"),
        ("n", "1000000000", "invalid_input"),
        ("n", "2.5", "invalid_input"),
        ("num_inference_steps", "many", "invalid_input"),
        ("partial_images", "4", "invalid_input"),
        ("partial_images", "1", "invalid_input"),
        ("stream", "perhaps", "invalid_input"),
        ("edit_mode", "both", "invalid_input"),
        ("webhook_url", "https://example.com/", "invalid_input"),
        ("output_compression", "101", "invalid_input"),
    ] {
        let form = Form::default().text("prompt", "x").file("images", &png(1)).text(name, value);
        let answer = server.edit(form).await;
        let found = answer.code(400);
        assert_eq!(found, if value == "101" { "unsupported_parameter" } else { code }, "{name}");
        assert_eq!(answer.json()["error"]["param"], name);
        assert_eq!(answer.json()["detail"]["error"], "INVALID_INPUT");
    }
    for size in ["0x0", "1x1", "64", "axb", "-1x64", "99999999999x64"] {
        let form = Form::default().text("prompt", "x").file("images", &png(1)).text("size", size);
        assert_eq!(server.edit(form).await.code(400), "invalid_input", "{size}");
    }
    for size in ["64×64", "64*64", "auto"] {
        let form = Form::default().text("prompt", "x").file("images", &png(1)).text("size", size);
        server.edit(form).await.ok();
    }
    let mask = form().file("mask", &png(2));
    assert_eq!(server.edit(mask).await.json()["error"]["param"], "mask");
    let unknown = form().text("model", "gpt-image-1");
    assert_eq!(server.edit(unknown).await.code(404), "model_not_found");
    let twice = form().text("n", "1").text("n", "2");
    assert_eq!(server.edit(twice).await.json()["error"]["param"], "n");
    let four = (0..4).fold(Form::default().text("prompt", "x"), |f, i| f.file("images", &png(i)));
    server.edit(four).await.code(400);
    assert_eq!(fake.calls.lock().unwrap().len(), 3, "only the good sizes cost work");
}

#[tokio::test]
async fn the_documented_errors_have_their_words() {
    let (server, _) = Server::new(&[]).await;
    let detail = |answer: &crate::common::Answer| answer.json()["detail"].clone();
    let no_image = server.edit(Form::default().text("prompt", "x")).await;
    let expected = json!({"error": "INVALID_INPUT", "message": "At least one image is required"});
    assert_eq!((no_image.status.as_u16(), detail(&no_image)), (400, expected));
    let no_prompt = server.edit(Form::default().text("prompt", " ").file("images", &png(1))).await;
    let expected = json!({"error": "INVALID_INPUT", "message": "Prompt cannot be empty"});
    assert_eq!((no_prompt.status.as_u16(), detail(&no_prompt)), (400, expected));
    let text = form().file("images", b"a text named .png");
    let bad = detail(&server.edit(text).await)["message"].as_str().unwrap().to_owned();
    assert!(bad.starts_with("Invalid image format at index 1: "), "{bad}");
    let fails = Form::default().text("prompt", "fail").file("images", &png(1));
    let fails = server.edit(fails).await;
    assert_eq!(fails.code(500), "out_of_memory");
    assert_eq!(fails.headers["x-should-retry"], "false");
    let expected = json!({"error": "GENERATION_ERROR",
        "message": "Image generation failed: CUDA out of memory"});
    assert_eq!(detail(&fails), expected);
}

#[tokio::test]
async fn a_model_that_breaks_down_costs_its_run_only() {
    let (server, _) = Server::new(&[]).await;
    let breaks = Form::default().text("prompt", "break").file("images", &png(1));
    assert_eq!(server.edit(breaks).await.code(500), "internal");
    server.edit(form()).await.ok();
}

#[tokio::test]
async fn bodies_that_are_no_forms_are_refused() {
    let (server, _) = Server::new(&[("MAX_BODY_MB", "1"), ("MAX_IMAGE_MB", "1")]).await;
    let whole = form().body();
    let no_length = "multipart/form-data".to_owned();
    for (kind, body) in [
        (Form::content_type(), whole[..whole.len() / 2].to_vec()),
        (no_length, whole.clone()),
        (Form::content_type(), Vec::new()),
        (Form::content_type(), b"nothing of a form".to_vec()),
        ("application/json".to_owned(), whole.clone()),
        ("application/json".to_owned(), "[".repeat(10_000).into_bytes()),
        (Form::content_type(), Form::default().text("prompt", "x").file("other", b"x").body()),
    ] {
        let request = Request::post("/v1/images/edits").header(header::CONTENT_TYPE, kind);
        server.send(request.body(body.into()).unwrap()).await.code(400);
    }
    let mut not_utf8 = form().text("negative_prompt", "AAAA").body();
    let at = not_utf8.windows(4).position(|w| w == b"AAAA").unwrap();
    not_utf8[at] = 0xff;
    let request = |body: Vec<u8>| {
        Request::post("/v1/images/edits")
            .header(header::CONTENT_TYPE, Form::content_type())
            .body(Body::from(body))
    };
    server.send(request(not_utf8).unwrap()).await.code(400);
    let request_of_text =
        Request::post("/v1/images/edits").header(header::CONTENT_TYPE, "text/plain");
    server.send(request_of_text.body(Body::empty()).unwrap()).await.code(415);
    let many = (0..100).fold(form(), |form, i| form.text(&format!("x{i}"), "y"));
    server.edit(many).await.code(400);
    let long = form().text("negative_prompt", &"x".repeat(70_000));
    server.edit(long).await.code(400);
    // Too long without saying so beforehand.
    let huge = form().file("images", &vec![0; 2 << 20]).body();
    assert_eq!(server.send(request(huge).unwrap()).await.code(413), "request_too_large");
}

/// Sends an edit from a task of its own.
fn ask(server: &Arc<Server>, form: Form) -> tokio::task::JoinHandle<crate::common::Answer> {
    let server = Arc::clone(server);
    tokio::spawn(async move { server.edit(form).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compatible_requests_share_a_run_and_get_their_own_outputs() {
    let (server, fake) = Server::new(&[("EDIT_BATCH", "8")]).await;
    let server = Arc::new(server);
    fake.hold();
    let first = ask(&server, form());
    fake.until_held().await;
    let wants = |prompt: &str, seed: u8, n: usize| {
        let form = Form::default().text("prompt", prompt).file("images", &png(seed));
        form.text("seed", &seed.to_string()).text("n", &n.to_string())
    };
    let mut asked = Vec::new();
    for (prompt, seed, n) in [("a", 1, 2), ("b", 2, 2), ("c", 3, 1), ("d", 4, 2)] {
        asked.push((prompt, seed, n, ask(&server, wants(prompt, seed, n))));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fake.release();
    first.await.unwrap().ok();
    for (prompt, seed, n, answer) in asked {
        let body = answer.await.unwrap().ok();
        let colours: Vec<_> = body["data"].as_array().unwrap().iter().map(colour).collect();
        let expected: Vec<_> = (0..n as u8).map(|j| [prompt.as_bytes()[0], seed + j, 1]).collect();
        assert_eq!(colours, expected);
    }
    // Three of them have the same options.
    assert_eq!(*fake.calls.lock().unwrap(), [1, 6, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_refuses_with_a_time_to_wait() {
    let (server, fake) = Server::new(&[("EDIT_QUEUE", "1")]).await;
    let server = Arc::new(server);
    fake.hold();
    let running = ask(&server, form());
    fake.until_held().await;
    let waiting = ask(&server, form());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = server.edit(form()).await;
    assert_eq!(refused.code(429), "queue_full");
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert!(refused.headers.contains_key("retry-after"));
    server.edit(form().file("images", b"no picture, which nobody has seen")).await.code(429);
    // A place that its client gave up is free at once.
    waiting.abort();
    assert!(waiting.await.is_err());
    let waiting = ask(&server, form());
    tokio::time::sleep(Duration::from_millis(300)).await;
    fake.release();
    running.await.unwrap().ok();
    waiting.await.unwrap().ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_stops_when_nobody_waits_for_it() {
    let (server, fake) = Server::new(&[]).await;
    let server = Arc::new(server);
    fake.hold();
    let leaves = ask(&server, form());
    fake.until_held().await;
    leaves.abort();
    assert!(leaves.await.is_err());
    // It is held up no more only because it saw that it was cancelled.
    fake.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    fake.release();
    server.edit(form()).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_leaves_a_shared_run_takes_nobody_along() {
    let (server, fake) = Server::new(&[]).await;
    let server = Arc::new(server);
    fake.hold();
    let first = ask(&server, form());
    fake.until_held().await;
    let (leaves, stays) =
        (ask(&server, form().text("seed", "1")), ask(&server, form().text("seed", "2")));
    tokio::time::sleep(Duration::from_millis(300)).await;
    fake.release();
    first.await.unwrap().ok();
    leaves.abort();
    let body = stays.await.unwrap().ok();
    assert_eq!(colour(&body["data"][0]), [b'm', 2, 1]);
    assert_eq!(fake.cancelled.load(Ordering::SeqCst), 0);
}

/// The events of a stream: their names and bodies.
async fn events(server: &Server, form: Form) -> Vec<(String, Value)> {
    let response = server.app.router().oneshot(form.request()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let event = |block: &str| {
        let line =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some((line("event")?.to_owned(), serde_json::from_str(line("data")?).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_gives_every_output_and_errors_as_events() {
    let (server, _) = Server::new(&[]).await;
    let found =
        events(&server, form().text("n", "3").text("stream", "true").text("seed", "7")).await;
    assert_eq!(found.len(), 3);
    for (i, (name, body)) in found.iter().enumerate() {
        assert_eq!((name.as_str(), &body["type"]), ("image_edit.completed", &json!(name)));
        assert_eq!(colour(body), [b'm', 7 + i as u8, 1]);
        assert_eq!(body["usage"]["generated_images"], i + 1);
    }
    let fails =
        Form::default().text("prompt", "fail").file("image", &png(1)).text("stream", "true");
    let found = events(&server, fails).await;
    assert_eq!(found[0].0, "error");
    assert_eq!(found[0].1["error"]["code"], "out_of_memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_librarys_own_pictures_come_back_with_partial_ones_before() {
    let server = Server::real(&[]).await;
    let form = Form::default()
        .text("prompt", "make the sky blue")
        .file("images", &png(1))
        .file("images", &png(2))
        .text("size", "64x64")
        .text("num_inference_steps", "4")
        .text("seed", "42");
    let body = server.edit(form.clone()).await.ok();
    let pipeline =
        EditPipeline::load(crate::common::small_model().to_str().unwrap(), &Default::default())
            .unwrap();
    let options =
        EditOptions::default().num_inference_steps(4).size(OutputSize::Exact(64, 64)).seed(42);
    for (data, input) in body["data"].as_array().unwrap().iter().zip([png(1), png(2)]) {
        let request = EditRequest::new(input, "make the sky blue");
        let expected = pipeline.edit(&request, &options).unwrap().remove(0).image;
        assert_eq!(Image::decode(&unbase64(&data["b64_json"])).unwrap(), expected);
        assert_eq!(data["seed"], 42);
    }
    let found = events(&server, form.text("stream", "true").text("partial_images", "2")).await;
    let completed: Vec<_> =
        found.iter().filter(|(name, _)| name == "image_edit.completed").collect();
    for ((_, event), data) in completed.iter().zip(body["data"].as_array().unwrap()) {
        assert_eq!(event["b64_json"], data["b64_json"]);
    }
    assert_eq!(completed.len(), 2);
    for (name, event) in found.iter().filter(|(name, _)| name != "image_edit.completed") {
        assert_eq!(name, "image_edit.partial_image");
        assert!(event["partial_image_index"].as_u64().unwrap() < 2);
        assert_eq!(Image::decode(&unbase64(&event["b64_json"])).unwrap().width(), 8);
    }
}
