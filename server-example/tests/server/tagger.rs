//! The tagger's endpoints: their documented form, wrong requests, and merged ones.

use std::time::Duration;

use crate::common::{Server, base64, png};
use serde_json::{Value, json};
use tagbrush::{TagOptions, Tagger, Tags};

const BATCH: &str = "/tagger/v1/interrogate-batch";

fn batch(images: &[Vec<u8>], threshold: f64) -> Value {
    let images: Vec<_> = images.iter().map(|image| base64(image)).collect();
    json!({"images": images, "model": "demo", "threshold": threshold})
}

/// Tags as a client reads them.
fn json_of(tags: &Tags) -> Value {
    serde_json::from_str(&serde_json::to_string(tags).unwrap()).unwrap()
}

#[tokio::test]
async fn a_batch_is_answered_as_documented_with_the_librarys_own_tags() {
    let (server, _) = Server::new(&[]).await;
    let images = [png(1), png(2), png(3)];
    let answer = server.post(BATCH, &batch(&images, 0.1)).await.ok();
    let tagger = Tagger::load("demo", &Default::default()).unwrap();
    let captions = answer["captions"].as_array().unwrap();
    assert_eq!(captions.len(), 3);
    for (caption, image) in captions.iter().zip(images) {
        let expected = tagger.tag(image, &TagOptions::default().threshold(0.1)).unwrap();
        assert_eq!(*caption, json_of(&expected));
        assert!(!caption["ratings"].as_object().unwrap().is_empty());
    }
    assert!(answer.get("errors").is_none(), "only what is documented");
}

#[tokio::test]
async fn the_threshold_is_0_unless_set_and_never_applied_to_ratings() {
    let (server, _) = Server::new(&[]).await;
    let mut request = batch(&[png(1)], 0.99);
    let few = server.post(BATCH, &request).await.ok();
    request.as_object_mut().unwrap().remove("threshold");
    let all = server.post(BATCH, &request).await.ok();
    let count = |answer: &Value, kind: &str| answer["captions"][0][kind].as_object().unwrap().len();
    assert!(count(&all, "tags") > count(&few, "tags"));
    assert_eq!(count(&all, "ratings"), count(&few, "ratings"));
}

#[tokio::test]
async fn data_urls_are_pictures_too() {
    let (server, _) = Server::new(&[]).await;
    let bare = server.post(BATCH, &batch(&[png(5)], 0.1)).await.ok();
    let url = format!("data:image/png;base64,{}", base64(&png(5)));
    let request = json!({"images": [url], "model": "demo", "threshold": 0.1});
    assert_eq!(server.post(BATCH, &request).await.ok(), bare);
}

#[tokio::test]
async fn the_classic_endpoints_answer_in_their_forms() {
    let (server, _) = Server::new(&[]).await;
    let request = json!({"image": base64(&png(4)), "model": "demo", "threshold": 0.1, "queue": ""});
    let one = server.post("/tagger/v1/interrogate", &request).await.ok();
    let batch = server.post(BATCH, &batch(&[png(4)], 0.1)).await.ok();
    assert_eq!(one["caption"]["rating"], batch["captions"][0]["ratings"]);
    let tags = one["caption"]["tag"].as_object().unwrap();
    for kind in ["characters", "tags"] {
        for (name, score) in batch["captions"][0][kind].as_object().unwrap() {
            assert_eq!(&tags[name], score);
        }
    }
    let queued = json!({"image": base64(&png(4)), "model": "demo", "queue": "a"});
    assert_eq!(
        server.post("/tagger/v1/interrogate", &queued).await.code(400),
        "unsupported_parameter"
    );
    assert_eq!(server.get("/tagger/v1/interrogators").await.ok(), json!({"models": ["demo"]}));
    let unloaded = server.post("/tagger/v1/unload-interrogators", &json!({})).await.ok();
    assert_eq!(unloaded, "Successfully unload 1 model(s)");
    // The next request loads it again.
    server.post("/tagger/v1/interrogate", &request).await.ok();
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (server, fake) = Server::new(&[("MAX_TAG_IMAGES", "2")]).await;
    let good = base64(&png(1));
    for (request, status, expected) in [
        (json!({"images": [], "model": "demo"}), 400, "No images provided"),
        (json!({"images": [good, good, good], "model": "demo"}), 400, "at most 2"),
        (json!({"images": [good], "model": "../../etc"}), 404, "Model not found"),
        (json!({"images": [good], "model": "wd14-vit-v2"}), 404, "in no local cache"),
        (json!({"images": [good]}), 400, "model"),
        (json!({"images": [good], "model": "demo", "threshold": "x"}), 400, "threshold"),
        (json!({"images": [good], "model": "demo", "threshold": -1}), 400, "threshold"),
        (json!({"images": [good], "model": "demo", "treshold": 1}), 400, "treshold"),
        (json!({"images": [good, "%%%"], "model": "demo"}), 400, "index=1"),
        (json!({"images": [good, ""], "model": "demo"}), 400, "Empty image data"),
        (json!({"images": [good, base64(b"no picture")], "model": "demo"}), 400, "index=1"),
        (json!({"images": [base64(b"<svg/>")], "model": "demo"}), 400, "SVG"),
        (json!([]), 400, "wrong"),
    ] {
        let answer = server.post(BATCH, &request).await;
        answer.code(status);
        // The tagger's API has a text there.
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{detail}");
    }
    // JSON that is deep, or none at all.
    let deep = "[".repeat(100_000);
    for body in [deep.as_str(), "", "\u{0}", "{"] {
        let request = axum::http::Request::post(BATCH).body(body.to_owned().into()).unwrap();
        server.send(request).await.code(400);
    }
    assert!(fake.calls.lock().unwrap().iter().all(|inputs| *inputs <= 2));
}

#[tokio::test]
async fn a_bad_picture_may_be_skipped() {
    let (server, _) = Server::new(&[]).await;
    let alone = server.post(BATCH, &batch(&[png(1)], 0.1)).await.ok();
    let (good, bad) = (base64(&png(1)), base64(b"no picture"));
    let request = json!({"images": [bad, good, "%", good], "model": "demo", "threshold": 0.1,
        "on_error": "skip"});
    let answer = server.post(BATCH, &request).await.ok();
    for i in [1, 3] {
        assert_eq!(answer["captions"][i], alone["captions"][0]);
    }
    let failed: Vec<_> = answer["errors"].as_array().unwrap().iter().map(|e| &e["index"]).collect();
    assert_eq!(failed, [0, 2]);
    assert!(answer["captions"][0]["tags"].as_object().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_share_batches_and_get_their_own_answers() {
    let (server, fake) = Server::new(&[("TAG_BATCH", "16"), ("TAG_DELAY_MS", "20")]).await;
    let server = std::sync::Arc::new(server);
    let tagger = Tagger::load("demo", &Default::default()).unwrap();
    // Every client has pictures and a threshold of its own.
    let clients = (0..40u8).map(|client| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            let images: Vec<_> = (0..=client % 4).map(|i| png(client * 4 + i)).collect();
            let threshold = f64::from(client % 10) / 20.0;
            (images.clone(), threshold, server.post(BATCH, &batch(&images, threshold)).await.ok())
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut pictures = 0;
    for client in clients {
        let (images, threshold, answer) = client.await.unwrap();
        pictures += images.len();
        assert_eq!(answer["captions"].as_array().unwrap().len(), images.len());
        for (caption, image) in answer["captions"].as_array().unwrap().iter().zip(images) {
            let options = TagOptions::default().threshold(threshold as f32);
            let expected = tagger.tag(image, &options).unwrap();
            assert_eq!(*caption, json_of(&expected));
        }
    }
    let calls = fake.calls.lock().unwrap().clone();
    assert_eq!(calls.iter().sum::<usize>(), pictures, "every picture is computed once");
    assert!(calls.iter().all(|inputs| *inputs <= 16), "{calls:?}");
    assert!(calls.len() <= pictures / 3, "{} batches for {pictures} pictures", calls.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_refuses_and_keeps_what_it_has() {
    let (server, fake) = Server::new(&[("TAG_QUEUE", "2"), ("TAG_BATCH", "1")]).await;
    let server = std::sync::Arc::new(server);
    fake.hold();
    let ask = |number: u8| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move { server.post(BATCH, &batch(&[png(number)], 0.1)).await })
    };
    let running = ask(0);
    fake.until_held().await;
    let mut waiting = Vec::new();
    for number in [1, 2] {
        waiting.push(ask(number));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let refused = server.post(BATCH, &batch(&[png(3)], 0.1)).await;
    assert_eq!(refused.code(429), "queue_full");
    assert!(refused.headers.contains_key("retry-after"));
    // Before anything is done for it: nobody has seen that this is no picture.
    server.post(BATCH, &json!({"images": ["%"], "model": "demo"})).await.code(429);
    fake.release();
    running.await.unwrap().ok();
    for answer in waiting {
        answer.await.unwrap().ok();
    }
    server.post(BATCH, &batch(&[png(3)], 0.1)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pictures_of_clients_that_left_are_not_computed() {
    let (server, fake) = Server::new(&[("TAG_BATCH", "1")]).await;
    let server = std::sync::Arc::new(server);
    fake.hold();
    let ask = |images: Vec<Vec<u8>>| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move { server.post(BATCH, &batch(&images, 0.1)).await })
    };
    let stays = ask(vec![png(0)]);
    fake.until_held().await;
    let leaves = ask((1..20).map(png).collect());
    tokio::time::sleep(Duration::from_millis(100)).await;
    leaves.abort();
    assert!(leaves.await.is_err());
    fake.release();
    stays.await.unwrap().ok();
    server.post(BATCH, &batch(&[png(30)], 0.1)).await.ok();
    assert_eq!(fake.calls.lock().unwrap().len(), 2, "one for each client that stayed");
}
