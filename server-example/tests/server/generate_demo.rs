//! `/v1/engine/generate/` with the demo model itself, which draws what it is told.

use std::path::Path;

use serde_json::{Value, json};
use tagbrush::{Image, ImageFormat};

use crate::common::{Server, base64};

async fn picture(server: &Server, body: &Value) -> Image {
    let answer = server.post("/v1/engine/generate/", body).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    Image::decode(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_say_how_they_were_made() {
    let server = Server::real(&[]).await;
    // Where each format has its texts, as Fooocus writes them.
    for (format, before, notation) in [
        ("png", &b"tEXtparameters\0"[..], &b"tEXtfooocus_scheme\0"[..]),
        ("jpeg", b"MM\0*", b"\0"),
        ("webp", b"MM\0*", b"\0"),
    ] {
        let find = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|p| p == part);
        let mut body = json!({"prompt": "a red circle", "negative_prompt": "dogs", "image_seed": 3,
            "style_selections": ["Fooocus Sharp"], "output_format": format});
        let answer = server.post("/v1/engine/generate/", &body).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(find(&answer.body, &[notation, b"fooocus"].concat()).is_some(), "{format}");
        let start = find(&answer.body, before).unwrap();
        let start = start + find(&answer.body[start..], b"{\"").unwrap();
        let json = serde_json::Deserializer::from_slice(&answer.body[start..]);
        let told: Value = json.into_iter().next().unwrap().unwrap();
        for (key, expected) in [
            ("prompt", json!("a red circle")),
            ("negative_prompt", json!("dogs")),
            ("styles", json!("['Fooocus Sharp']")),
            ("performance", json!("Speed")),
            ("seed", json!("3")),
            ("resolution", json!("(64, 64)")),
            ("base_model", json!("demo")),
            ("metadata_scheme", json!("fooocus")),
        ] {
            assert_eq!(told[key], expected, "{format}: {key}");
        }
        // The file of the task is the same.
        let id = answer.headers["x-task-id"].to_str().unwrap();
        let task = server.get(&format!("/tasks/{id}")).await.ok();
        let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1.to_owned();
        assert_eq!(server.get(&format!("/outputs{path}")).await.body, answer.body);
        body["metadata_scheme"] = json!("a1111");
        let lines = server.post("/v1/engine/generate/", &body).await.body;
        let text = b"Negative prompt: ";
        assert!(
            find(&lines, text).is_some() && find(&lines, b"Raw prompt: a red circle").is_some()
        );
        body["save_metadata_to_images"] = json!(false);
        let plain = server.post("/v1/engine/generate/", &body).await.body;
        assert!(find(&plain, before).is_none() && find(&plain, b"circle").is_none(), "{format}");
        assert_eq!(Image::decode(&plain).unwrap(), Image::decode(&answer.body).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_autoencoder_is_loaded_and_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("vae")).unwrap();
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core");
    let vae = "vae/diffusion_pytorch_model.safetensors";
    for (from, name) in [
        (core.join("demo/generate").join(vae), "own"),
        // Of another size.
        (core.join("tests/goldens/generate-pipeline/model").join(vae), "other"),
    ] {
        let to = folder.path().join(format!("vae/{name}.safetensors"));
        std::fs::copy(from, to).unwrap();
    }
    let models = folder.path().display().to_string();
    let vars = [("GENERATE_MODELS_DIR", models.as_str()), ("GENERATE_MODEL", "demo")];
    let server = Server::real(&vars).await;
    let mut body = json!({"prompt": "a red circle", "image_seed": 3});
    let plain = picture(&server, &body).await;
    body["vae_name"] = json!("own.safetensors");
    let answer = server.post("/v1/engine/generate/", &body).await;
    assert_eq!(Image::decode(&answer.body).unwrap(), plain);
    let told = String::from_utf8_lossy(&answer.body);
    assert!(told.contains(r#""vae":"own""#));
    body["vae_name"] = json!("other.safetensors");
    let answer = server.post("/v1/engine/generate/", &body).await;
    assert_eq!(answer.status, 500);
    let text = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(text.contains("other.safetensors"), "{text}");
    // What does not load costs the next request nothing.
    body["vae_name"] = json!("Default (model)");
    assert_eq!(picture(&server, &body).await, plain);
}

fn corner(image: &Image) -> [i32; 3] {
    [0, 1, 2].map(|channel| i32::from(image.pixels()[channel]))
}

fn is_blue([red, green, blue]: [i32; 3]) -> bool {
    blue > red + 80 && blue > green + 50
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_demo_model_draws_varies_and_paints_over() {
    let server = Server::real(&[]).await;
    for performance in ["Speed", "Extreme Speed", "Lightning", "Hyper-SD"] {
        let body = json!({"prompt": "a red circle on blue", "image_seed": 3,
            "performance_selection": performance, "output_format": "webp"});
        let image = picture(&server, &body).await;
        assert_eq!((image.width(), image.height()), (64, 64), "its own size");
        assert!(is_blue(corner(&image)), "{performance}: {:?}", corner(&image));
    }
    let white = Image::from_rgb8(64, 64, vec![252; 64 * 64 * 3]).unwrap();
    let white = base64(&white.encode(ImageFormat::Png).unwrap());
    let varied = json!({"prompt": "a red circle", "image_seed": 3, "uov_method": "Vary (Strong)",
        "uov_input_image": white});
    let image = picture(&server, &varied).await;
    assert_eq!((image.width(), image.height()), (64, 64));
    // Larger, without a network: the answer says so.
    for (method, multiple, side) in [
        ("Upscale (Fast 2x)", 1.0, 128),
        ("Upscale (1.5x)", 1.0, 96),
        ("Upscale (Custom)", 1.25, 80),
    ] {
        let body = json!({"prompt": "a red circle", "image_seed": 3, "uov_method": method,
            "upscale_multiple": multiple, "uov_input_image": white, "async_process": true});
        let answer = server.post("/v1/engine/generate/", &body).await;
        let task = server.ended(answer.json()["task_id"].as_str().unwrap()).await;
        assert_eq!(task["task_status"], "finished", "{task}");
        let message = task["message"].as_str().unwrap();
        assert!(message.contains("fooocus_upscaler_s409985e5.bin"), "{message}");
        let path = task["result"][0].as_str().unwrap().split_once("/outputs").unwrap().1;
        let image = Image::decode(&server.get(&format!("/outputs{path}")).await.body).unwrap();
        assert_eq!((image.width(), image.height()), (side, side), "{method}");
    }
    let large = Image::from_rgb8(96, 96, vec![252; 96 * 96 * 3]).unwrap();
    let large = base64(&large.encode(ImageFormat::Png).unwrap());
    let body =
        json!({"uov_method": "Upscale (2x)", "uov_input_image": large, "async_process": true});
    let answer = server.post("/v1/engine/generate/", &body).await;
    let task = server.ended(answer.json()["task_id"].as_str().unwrap()).await;
    assert!(task["message"].as_str().unwrap().contains("192*192"), "{task}");
    // The lower half is made anew, the upper one stays to the bit.
    let mask = [vec![0; 64 * 32 * 3], vec![255; 64 * 32 * 3]].concat();
    let mask = Image::from_rgb8(64, 64, mask).unwrap().encode(ImageFormat::Png).unwrap();
    let painted = json!({"prompt": "a red circle on blue", "image_seed": 3, "inpaint_input_image": white,
        "inpaint_mask_image_upload": base64(&mask), "inpaint_engine": "None"});
    let image = picture(&server, &painted).await;
    assert_eq!(corner(&image), [252; 3]);
    let last = image.pixels().len() - 3;
    assert!(image.pixels()[last..] != [252; 3], "something was made");
    let wider = json!({"prompt": "a red circle", "inpaint_input_image": white,
        "outpaint_selections": ["Right"], "outpaint_distance": [0, 0, 32, 0]});
    let image = picture(&server, &wider).await;
    assert_eq!((image.width(), image.height()), (96, 64));
    let stretched = json!({"inpaint_input_image": white, "inpaint_mask_image_upload":
        base64(&Image::from_rgb8(8, 8, vec![255; 192]).unwrap().encode(ImageFormat::Png).unwrap())});
    let answer = server.post("/v1/engine/generate/", &stretched).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["error"]["param"], "inpaint_mask_image_upload");
}
