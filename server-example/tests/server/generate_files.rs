//! `/v1/engine/generate/` and files, with the fast model: what pictures say, grids, autoencoders.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tagbrush::{Image, MetadataScheme};

use crate::common::Server;
use crate::generate::{accepted, control, generate, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pictures_are_asked_to_say_how_they_were_made() {
    use MetadataScheme::{A1111, Fooocus};
    let (server, fake) = Server::new(&[]).await;
    for (body, expected) in [
        (json!({}), &[Fooocus][..]),
        (json!({"metadata_scheme": "a1111", "output_format": "webp"}), &[A1111]),
        (json!({"save_metadata_to_images": false, "metadata_scheme": "a1111"}), &[]),
    ] {
        assert_eq!(generate(&server, &body).await.status, 200);
        assert_eq!(std::mem::take(&mut *fake.schemes.lock().unwrap()), expected, "{body}");
    }
    let id = accepted(&server, json!({"image_number": 2})).await;
    let task = server.ended(&id).await;
    assert_eq!(task["req_params"]["save_metadata_to_images"], true);
    assert!(!task["message"].as_str().unwrap().contains("metadata"), "{task}");
    assert_eq!(*fake.schemes.lock().unwrap(), [Fooocus; 2]);
}

/// The pictures of a task.
async fn results(server: &Server, task: &Value) -> Vec<Image> {
    let mut images = Vec::new();
    for link in task["result"].as_array().unwrap() {
        let path = link.as_str().unwrap().split_once("/outputs").unwrap().1;
        let answer = server.get(&format!("/outputs{path}")).await;
        images.push(Image::decode(&answer.body).unwrap());
    }
    images
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grid_comes_after_the_pictures() {
    let (server, fake) = Server::new(&[("GENERATE_BATCH", "1")]).await;
    let body = json!({"prompt": "a", "image_seed": 3, "image_number": 3, "output_format": "webp",
        "generate_image_grid": true, "performance_selection": "Lightning"});
    let id = accepted(&server, body.clone()).await;
    let images = results(&server, &server.ended(&id).await).await;
    let sizes: Vec<_> = images.iter().map(|image| (image.width(), image.height())).collect();
    assert_eq!(sizes, [(32, 32), (32, 32), (32, 32), (64, 64)]);
    let colour = |x: usize, y: usize| images[3].pixels()[(y * 64 + x) * 3..][..3].to_vec();
    let quarters = [colour(0, 0), colour(63, 31), colour(31, 32), colour(40, 50)];
    assert_eq!(quarters, [[b'a', 3, 0], [b'a', 4, 1], [b'a', 5, 2], [0; 3]]);
    assert_eq!(fake.schemes.lock().unwrap().len(), 3, "a grid says nothing");
    // Of one picture there is none, however many were asked for.
    let mut one = body.clone();
    one["image_number"] = json!(1);
    let id = accepted(&server, one).await;
    assert_eq!(results(&server, &server.ended(&id).await).await.len(), 1);
    fake.allow(0);
    let made = fake.steps_made.load(Ordering::SeqCst);
    let id = accepted(&server, body.clone()).await;
    // Two pictures and a step of the last one, without which the task ends.
    fake.allow(9);
    fake.until(|fake| fake.steps_made.load(Ordering::SeqCst) >= made + 9).await;
    assert_eq!(control(&server, "stop").await, "task stoped");
    let task = server.ended(&id).await;
    assert_eq!(task["task_status"], "stop");
    let stopped = results(&server, &task).await;
    assert_eq!((stopped.len(), stopped[2].width(), stopped[2].height()), (3, 64, 32));
    fake.allow(100_000);
    let mut large = body;
    (large["image_number"], large["aspect_ratios_selection"]) = (json!(32), json!("4096*1024"));
    large["async_process"] = json!(true);
    let found = refused(&generate(&server, &large).await);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["generate_image_grid"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_autoencoder_is_taken_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vae/sub/v.safetensors");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "").unwrap();
    std::fs::write(folder.path().join("secret.safetensors"), "").unwrap();
    let models = folder.path().display().to_string();
    let (server, fake) = Server::new(&[("GENERATE_MODELS_DIR", &models)]).await;
    for name in ["Default (model)", "sub/v.safetensors", "sub\\v.safetensors"] {
        assert_eq!(generate(&server, &json!({"vae_name": name})).await.status, 200, "{name}");
    }
    let taken: Vec<_> = fake.setups.lock().unwrap().iter().map(|s| s.vae.clone()).collect();
    assert_eq!(taken, [None, Some(file.clone()), Some(file)]);
    for name in ["", "v.safetensors", "../secret.safetensors", "sub/../../secret.safetensors"] {
        let answer = generate(&server, &json!({"vae_name": name})).await;
        assert_eq!(refused(&answer).keys().collect::<Vec<_>>(), ["vae_name"], "{name}");
        let text = answer.json()["detail"][0]["msg"].as_str().unwrap().to_owned();
        assert!(text.contains("there are `Default (model)`, `sub/v.safetensors`"), "{text}");
    }
}
