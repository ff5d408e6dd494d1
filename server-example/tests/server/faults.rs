//! Faults of `FAULTS.md` that no other file covers, and that what it names is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header};
use futures_util::StreamExt;
use rusqlite::Connection;
use serde_json::{Value, json};
use tagbrush::{Image, ImageFormat};
use tower::ServiceExt;

use crate::common::{Form, Server, base64, form, png};

async fn raw(server: &Server, body: Vec<u8>) -> crate::common::Answer {
    let request =
        Request::post("/v1/images/edits").header(header::CONTENT_TYPE, Form::content_type());
    server.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn h04_odd_forms_are_refused_at_once() {
    let (server, fake) = Server::new(&[]).await;
    let start = Instant::now();
    let parts = (0..10_000).fold(form(), |form, i| form.text(&format!("x{i}"), "y"));
    raw(&server, parts.body()).await.code(400);
    let head = "----a-boundary\r\nContent-Disposition: form-data; name=\"images\"; filename=\"a\0.png\"\r\n";
    raw(&server, format!("{head}\r\nx\r\n------a-boundary--").into_bytes()).await.code(400);
    let nested = "multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n";
    let nested = format!("{head}Content-Type: {nested}------a-boundary--").replace('\0', "");
    raw(&server, nested.into_bytes()).await.code(400);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(fake.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn h10_a_size_that_no_memory_holds_is_refused() {
    let server = Server::real(&[]).await;
    for size in ["99999x99999", "0x0", "16x99999"] {
        let form = Form::default().text("prompt", "x").file("images", &png(1)).text("size", size);
        assert_eq!(server.edit(form).await.json()["error"]["param"], "size", "{size}");
    }
}

#[tokio::test]
async fn h12_other_methods_and_paths() {
    let (server, _) = Server::new(&[]).await;
    server.get("/v1/images/edits/").await.code(404);
    let send = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("origin", "http://x");
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let head = send("HEAD", "/health").await;
    assert!(head.status == 200 && head.body.is_empty());
    // No page of another site may read answers: nothing is said to be allowed.
    let options = send("OPTIONS", "/v1/images/edits").await;
    options.code(405);
    let cors = |name: &header::HeaderName| name.as_str().starts_with("access-control");
    assert!(!options.headers.keys().any(cors) && options.headers.contains_key(header::ALLOW));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn h14_a_stream_that_is_dropped_stops_its_run() {
    let (server, fake) = Server::new(&[]).await;
    fake.hold();
    let request = form().text("stream", "true").request();
    let response = server.app.router().oneshot(request).await.unwrap();
    fake.until_held().await;
    drop(response);
    fake.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    fake.release();
}

#[tokio::test]
async fn i04_pictures_with_too_many_pixels_are_refused_by_their_header() {
    let server = Server::real(&[("MAX_IMAGE_MEGAPIXELS", "1")]).await;
    let large = Image::from_rgb8(1001, 1000, vec![9; 1001 * 1000 * 3]).unwrap();
    let large = large.encode(ImageFormat::Png).unwrap();
    let edit = Form::default().text("prompt", "x").file("images", &large);
    assert_eq!(server.edit(edit).await.code(400), "image_too_large");
    let tag = json!({"images": [base64(&large)], "model": "demo"});
    let answer = server.post("/tagger/v1/interrogate-batch", &tag).await;
    // This dialect has a text only.
    assert_eq!(answer.code(400), "invalid_input");
    assert!(answer.json()["detail"].as_str().unwrap().contains("1001 x 1000 pixels"));
}

async fn accepted(server: &Server) -> String {
    let task = server.edit(form().text("async_process", "true")).await.ok();
    task["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d01_a_job_whose_picture_cannot_be_written_fails_alone() {
    let (server, _) = Server::new(&[]).await;
    let first = server.ended(&accepted(&server).await).await;
    let link = first["result"][0].as_str().unwrap().to_owned();
    let day = link.rsplit('/').nth(1).unwrap().to_owned();
    // A file where the day's folder has to be.
    let (folder, aside) =
        (server.folder.path().join("outputs"), server.folder.path().join("aside"));
    std::fs::rename(folder.join(&day), &aside).unwrap();
    std::fs::write(folder.join(&day), "no folder").unwrap();
    let failed = server.ended(&accepted(&server).await).await;
    assert_eq!(failed["task_status"], "failed");
    assert!(failed["message"].as_str().unwrap().contains("cannot write a picture"), "{failed}");
    std::fs::remove_file(folder.join(&day)).unwrap();
    std::fs::rename(&aside, folder.join(&day)).unwrap();
    let next = server.ended(&accepted(&server).await).await;
    assert_eq!(next["task_status"], "finished");
    assert_eq!(
        std::fs::read_dir(folder.join(&day)).unwrap().count(),
        2,
        "and nothing half-written"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d03_a_locked_database_is_waited_for() {
    let (server, _) = Server::new(&[]).await;
    let other = Connection::open(server.folder.path().join("outputs/db.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let server = Arc::new(server);
    let own = Arc::clone(&server);
    let job = tokio::spawn(async move { accepted(&own).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!job.is_finished());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(server.ended(&job.await.unwrap()).await["task_status"], "finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d08_a_webhook_that_fails_is_called_again_and_redirects_are_not_followed() {
    let (server, _) =
        Server::new(&[("ALLOW_WEBHOOKS", "true"), ("WEBHOOK_HOSTS", "127.0.0.1")]).await;
    let hook = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", hook.local_addr().unwrap());
    let (told, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let mut is_first = true;
    let first = Arc::new(std::sync::Mutex::new(move || std::mem::replace(&mut is_first, false)));
    let receiver = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        told.send(uri.path().to_owned()).ok();
        match (first.lock().unwrap())() {
            true => Err((axum::http::StatusCode::FOUND, [(header::LOCATION, "/elsewhere")])),
            false => Ok(()),
        }
    });
    tokio::spawn(axum::serve(hook, receiver).into_future());
    let job = server.edit(form().text("async_process", "true").text("webhook_url", &url)).await;
    let id = job.ok()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id).await["task_status"], "finished", "whatever the webhook does");
    for _ in 0..2 {
        let call = tokio::time::timeout(Duration::from_secs(30), calls.recv()).await.unwrap();
        assert_eq!(call.unwrap(), "/hook");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn l02_tags_do_not_wait_for_a_long_edit() {
    let server = Server::real(&[]).await;
    let long = form().text("num_inference_steps", "1000").text("async_process", "true");
    let job = server.edit(long).await.ok();
    let task = format!("/tasks/{}", job["task_id"].as_str().unwrap());
    while server.get(&task).await.ok()["task_status"] != "running" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tag = json!({"images": [base64(&png(1))], "model": "demo"});
    server.post("/tagger/v1/interrogate-batch", &tag).await.ok();
    assert_eq!(server.get(&task).await.ok()["task_status"], "running", "it was not waited for");
    server.post(&format!("{task}/cancel"), &Value::Null).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn l03_a_slow_reader_misses_partial_pictures_and_no_finished_one() {
    let server = Server::real(&[]).await;
    let steps = form().text("num_inference_steps", "20").text("n", "2");
    let request = steps.text("stream", "true").text("partial_images", "3").request();
    let response = server.app.router().oneshot(request).await.unwrap();
    // Nothing is read until both are made: one more run that only then begins has ended.
    server.edit(form().text("num_inference_steps", "1")).await.ok();
    let mut events = response.into_body().into_data_stream();
    let mut text = String::new();
    while let Some(part) = events.next().await {
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
    }
    assert_eq!(text.matches("event: image_edit.completed").count(), 2);
    assert!(text.matches("event: image_edit.partial_image").count() < 6, "not those of the past");
}

#[test]
fn every_test_that_the_list_names_exists() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(own.join("FAULTS.md")).unwrap();
    let rows: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("| ")).collect();
    let ids: BTreeSet<_> = rows.iter().filter_map(|row| row.split(' ').next()).collect();
    for (letter, most) in [('H', 17), ('I', 20), ('S', 7), ('D', 10), ('L', 4)] {
        for number in 1..=most {
            assert!(ids.contains(format!("{letter}{number}").as_str()), "{letter}{number}");
        }
    }
    let mut named = 0;
    for name in rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let (file, test) = match name.split_once("::") {
            Some((file, test)) => (file, Some(test)),
            None if name.ends_with(".py") => (name, None),
            None => continue,
        };
        let text =
            std::fs::read_to_string(own.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        if let Some(test) = test {
            let marks = [format!("fn {test}("), format!("test(`{test}"), format!("test(\"{test}")];
            assert!(marks.iter().any(|mark| text.contains(mark.as_str())), "{name}");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
