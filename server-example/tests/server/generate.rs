//! `/v1/engine/...` with a fast model that makes its steps when it is let: parameters, the three forms of
//! answers, stop and skip, and tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tagbrush::{Image, Outpaint, Performance, SamplerKind};
use tower::ServiceExt;

use crate::common::{Answer, Fake, FakeModels, Server, base64, png};

const PATH: &str = "/v1/engine/generate/";

pub(crate) async fn generate(server: &Server, body: &Value) -> Answer {
    server.post(PATH, body).await
}

/// The fields that are refused, with FastAPI's types of errors.
#[track_caller]
pub(crate) fn refused(answer: &Answer) -> HashMap<String, String> {
    assert_eq!(answer.status, 422, "{}", String::from_utf8_lossy(&answer.body));
    let json = answer.json();
    let all = json["detail"].as_array().unwrap().iter();
    all.map(|one| {
        assert!(one["msg"].is_string() && one.get("input").is_some(), "{one}");
        let loc: Vec<_> = one["loc"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| match part {
                Value::String(text) => text.clone(),
                number => number.to_string(),
            })
            .collect();
        assert_eq!(loc[0], "body");
        (loc[1..].join("."), one["type"].as_str().unwrap().to_owned())
    })
    .collect()
}

pub(crate) async fn accepted(server: &Server, mut body: Value) -> String {
    body["async_process"] = json!(true);
    let task = generate(server, &body).await.ok();
    task["task_id"].as_str().unwrap().to_owned()
}

pub(crate) async fn control(server: &Server, action: &str) -> String {
    let path = format!("/v1/engine/control?action={action}");
    let answer = server.send(Request::post(path).body(Body::empty()).unwrap()).await.ok();
    answer["message"].as_str().unwrap().to_owned()
}

/// The frames of a stream, each checked for its form.
fn frames(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let frames = text.split_terminator("\r\n\r\n").map(|frame| {
        let line = frame.strip_suffix("\r\ndata: ").unwrap().strip_prefix("data: ").unwrap();
        assert!(line.starts_with("{\"progress\": ") && line.contains(", \"preview\": "), "{line}");
        serde_json::from_str(line).unwrap()
    });
    frames.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_answer_is_a_picture_unless_something_else_is_asked_for() {
    let (server, fake) = Server::new(&[]).await;
    for path in [PATH, "/v1/engine/generate"] {
        // As the document's examples send it: without a type.
        let body = json!({"prompt": "a cat", "image_seed": 7, "image_number": 4}).to_string();
        let answer = server.send(Request::post(path).body(body.into()).unwrap()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "image/png");
        let image = Image::decode(&answer.body).unwrap();
        assert_eq!(image.pixels()[..3], [b'a', 7, 0]);
        let id = answer.headers["x-task-id"].to_str().unwrap();
        let task = server.get(&format!("/tasks/{id}")).await.ok();
        assert_eq!(task["task_status"], "finished");
        assert_eq!(task["req_params"]["image_number"], 1, "one picture, whatever is asked for");
        assert_eq!(task["result"].as_array().unwrap().len(), 1);
    }
    let answer = generate(&server, &json!({"output_format": "jpeg"})).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "image/jpeg");
    assert_eq!(answer.body[..2], [0xFF, 0xD8]);
    assert_eq!(fake.calls.lock().unwrap().len(), 3);
    let answer = generate(&server, &json!({"prompt": "fail"})).await;
    assert_eq!(answer.status, 500);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("out of memory"));
    let answer = generate(&server, &json!({"prompt": "break"})).await;
    assert_eq!(answer.status, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_tells_the_documented_story() {
    let (server, fake) = Server::new(&[("PUBLIC_URL", "http://pictures.example")]).await;
    fake.allow(0);
    let body = json!({"prompt": "ä", "performance_selection": "Lightning", "stream_output": true,
        "style_selections": [], "loras": [], "base_model_name": "fake", "image_seed": 5,
        "save_metadata_to_images": false});
    let request = Request::post(PATH).body(Body::from(body.to_string())).unwrap();
    let response = server.app.router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream; charset=utf-8");
    let id = response.headers()["x-task-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let mut told = Vec::new();
    // One step after the other, so that none is newer than the one that is told.
    while let Some(frame) = body.frame().await {
        let found = frames(&frame.unwrap().into_data().unwrap());
        assert_eq!(found.len(), 1, "each is sent alone");
        let is_step = found[0]["message"].as_str().unwrap().starts_with("Sampling");
        assert_eq!(found[0]["preview"].is_string(), is_step);
        if found[0]["message"].as_str().unwrap().starts_with("Preparing") || is_step {
            fake.allow(1);
        }
        told.extend(found);
    }
    let story: Vec<_> = told
        .iter()
        .map(|frame| (frame["progress"].as_i64().unwrap(), frame["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        story,
        [
            (2, "Loading models ..."),
            (13, "Preparing task 1/1 ..."),
            (13, "Sampling step 1/4, image 1/1 ..."),
            (34, "Sampling step 2/4, image 1/1 ..."),
            (56, "Sampling step 3/4, image 1/1 ..."),
            (78, "Sampling step 4/4, image 1/1 ..."),
            (100, "Saving image 1/1 to system ..."),
            (100, "Finished"),
        ]
    );
    let preview = told[2]["preview"].as_str().unwrap();
    assert!(preview.starts_with("data:image/png;base64,iVBORw0KGgo"), "{preview}");
    let link = told[7]["images"][0].as_str().unwrap();
    assert!(link.starts_with("http://pictures.example/outputs/2"), "{link}");
    assert_eq!(server.get(&format!("/tasks/{id}")).await.ok()["result"], told[7]["images"]);
    assert!(told[..7].iter().all(|frame| frame["images"] == json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_says_what_was_left_out_and_what_failed() {
    let (server, _) = Server::new(&[]).await;
    let body = json!({"stream_output": true, "prompt": "fail", "disable_preview": true});
    let told = frames(&generate(&server, &body).await.body);
    let note = told[0]["message"].as_str().unwrap();
    assert!(note.starts_with("Note: ") && note.contains("`Fooocus V2` is left out"), "{note}");
    assert!(told.iter().all(|frame| frame["preview"].is_null()));
    let last = told.last().unwrap();
    assert_eq!((&last["progress"], &last["images"]), (&json!(100), &json!([])));
    assert!(last["message"].as_str().unwrap().starts_with("Failed: "), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_has_the_documented_forms_on_its_way() {
    let vars = [("GENERATE_BATCH", "1"), ("PUBLIC_URL", "http://pictures.example")];
    let (server, fake) = Server::new(&vars).await;
    fake.allow(0);
    let body = json!({"prompt": "a", "async_process": true, "image_number": 2, "image_seed": 3,
        "performance_selection": "Lightning"});
    let answer = generate(&server, &body).await;
    let id = answer.ok()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(
        answer.json(),
        json!({"id": -1, "task_id": id, "req_params": {}, "in_queue_mills": -1,
            "start_mills": -1, "finish_mills": -1, "task_status": "pending", "progress": -1,
            "preview": "", "webhook_url": "", "result": []})
    );
    let waiting = accepted(&server, json!({"prompt": "b", "image_seed": -1})).await;
    fake.allow(3);
    fake.until(|fake| fake.steps_made.load(Ordering::SeqCst) >= 3).await;
    let running = loop {
        let task = server.get(&format!("/tasks/{id}")).await.ok();
        if task["preview"].as_str().is_some_and(|preview| !preview.is_empty()) {
            break task;
        }
    };
    assert_eq!(running["task_status"], "running");
    assert_eq!((&running["finish_mills"], &running["result"]), (&json!(-1), &json!([])));
    assert!(running["preview"].as_str().unwrap().starts_with("iVBORw0KGgo"), "no data URL here");
    let pending = server.get(&format!("/tasks/{waiting}")).await.ok();
    for field in ["finish_mills", "progress", "result", "start_mills", "task_status"] {
        assert_eq!(pending[field], Value::Null, "{field}");
    }
    assert_eq!(pending["id"], -1);
    assert!(pending["req_params"]["image_seed"].as_i64().unwrap() >= 0, "the one that was drawn");
    let lists = server.get("/tasks").await.ok();
    assert_eq!(lists["current"][0]["task_id"], json!(id));
    assert_eq!(lists["pending"][0]["task_id"], json!(waiting));
    fake.allow(1000);
    let task = server.ended(&id).await;
    assert!(task["id"].as_i64().unwrap() > 0 && task.get("preview").is_none());
    assert_eq!((&task["task_status"], &task["progress"]), (&json!("finished"), &json!(100)));
    let links = task["result"].as_array().unwrap();
    for (i, link) in links.iter().enumerate() {
        let path = link.as_str().unwrap().strip_prefix("http://pictures.example").unwrap();
        let image = Image::decode(&server.get(path).await.body).unwrap();
        assert_eq!(image.pixels()[..2], [b'a', 3 + i as u8], "the next picture has the next seed");
    }
    assert_eq!(links.len(), 2);
    let params = task["req_params"].as_object().unwrap();
    assert_eq!(params["performance_selection"], "Lightning");
    assert!(task["message"].as_str().unwrap().contains("Fooocus V2"), "{task}");
    server.ended(&waiting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_running_task_is_skipped_and_stopped() {
    let (server, fake) = Server::new(&[("GENERATE_BATCH", "1")]).await;
    assert_eq!(control(&server, "stop").await, "No task running");
    assert_eq!(control(&server, "halt").await, "Invalid control action");
    let missing = server.send(Request::post("/v1/engine/control").body(Body::empty()).unwrap());
    let missing = missing.await;
    assert_eq!(missing.status, 422);
    assert_eq!(missing.json()["detail"][0]["loc"], json!(["query", "action"]));
    fake.allow(0);
    let body = json!({"prompt": "a", "image_number": 4, "performance_selection": "Lightning"});
    let first = accepted(&server, body.clone()).await;
    let second = accepted(&server, body).await;
    // A picture and a step of the next one, which is skipped.
    fake.allow(5);
    let at = async |steps: usize, path: &str| loop {
        let task = server.get(path).await.ok();
        let made = fake.steps_made.load(Ordering::SeqCst);
        if made >= steps && task["task_status"] == "running" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    at(5, &format!("/tasks/{first}")).await;
    assert_eq!(control(&server, "skip").await, "task skiped");
    fake.allow(8);
    let task = server.ended(&first).await;
    assert_eq!(task["task_status"], "finished");
    assert_eq!(task["result"].as_array().unwrap().len(), 3, "the others are there");
    fake.allow(6);
    at(20, &format!("/tasks/{second}")).await;
    assert_eq!(control(&server, "stop").await, "task stoped");
    let task = server.ended(&second).await;
    assert_eq!(task["task_status"], "stop");
    assert_eq!(task["result"].as_array().unwrap().len(), 1, "what it made is kept");
    let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1;
    assert_eq!(server.get(&format!("/outputs{path}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_goes_takes_its_task_along() {
    let (server, fake) = Server::new(&[("GENERATE_BATCH", "1")]).await;
    fake.allow(0);
    for body in [json!({"prompt": "a"}), json!({"prompt": "a", "stream_output": true})] {
        let asking = tokio::spawn({
            let (app, body) = (server.app.clone(), body.to_string());
            async move {
                let request = Request::post(PATH).body(Body::from(body)).unwrap();
                let response = app.router().oneshot(request).await.unwrap();
                response.into_body().collect().await.unwrap()
            }
        });
        let current = loop {
            let lists = server.get("/tasks?query=current").await.ok();
            if let Some(task) = lists["current"].get(0) {
                break task["task_id"].as_str().unwrap().to_owned();
            }
        };
        asking.abort();
        assert_eq!(server.ended(&current).await["task_status"], "canceled");
    }
    fake.until(|fake| fake.calls.lock().unwrap().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_are_left_to_the_next_server_unless_somebody_waited() {
    let (server, fake) = Server::new(&[("GENERATE_BATCH", "1"), ("GRACE_S", "0")]).await;
    let folder = Arc::clone(&server.folder);
    fake.allow(0);
    let image = base64(&png(3));
    let body = json!({"prompt": "a", "image_seed": 9, "uov_method": "Vary (Subtle)",
        "uov_input_image": image});
    let running = accepted(&server, body).await;
    let waiting = accepted(&server, json!({"prompt": "b", "image_seed": 8})).await;
    let attended = tokio::spawn({
        let app = server.app.clone();
        async move {
            let request = Request::post(PATH).body(Body::from(json!({"prompt": "c"}).to_string()));
            app.router().oneshot(request.unwrap()).await.unwrap().status()
        }
    });
    while server.get("/tasks").await.ok()["pending"].as_array().unwrap().len() < 2 {}
    server.app.stop().await;
    assert_eq!(attended.await.unwrap(), 503);
    drop(server);
    let fake = Arc::new(Fake::default());
    let models = Arc::new(FakeModels(Arc::clone(&fake)));
    let server = Server::with(&[], models, folder).await;
    for (id, colour) in [(&running, [b'a', 9]), (&waiting, [b'b', 8])] {
        let task = server.ended(id).await;
        assert_eq!(task["task_status"], "finished");
        let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1;
        let picture = Image::decode(&server.get(&format!("/outputs{path}")).await.body).unwrap();
        assert_eq!(picture.pixels()[..2], colour, "its own picture");
    }
    let history = server.get("/tasks").await.ok()["history"].clone();
    let states: Vec<_> =
        history.as_array().unwrap().iter().map(|task| &task["task_status"]).collect();
    assert_eq!(states, ["canceled", "finished", "finished"], "nobody waits for the last one");
    // Its picture is an address that can be sent again.
    let task = server.get(&format!("/tasks/{running}")).await.ok();
    let link = task["req_params"]["uov_input_image"].as_str().unwrap();
    let kept = server.get(link.strip_prefix("http://127.0.0.1:8000").unwrap()).await;
    assert_eq!(kept.body, png(3));
    let body = json!({"uov_method": "Vary (Subtle)", "uov_input_image": link});
    assert_eq!(generate(&server, &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inpaint_engines_are_taken_where_their_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().display().to_string();
    let (server, fake) = Server::new(&[("GENERATE_MODELS_DIR", &models)]).await;
    let picture = base64(&png(1));
    let body = |engine: Option<&str>| {
        let mut body =
            json!({"inpaint_input_image": picture, "inpaint_mask_image_upload": picture});
        if let Some(engine) = engine {
            body["inpaint_engine"] = json!(engine);
        }
        body
    };
    for engine in ["v1", "v2.5", "v2.6"] {
        let answer = generate(&server, &body(Some(engine))).await;
        assert_eq!(answer.status, 422, "{engine}");
        assert_eq!(refused(&answer)["inpaint_engine"], "value_error");
        assert!(answer.json().to_string().contains("fooocus_inpaint_head.pth"));
    }
    let inpaint = folder.path().join("inpaint");
    std::fs::create_dir(&inpaint).unwrap();
    for name in ["fooocus_inpaint_head.pth", "inpaint_v26.fooocus.patch"] {
        std::fs::write(inpaint.join(name), "").unwrap();
    }
    let files =
        Some((inpaint.join("fooocus_inpaint_head.pth"), inpaint.join("inpaint_v26.fooocus.patch")));
    for (engine, expected) in [(Some("v2.6"), files.clone()), (None, files), (Some("None"), None)] {
        assert_eq!(generate(&server, &body(engine)).await.status, 200);
        let setup = fake.setups.lock().unwrap().pop().unwrap();
        assert_eq!((setup.inpaint, setup.makes_parts), (expected, true), "{engine:?}");
    }
    assert_eq!(generate(&server, &body(Some("v1"))).await.status, 422, "its patch is not there");
    assert_eq!(generate(&server, &json!({"inpaint_engine": "v1"})).await.status, 200);
    assert!(!fake.setups.lock().unwrap().pop().unwrap().makes_parts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pictures_are_made_larger_in_the_steps_and_strength_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().display().to_string();
    let (server, fake) = Server::new(&[("GENERATE_MODELS_DIR", &models)]).await;
    let ask = async |more: Value| {
        let mut body = json!({"uov_input_image": base64(&png(1))});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let task = server.ended(&accepted(&server, body).await).await;
        let options = fake.setups.lock().unwrap().pop().unwrap().options;
        let upscale = fake.requests.lock().unwrap().pop().unwrap()[0].upscale.unwrap();
        (upscale.to_string(), options.steps, options.upscale_strength, task)
    };
    let (name, steps, strength, task) = ask(json!({"uov_method": "Upscale (1.5x)"})).await;
    assert_eq!((name.as_str(), steps, strength), ("Upscale (1.5x)", 18, 0.382));
    let message = |task: &Value| task["message"].as_str().unwrap_or_default().to_owned();
    assert!(message(&task).contains("resampled (Lanczos)"), "{task}");
    std::fs::create_dir(folder.path().join("upscale_models")).unwrap();
    std::fs::write(folder.path().join("upscale_models/a.pth"), "").unwrap();
    let custom = json!({"uov_method": "Upscale (Custom)", "upscale_multiple": 3.5,
        "overwrite_upscale_strength": 0.2, "performance_selection": "Quality"});
    let (name, steps, strength, task) = ask(custom).await;
    assert_eq!((name.as_str(), steps, strength), ("Upscale (3.5x)", 36, 0.2));
    assert!(!message(&task).contains("resampled"), "{task}");
    let fast = json!({"uov_method": "Upscale (Fast 2x)", "overwrite_step": 7});
    let (name, steps, ..) = ask(fast).await;
    assert_eq!((name.as_str(), steps), ("Upscale (Fast 2x)", 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_refuses() {
    let vars = [("GENERATE_BATCH", "1"), ("GENERATE_QUEUE", "2")];
    let (server, fake) = Server::new(&vars).await;
    fake.allow(0);
    accepted(&server, json!({"prompt": "a"})).await;
    fake.until(|fake| fake.calls.lock().unwrap().len() == 1).await;
    for _ in 0..2 {
        accepted(&server, json!({"prompt": "b"})).await;
    }
    let full = generate(&server, &json!({"prompt": "c"})).await;
    assert_eq!(full.code(429), "queue_full");
    assert!(full.headers.contains_key(header::RETRY_AFTER));
    fake.allow(100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_with_equal_options_share_a_run() {
    let (server, fake) = Server::new(&[]).await;
    fake.allow(0);
    let first = accepted(&server, json!({"prompt": "a"})).await;
    fake.until(|fake| fake.calls.lock().unwrap().len() == 1).await;
    let mut ids = Vec::new();
    for (i, prompt) in ["x", "y", "z"].iter().enumerate() {
        let sharpness = if i == 1 { 5.0 } else { 2.0 };
        let body = json!({"prompt": prompt, "image_seed": i, "sharpness": sharpness});
        ids.push(accepted(&server, body).await);
    }
    fake.allow(100_000);
    for (i, id) in ids.iter().enumerate() {
        let task = server.ended(id).await;
        let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1;
        let picture = Image::decode(&server.get(&format!("/outputs{path}")).await.body).unwrap();
        assert_eq!(picture.pixels()[..2], [b"xyz"[i], i as u8]);
    }
    server.ended(&first).await;
    assert_eq!(*fake.calls.lock().unwrap(), [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parameters_reach_the_model() {
    let (server, fake) = Server::new(&[]).await;
    let image = base64(&png(1));
    let body = json!({"prompt": "a cat", "negative_prompt": "dogs", "style_selections": [],
        "aspect_ratios_selection": "1024×1024", "guidance_scale": 5, "sharpness": "3.5",
        "adaptive_cfg": 8.0, "clip_skip": 1, "sampler_name": "euler", "scheduler_name": "normal",
        "overwrite_step": 12, "overwrite_height": 512, "adm_scaler_positive": 1.25,
        "freeu_enabled": true, "freeu_b1": 1.3, "inpaint_input_image": image,
        "inpaint_mask_image_upload": format!("data:image/png;base64,{image}"),
        "inpaint_additional_prompt": "a hat", "inpaint_strength": 0.75,
        "inpaint_respective_field": 0.5, "inpaint_erode_or_dilate": -3, "image_seed": 4,
        "outpaint_selections": ["Left", "Bottom"], "outpaint_distance": [16, 0, 8, 0]});
    assert_eq!(generate(&server, &body).await.status, 200);
    let options = fake.setups.lock().unwrap()[0].options.clone();
    assert_eq!((options.size, options.steps), (Some((1024, 512)), 12));
    assert_eq!((options.guidance_scale, options.sharpness), (5.0, 3.5));
    assert_eq!((options.adaptive_guidance, options.clip_skip), (8.0, 1));
    assert_eq!((options.sampler, options.size_guidance.positive), (SamplerKind::Euler, 1.25));
    assert_eq!((options.inpaint_strength, options.inpaint_field), (0.75, 0.5));
    assert_eq!((options.mask_growth, options.freeu.unwrap().b1), (-3, 1.3));
    let request = fake.requests.lock().unwrap()[0][0].clone();
    assert_eq!(
        (request.prompt.as_str(), request.negative_prompt.as_str()),
        ("a hat\na cat", "dogs")
    );
    assert!(request.image.is_some() && request.mask.is_some() && request.seed == Some(4));
    // A third of 64 pixels below, and nothing on the right, which is not named.
    let expected = Outpaint { left: 16, top: 0, right: 0, bottom: 19 };
    assert_eq!(request.outpaint, expected);

    let body = json!({"uov_method": "Vary (Strong)", "uov_input_image": image,
        "performance_selection": "Lightning", "guidance_scale": 9, "image_seed": 4});
    assert_eq!(generate(&server, &body).await.status, 200);
    let options = fake.setups.lock().unwrap()[1].options.clone();
    assert_eq!((options.denoise, options.size), (0.85, Some((1024, 1024))));
    assert_eq!((options.guidance_scale, options.steps), (1.0, 4), "a fast one overrules them");
    assert_eq!(options.performance, Some(Performance::Lightning));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_that_is_wrong_is_named_at_once() {
    let (server, fake) = Server::new(&[]).await;
    let body = json!({"prompt": 5, "image_number": 33, "sharpness": -1, "guidance_scale": "much",
        "performance_selection": "Warp", "sampler_name": "guess", "uov_method": "upscale",
        "async_process": "maybe", "style_selections": "none", "outpaint_selections": ["Up"],
        "overwrite_width": 4096, "metadata_scheme": "a111", "output_format": "gif",
        "loras": [{"model_name": "x", "weight": 3}, "y"], "outpaint_distance": [1],
        "controlnet_image": [{"cn_type": "Depth"}], "inpaint_input_image": "%%%", "unknown": 1});
    let found = refused(&generate(&server, &body).await);
    for (field, kind) in [
        ("prompt", "string_type"),
        ("image_number", "less_than_equal"),
        ("sharpness", "greater_than_equal"),
        ("guidance_scale", "float_type"),
        ("performance_selection", "enum"),
        ("sampler_name", "enum"),
        ("uov_method", "enum"),
        ("async_process", "bool_type"),
        ("style_selections", "list_type"),
        ("outpaint_selections.0", "enum"),
        ("overwrite_width", "less_than_equal"),
        ("metadata_scheme", "enum"),
        ("output_format", "enum"),
        ("loras.0.enabled", "missing"),
        ("loras.0.weight", "less_than_equal"),
        ("loras.1", "model_type"),
        ("outpaint_distance", "value_error"),
        ("controlnet_image.0.cn_type", "enum"),
        ("inpaint_input_image", "value_error"),
    ] {
        assert_eq!(found.get(field).map(String::as_str), Some(kind), "{field}: {found:?}");
    }
    assert!(!found.contains_key("unknown"), "unknown fields are ignored");
    for (body, field) in [
        (json!({"style_selections": ["Fooocus V2"]}), "style_selections"),
        (json!({"style_selections": ["No Such"]}), "style_selections"),
        (json!({"aspect_ratios_selection": "wide"}), "aspect_ratios_selection"),
        (json!({"aspect_ratios_selection": "1001*1000"}), "aspect_ratios_selection"),
        (json!({"base_model_name": "../../secret.safetensors"}), "base_model_name"),
        (json!({"refiner_model_name": "/etc/passwd"}), "refiner_model_name"),
        (
            json!({"loras": [{"enabled": true, "model_name": "../x.safetensors"}]}),
            "loras.0.model_name",
        ),
        (json!({"prompt": "<lora:../x:1>"}), "prompt"),
        (json!({"scheduler_name": "turbo", "overwrite_step": 11}), "overwrite_step"),
        (json!({"preset": "../secret"}), "preset"),
        (json!({"uov_method": "Vary (Subtle)"}), "uov_input_image"),
        (json!({"inpaint_input_image": base64(&png(1))}), "inpaint_mask_image_upload"),
        (json!({"inpaint_mask_image_upload": base64(&png(1))}), "inpaint_input_image"),
        (json!({"uov_input_image": "http://169.254.169.254/a.png"}), "uov_input_image"),
        (json!({"uov_input_image": base64(b"GIF89a no picture")}), "uov_input_image"),
    ] {
        let found = refused(&generate(&server, &body).await);
        assert_eq!(found.keys().collect::<Vec<_>>(), [field], "{body}");
    }
    for body in ["", "[", "[]", "3"] {
        let request = Request::post(PATH).body(body.into()).unwrap();
        assert_eq!(server.send(request).await.status, 422, "{body}");
    }
    assert!(fake.calls.lock().unwrap().is_empty() && fake.setups.lock().unwrap().is_empty());
    assert_eq!(server.get("/tasks").await.ok()["history"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn models_and_styles_are_listed_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().display().to_string();
    let (server, _) = Server::new(&[("GENERATE_MODELS_DIR", &models), ("API_KEY", "secret")]).await;
    let get = async |path: &str| {
        let request = Request::get(path).header("x-api-key", "secret").body(Body::empty()).unwrap();
        server.send(request).await.ok()
    };
    assert_eq!(server.get("/v1/engines/styles").await.status, 401);
    let styles = get("/v1/engines/styles").await;
    assert!(styles.as_array().unwrap().contains(&json!("Fooocus Sharp")), "{styles}");
    let empty = json!({"model_filenames": ["fake"], "lora_filenames": []});
    assert_eq!(get("/v1/engines/all-models").await, empty);
    for name in ["checkpoints/sub/a.safetensors", "loras/b.safetensors", "loras/c.txt"] {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let found = json!({"model_filenames": ["fake", "sub/a.safetensors"],
        "lora_filenames": ["b.safetensors"]});
    assert_eq!(get("/v1/engines/all-models").await, found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_tasks_are_neither_lost_nor_mixed() {
    let (server, fake) = Server::new(&[("GENERATE_QUEUE", "200"), ("GENERATE_BATCH", "4")]).await;
    fake.allow(0);
    let mut ids = Vec::new();
    for i in 0..200usize {
        // Some share a run, some do not.
        let body = json!({"prompt": format!("{}", (b'a' + (i % 26) as u8) as char),
            "style_selections": [], "image_seed": i, "image_number": 1 + i % 3,
            "sharpness": (i / 7) % 5, "performance_selection": "Lightning"});
        ids.push(accepted(&server, body).await);
    }
    // Every seventh is cancelled while it waits; skips and stops strike whatever runs.
    for id in ids.iter().skip(10).step_by(7) {
        let path = format!("/tasks/{id}/cancel");
        server.send(Request::post(path).body(Body::empty()).unwrap()).await.ok();
    }
    for i in 0..40 {
        fake.allow(29);
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        control(&server, if i % 3 == 0 { "stop" } else { "skip" }).await;
    }
    fake.allow(1_000_000);
    let mut states = HashMap::<String, usize>::new();
    for (i, id) in ids.iter().enumerate() {
        let task = server.ended(id).await;
        let state = task["task_status"].as_str().unwrap().to_owned();
        let links = task["result"].as_array().unwrap();
        assert!(links.len() <= 1 + i % 3);
        for link in links {
            let path = link.as_str().unwrap().split_once("/outputs").unwrap().1;
            assert!(path.contains(id.as_str()));
            let picture =
                Image::decode(&server.get(&format!("/outputs{path}")).await.body).unwrap();
            let [letter, seed] = [picture.pixels()[0], picture.pixels()[1]];
            assert_eq!(letter, b'a' + (i % 26) as u8);
            assert!((i..i + 3).any(|own| own as u8 == seed), "{i}: {seed}");
        }
        let is_cancelled = i >= 10 && (i - 10) % 7 == 0;
        assert!(!is_cancelled || state == "canceled", "{i}: {state}");
        *states.entry(state).or_default() += 1;
    }
    assert_eq!(states["canceled"], 28, "{states:?}");
    assert_eq!(states.values().sum::<usize>(), 200);
    assert!(!states.contains_key("failed"), "{states:?}");
    let history = server.get("/tasks?query=history&page_size=1000").await.ok();
    assert_eq!(history["history"].as_array().unwrap().len(), 200);
}
