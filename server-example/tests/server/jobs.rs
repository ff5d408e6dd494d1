//! Jobs: the documented forms, the history, cancelling, and what a server leaves to the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use rusqlite::Connection;
use serde_json::{Value, json};
use tagbrush::Image;
use tempfile::TempDir;

use crate::common::{Answer, Fake, FakeModels, Form, Server, form, png};

async fn accepted(server: &Server, form: Form) -> String {
    let task = server.edit(form.text("async_process", "true")).await.ok();
    task["task_id"].as_str().unwrap().to_owned()
}

async fn send(server: &Server, method: &str, path: &str) -> Answer {
    server.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_has_the_documented_forms_on_its_way() {
    let (server, fake) =
        Server::new(&[("EDIT_BATCH", "1"), ("PUBLIC_URL", "http://pictures.example/")]).await;
    fake.hold();
    let first = server.edit(form().text("async_process", "true").text("n", "2")).await.ok();
    let first_id = first["task_id"].as_str().unwrap();
    assert_eq!(
        first,
        json!({"id": -1, "task_id": first_id, "req_params": {}, "in_queue_mills": -1,
            "start_mills": -1, "finish_mills": -1, "task_status": "pending", "progress": -1,
            "preview": "", "webhook_url": "", "result": []})
    );
    assert!(first_id.len() == 32 && first_id.bytes().all(|b| b.is_ascii_hexdigit()));
    fake.until_held().await;
    let second_id = accepted(&server, form()).await;

    let running = server.get(&format!("/tasks/{first_id}")).await.ok();
    assert_eq!(running["task_status"], "running");
    assert_eq!(
        (&running["id"], &running["finish_mills"], &running["result"]),
        (&json!(-1), &json!(-1), &json!([]))
    );
    assert!(running["progress"].is_i64() && running["preview"].is_string());
    assert!(running["start_mills"].as_i64() >= running["in_queue_mills"].as_i64());
    let pending = server.get(&format!("/tasks/{second_id}")).await.ok();
    for field in ["finish_mills", "progress", "result", "start_mills", "task_status"] {
        assert_eq!(pending[field], Value::Null, "{field}");
    }
    assert_eq!((&pending["id"], pending.get("preview")), (&json!(-1), None));
    assert_eq!(pending["req_params"]["prompt"], json!(["make the sky blue"]));
    let input = pending["req_params"]["images"][0].as_str().unwrap();
    let input = input.strip_prefix("http://pictures.example").unwrap();
    assert_eq!(server.get(input).await.body, png(7), "the input is kept under its hash");

    let lists = server.get("/tasks").await.ok();
    let ids = |kind: &str| -> Vec<_> {
        lists[kind]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["task_id"].as_str().unwrap())
            .collect()
    };
    assert_eq!((ids("current"), ids("pending")), (vec![first_id], vec![second_id.as_str()]));
    assert!(ids("history").is_empty());
    fake.release();

    let done = server.ended(first_id).await;
    assert_eq!((&done["task_status"], &done["progress"]), (&json!("finished"), &json!(100)));
    assert!(done["id"].as_i64().unwrap() > 0 && done.get("preview").is_none());
    assert_eq!(done["result"].as_array().unwrap().len(), 2);
    for link in done["result"].as_array().unwrap() {
        let path = link.as_str().unwrap().strip_prefix("http://pictures.example").unwrap();
        let answer = server.get(path).await;
        assert_eq!(answer.headers["content-type"], "image/png");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(Image::decode(&answer.body).unwrap().width(), 32);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_are_paged_and_of_ranges_and_can_be_deleted() {
    let (server, fake) = Server::new(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(accepted(&server, form()).await);
        server.ended(ids.last().unwrap()).await;
    }
    let history = async |query: &str| -> Vec<String> {
        let lists = server.get(&format!("/tasks?{query}")).await.ok();
        assert_eq!(
            lists.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["history", "current", "pending"]
        );
        let tasks = lists["history"].as_array().unwrap().iter();
        tasks.map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    };
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(history("").await, newest_first);
    assert_eq!(history("query=history&page=1&page_size=2").await, newest_first[2..4]);
    assert!(history("query=current").await.is_empty());
    assert_eq!(history("query=history&start_at=2024-07-03T12:22:30").await, ids);
    assert!(history("query=history&start_at=2099-01-01T00:00:00Z").await.is_empty());
    for wrong in [
        "page=-1",
        "page=x",
        "page_size=0",
        "page_size=1000000000",
        "start_at=garbage",
        "query=x",
        "action=drop",
        "action=delete",
        "action=delete&query=all&start_at=2024-01-01",
        "pages=1",
    ] {
        server.get(&format!("/tasks?{wrong}")).await.code(400);
    }
    for unknown in ["x", "0123456789abcdef0123456789abcdef", "'%20OR%201=1", "..%2f..%2fetc"] {
        server.get(&format!("/tasks/{unknown}")).await.code(404);
    }
    let file = server.get(&format!("/tasks/{}", ids[0])).await.ok()["result"][0].clone();
    let file = file.as_str().unwrap().split_once("/outputs").unwrap().1.to_owned();
    assert_eq!(server.get(&format!("/outputs{file}")).await.status, 200);
    // One that runs is not deleted.
    fake.hold();
    let running = accepted(&server, form()).await;
    fake.until_held().await;
    assert_eq!(send(&server, "DELETE", &format!("/tasks/{}", ids[4])).await.status, 200);
    let deleted =
        server.get("/tasks?query=history&start_at=2024-07-03T12:22:30&action=delete").await;
    assert_eq!(deleted.ok(), json!({"history": [], "current": [], "pending": []}));
    assert!(history("").await.is_empty());
    assert_eq!(server.get(&format!("/outputs{file}")).await.status, 404);
    fake.release();
    assert_eq!(server.ended(&running).await["task_status"], "finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_are_cancelled_while_they_wait_and_while_they_run() {
    let (server, fake) = Server::new(&[("EDIT_BATCH", "1")]).await;
    fake.hold();
    let running = accepted(&server, form()).await;
    fake.until_held().await;
    let waiting = accepted(&server, form()).await;
    send(&server, "DELETE", &format!("/tasks/{waiting}")).await.ok();
    send(&server, "POST", &format!("/tasks/{running}/cancel")).await.ok();
    for id in [&running, &waiting] {
        let task = server.ended(id).await;
        assert_eq!(task["task_status"], "canceled");
        assert_eq!(task["result"], json!([]));
    }
    fake.until(|fake| fake.cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(fake.calls.lock().unwrap().len(), 1, "the waiting one never ran");
    fake.release();
    let failed =
        accepted(&server, Form::default().text("prompt", "fail").file("images", &png(1))).await;
    let failed = server.ended(&failed).await;
    assert_eq!(failed["task_status"], "failed");
    assert_eq!(failed["message"], "Image generation failed: CUDA out of memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn webhooks_are_refused_where_they_may_not_go() {
    let (server, _) = Server::new(&[]).await;
    let form = form().text("async_process", "true");
    let answer = server.edit(form.clone().text("webhook_url", "https://example.com/")).await;
    assert_eq!(answer.json()["error"]["param"], "webhook_url", "they are off");
    let (server, _) = Server::new(&[("ALLOW_WEBHOOKS", "true")]).await;
    for url in ["http://169.254.169.254/", "https://[::ffff:127.0.0.1]/", "file:///etc/passwd"] {
        server.edit(form.clone().text("webhook_url", url)).await.code(400);
    }
    assert_eq!(server.get("/tasks").await.ok()["pending"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_webhook_tells_the_end_of_a_job() {
    let vars =
        [("ALLOW_WEBHOOKS", "true"), ("WEBHOOK_HOSTS", "127.0.0.1"), ("WEBHOOK_SECRET", "s")];
    let (server, _) = Server::new(&vars).await;
    let hook = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", hook.local_addr().unwrap());
    let (told, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let receiver = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |headers: axum::http::HeaderMap, body: String| async move {
            told.send((headers, body)).ok();
        }),
    );
    tokio::spawn(axum::serve(hook, receiver).into_future());
    let id = accepted(&server, form().text("webhook_url", &url)).await;
    let call = tokio::time::timeout(Duration::from_secs(30), calls.recv()).await.unwrap();
    let (headers, body) = call.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["task_id"], &body["task_status"]), (&json!(id), &json!("finished")));
    assert!(headers["x-tagbrush-signature"].to_str().unwrap().starts_with("sha256="));
}

async fn next_server(fake: &Arc<Fake>, folder: &Arc<TempDir>) -> Server {
    Server::with(&[], Arc::new(FakeModels(Arc::clone(fake))), Arc::clone(folder)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopped_server_leaves_its_jobs_to_the_next_one() {
    let (server, fake) = Server::new(&[("EDIT_BATCH", "1"), ("GRACE_S", "0")]).await;
    let folder = Arc::clone(&server.folder);
    let done = accepted(&server, form()).await;
    server.ended(&done).await;
    fake.hold();
    let running = accepted(&server, form().text("seed", "9")).await;
    fake.until_held().await;
    let waiting = accepted(&server, form().text("seed", "10")).await;
    server.app.stop().await;
    let refused = server.edit(form()).await;
    assert_eq!(refused.status.as_u16(), 503, "it takes nothing more");
    drop(server);
    fake.release();
    let server = next_server(&fake, &folder).await;
    for (id, seed) in [(&running, 9), (&waiting, 10)] {
        let task = server.ended(id).await;
        assert_eq!(task["task_status"], "finished");
        let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1;
        let picture = Image::decode(&server.get(&format!("/outputs{path}")).await.body).unwrap();
        assert_eq!(picture.pixels()[1], seed, "its own picture");
    }
    let lists = server.get("/tasks").await.ok();
    assert_eq!(lists["history"].as_array().unwrap().len(), 3, "none lost, none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_keeps_ending_the_server_is_given_up() {
    let (server, fake) = Server::new(&[("GRACE_S", "0")]).await;
    let folder = Arc::clone(&server.folder);
    fake.hold();
    let id = accepted(&server, form()).await;
    fake.until_held().await;
    server.app.stop().await;
    // What a kill leaves behind: a row that was begun and did not end. Here it was so three times.
    let db = Connection::open(folder.path().join("outputs/db.sqlite3")).unwrap();
    db.execute("UPDATE tasks SET attempts = 3", []).unwrap();
    // And one whose input is gone.
    db.execute(
        "INSERT INTO tasks (task_id, req_params, in_queue_mills) SELECT 'gone', \
         replace(req_params, 'inputs/', 'inputs/0'), 1 FROM tasks",
        [],
    )
    .unwrap();
    let after = next_server(&Arc::new(Fake::default()), &folder).await;
    for (id, why) in [(id.as_str(), "3 times"), ("gone", "cannot be read")] {
        let task = after.ended(id).await;
        assert_eq!(task["task_status"], "failed");
        assert!(task["message"].as_str().unwrap().contains(why), "{task}");
    }
}
