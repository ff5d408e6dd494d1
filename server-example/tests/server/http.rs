//! The server as such: keys, health, pages, wrong paths.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};

use crate::common::{FakeModels, Server, base64, form};

fn get(path: &str) -> axum::http::request::Builder {
    Request::get(path)
}

#[tokio::test]
async fn everything_but_health_needs_the_key() {
    let (server, _) = Server::new(&[("API_KEY", "secret-key")]).await;
    let basic = |pair: &str| format!("Basic {}", base64(pair.as_bytes()));
    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/v1/models",
        "/tasks",
        "/tasks/x",
        "/tagger/v1/interrogators",
        "/outputs/2026-01-01/a.png",
        "/inputs/a.png",
        "/none",
    ] {
        let refused = server.get(path).await;
        assert_eq!(refused.code(401), "unauthorized", "{path}");
        assert_eq!(refused.headers.get_all(header::WWW_AUTHENTICATE).iter().count(), 2);
        for good in [basic("user:secret-key"), "Bearer secret-key".to_owned()] {
            let request = get(path).header(header::AUTHORIZATION, good).body(Body::empty());
            assert_ne!(server.send(request.unwrap()).await.status.as_u16(), 401, "{path}");
        }
    }
    for path in ["/health", "/ready"] {
        server.get(path).await.ok();
    }
    // The documents' words, and no body is read before: this one would be wrong.
    let wrong =
        Request::post("/v1/images/edits").header(header::AUTHORIZATION, basic("user:wrong"));
    let refused = server.send(wrong.body("garbage".into()).unwrap()).await;
    assert_eq!(refused.json()["detail"]["error"], "UNAUTHORIZED");
    assert_eq!(refused.json()["detail"]["message"], "Invalid username or password");
}

#[tokio::test]
async fn pages_of_other_sites_get_nothing() {
    let (server, _) = Server::new(&[]).await;
    for (path, site, status) in [
        ("/tasks?action=delete&start_at=2020-01-01", "cross-site", 403),
        ("/tasks?action=delete&start_at=2020-01-01", "same-site", 403),
        ("/tasks?action=delete&start_at=2020-01-01", "same-origin", 200),
        ("/tasks", "none", 200),
        ("/", "cross-site", 200),
        ("/docs", "same-site", 200),
    ] {
        let request = get(path).header("sec-fetch-site", site).header("sec-fetch-mode", "navigate");
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {site}");
    }
    let rebound = get("/tasks").header(header::HOST, "evil.example:8000");
    server.send(rebound.body(Body::empty()).unwrap()).await.code(403);
    let own = get("/tasks")
        .header(header::HOST, "127.0.0.1:8000")
        .header("sec-fetch-site", "same-origin");
    server.send(own.body(Body::empty()).unwrap()).await.ok();
}

#[tokio::test]
async fn without_an_edit_model_the_rest_works() {
    // The small model under a wrong name: asked for and not there.
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let vars = [("EDIT_MODEL", "/nowhere/at/all")];
    let config = crate::common::config(folder.path(), &vars);
    let models = Arc::new(server_example::engine::models::RealModels::new(&config));
    let app = server_example::App::start(config, models).unwrap();
    let server = Server { app, folder };
    let edit = loop {
        let ready = server.get("/ready").await;
        assert_eq!(ready.status.as_u16(), 503, "it was asked for");
        let edit = ready.json()["edit"].clone();
        if edit["status"] != "loading" && ready.json()["tagger"]["status"] == "ready" {
            break edit;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(edit["status"], "unavailable");
    let refused = server.edit(form()).await;
    assert_eq!(refused.code(503), "model_not_ready");
    assert_eq!(refused.json()["detail"]["error"], "MODEL_NOT_READY");
    let message = refused.json()["detail"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Model is not ready yet") && message.contains("nowhere"),
        "{message}"
    );
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    server.get("/health").await.ok();
    server.get("/tagger/v1/interrogators").await.ok();
}

#[tokio::test]
async fn the_description_lists_every_route() {
    let (server, _) = Server::new(&[]).await;
    let api = server.get("/openapi.json").await.ok();
    assert!(api["openapi"].as_str().unwrap().starts_with("3."));
    let paths = api["paths"].as_object().unwrap();
    for (path, method) in [
        ("/v1/images/edits", "post"),
        ("/tagger/v1/interrogate-batch", "post"),
        ("/tagger/v1/interrogate", "post"),
        ("/tagger/v1/interrogators", "get"),
        ("/tagger/v1/unload-interrogators", "post"),
        ("/tasks", "get"),
        ("/tasks", "delete"),
        ("/tasks/{id}", "get"),
        ("/tasks/{id}", "delete"),
        ("/tasks/{id}/cancel", "post"),
        ("/v1/engine/generate/", "post"),
        ("/v1/engine/control", "post"),
        ("/v1/engines/all-models", "get"),
        ("/v1/engines/styles", "get"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/v1/models", "get"),
    ] {
        assert!(paths[path].get(method).is_some(), "{method} {path}");
    }
    assert!(api["components"]["schemas"]["EditForm"]["properties"]["prompt"].is_object());
    let models = server.get("/v1/models").await.ok();
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(ids, ["demo", "edit", "fake"]);
}

#[tokio::test]
async fn pages_are_whole_and_ask_nobody_else() {
    let (server, _) = Server::new(&[]).await;
    let mut texts = Vec::new();
    for page in ["/", "/docs"] {
        let answer = server.get(page).await;
        let text = String::from_utf8(answer.body).unwrap();
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        for link in text.split(['"', '\'']).filter(|part| part.starts_with("/assets/")) {
            let asset = server.get(link).await;
            assert_eq!(asset.status.as_u16(), 200, "{link}");
            texts.push(String::from_utf8(asset.body).unwrap());
        }
        texts.push(text);
    }
    assert!(texts.len() >= 6);
    for text in &texts {
        let outside = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "{text:.200}");
    }
    // Every element that the script asks for is on the page.
    let page = texts.iter().find(|text| text.contains("id=\"drop\"")).unwrap();
    let script = texts.iter().find(|text| text.contains("const pictures")).unwrap();
    for name in script.split("$(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
    }
    server.get("/assets/../Cargo.toml").await.code(404);
}

#[tokio::test]
async fn requests_are_counted_and_named() {
    let (server, _) = Server::new(&[]).await;
    server.edit(form()).await.ok();
    let named = get("/health").header("x-request-id", "my-id").body(Body::empty()).unwrap();
    assert_eq!(server.send(named).await.headers["x-request-id"], "my-id");
    let forged = get("/health").header("x-request-id", "a b").body(Body::empty()).unwrap();
    assert_eq!(server.send(forged).await.headers["x-request-id"].len(), 32);
    let text = String::from_utf8(server.get("/metrics").await.body).unwrap();
    for name in [
        "http_requests_total{",
        "http_request_seconds_bucket{",
        "batch_size_bucket{",
        "queue_length{",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    assert!(text.contains("route=\"/v1/images/edits\""));
}

#[tokio::test]
async fn wrong_paths_and_methods_have_errors_in_the_same_form() {
    let (server, _) = Server::new(&[]).await;
    server.get("/nothing").await.code(404);
    server.get("/v1/images/edits").await.code(405);
    for path in [
        "/outputs/..%2f..%2fetc/passwd",
        "/outputs/2026-01-01/%2e%2e%2fdb.sqlite3",
        "/outputs/x/db.sqlite3",
        "/inputs/..%2fa.png",
        "/inputs/C:%5ca.png",
    ] {
        server.get(path).await.code(404);
    }
}

#[tokio::test]
async fn folders_that_cannot_be_written_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("outputs"), "a file").unwrap();
    let config = crate::common::config(folder.path(), &[]);
    let models = Arc::new(FakeModels(Default::default()));
    let error = server_example::App::start(config, models).err().unwrap();
    assert!(error.contains("outputs"), "{error}");
}
