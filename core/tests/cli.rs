//! The command line tool as users and scripts meet it: what it prints, where, and its exit status.
#![cfg(all(feature = "cli", feature = "demo"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn core() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn images() -> PathBuf {
    core().join("demo/images")
}

fn tagbrush(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tagbrush")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The true tags of the sample pictures, by file name.
fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(images().join("expected.json")).unwrap()).unwrap()
}

#[test]
fn the_first_command_prints_the_true_tags_of_the_samples() {
    let output = tagbrush(&["tag", images().to_str().unwrap(), "--format", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("demo model"));
    let expected = expected();
    let lines = json_lines(&output);
    assert_eq!(lines.len(), expected.as_object().unwrap().len());
    for line in lines {
        let name = Path::new(line["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
        let truth = &expected[name];
        let set = |list: &Value| {
            let mut names: Vec<String> = match list {
                Value::Array(names) => names.iter().map(|n| n.as_str().unwrap().into()).collect(),
                other => keys(other).into_iter().map(str::to_owned).collect(),
            };
            names.sort();
            names
        };
        for kind in ["characters", "tags"] {
            assert_eq!(set(&line[kind]), set(&truth[kind]), "{kind} of {name}");
        }
        let ratings = line["ratings"].as_object().unwrap();
        let best = ratings.iter().max_by(|a, b| a.1.as_f64().partial_cmp(&b.1.as_f64()).unwrap());
        assert_eq!(best.unwrap().0, truth["rating"].as_str().unwrap(), "rating of {name}");
    }
}

#[test]
fn json_lines_keep_the_order_and_name_failures() {
    let owl = images().join("owl.png");
    let broken = core().join("Cargo.toml");
    let paths = ["missing", owl.to_str().unwrap(), broken.to_str().unwrap(), owl.to_str().unwrap()];
    // A path that does not exist is one failure among answers, like a file that is no image.
    let output = tagbrush(&["tag", paths[0], paths[1], "-f", "jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(json_lines(&output)[0]["error"]["code"], "io");
    let output = tagbrush(&["tag", paths[2], paths[1], "-f", "jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    let lines = json_lines(&output);
    assert_eq!(keys(&lines[0]), ["path", "error"]);
    assert_eq!(keys(&lines[0]["error"]), ["code", "message"]);
    assert_eq!(lines[0]["error"]["code"], "image_decode");
    assert_eq!(keys(&lines[1]), ["path", "ratings", "characters", "tags"]);
    assert_eq!(lines[1]["path"], paths[1]);
    assert!(stderr(&output).contains("1 images failed"));
    // Only failures: nothing could be done.
    let output = tagbrush(&["tag", paths[2], "-f", "jsonl"]);
    assert_eq!((output.status.code(), json_lines(&output).len()), (Some(1), 1));
}

#[test]
fn thresholds_are_strict_and_ratings_are_all_kept() {
    let owl = images().join("owl.png");
    let run = |arguments: &[&str]| {
        let all = [&["tag", owl.to_str().unwrap(), "-f", "jsonl", "-q"], arguments].concat();
        let output = tagbrush(&all);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).is_empty());
        json_lines(&output).remove(0)
    };
    let all = run(&["--threshold", "0"]);
    assert_eq!(keys(&all["ratings"]).len(), 4);
    let count = keys(&all["tags"]).len();
    assert!(count > 80, "{count}");
    let none = run(&["--threshold", "1"]);
    assert_eq!((keys(&none["ratings"]).len(), keys(&none["tags"]).len()), (4, 0));
    let score = all["characters"]["hoot_(tagbrush)"].as_f64().unwrap();
    assert!(score > 0.5);
    let off = run(&["--threshold", "0", "--character-threshold", "2"]);
    assert_eq!((keys(&off["characters"]).len(), keys(&off["tags"]).len()), (0, count));
}

#[test]
fn captions_and_sidecars() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let arguments = [
        "tag",
        images().to_str().unwrap(),
        "-f",
        "sidecar",
        "-o",
        folder,
        "--prepend",
        "my_style",
        "--escape",
        "--exclude",
        "No Humans",
        "--rating",
        "last",
    ]
    .map(str::to_owned);
    let output = tagbrush(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).is_empty());
    let text = fs::read_to_string(out.path().join("owl.txt")).unwrap();
    assert!(text.starts_with("my_style, hoot \\(tagbrush\\), "), "{text}");
    assert!(text.ends_with(", general\n") && !text.contains("no humans"), "{text}");
    // Nothing is left to do for a second run that skips.
    let arguments =
        ["tag", images().to_str().unwrap(), "-f", "sidecar", "-o", folder, "--skip-existing"]
            .map(str::to_owned);
    let output = tagbrush(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("have tags already"));
    assert_eq!(fs::read_to_string(out.path().join("owl.txt")).unwrap(), text);
}

#[test]
fn csv_has_a_header_and_a_row_for_each_image() {
    let output = tagbrush(&["tag", images().to_str().unwrap(), "-f", "csv"]);
    let text = stdout(&output);
    assert_eq!(text.lines().next(), Some("path,rating,characters,caption,error"));
    assert_eq!(text.lines().count(), expected().as_object().unwrap().len() + 1);
}

#[test]
fn mistakes_are_found_at_once_and_named() {
    let owl = images().join("owl.png");
    let owl = owl.to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (arguments, expected) in [
        (vec!["tag", owl, "--model", "no-such-model"], "no-such-model"),
        (vec!["tag", owl, "--model", empty], "selected_tags.csv"),
        (vec!["tag", owl, "--model", "acme/none", "--offline", "--cache-dir", empty], "acme/none"),
        (vec!["tag", owl, "--model", "wd-v1-4-moat-tagger-v2"], "MOAT"),
        (vec!["tag", owl, "--device", "cuda:0"], "CUDA"),
        (vec!["tag", owl, "--dtype", "f16"], "f16"),
        (vec!["tag", owl, "--tag-threshold", "no such tag=0.5"], "no_such_tag"),
        (vec!["tag", owl, "--threshold", "recommended"], "threshold"),
        (vec!["tag", owl, "-f", "jsonl", "--skip-existing"], "--output"),
        (vec!["tag", owl, "-o", empty], "--format"),
        (vec!["tag", empty], "no images"),
        (vec!["tag", owl, "--threads", "0"], "threads"),
    ] {
        let output = tagbrush(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty());
    }
    for arguments in
        [vec!["tag"], vec!["tag", owl, "--threshold", "x"], vec!["tag", owl, "--batch-size", "0"]]
    {
        assert_eq!(tagbrush(&arguments).status.code(), Some(2), "clap's own status");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tagbrush"))
        .args(["tag", images().to_str().unwrap(), "-f", "jsonl", "-q", "--batch-size", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_some(), "no crash");
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn the_other_commands_answer() {
    let doctor = tagbrush(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0));
    assert!(stdout(&doctor).contains("works:"), "{}", stdout(&doctor));
    assert!(stdout(&tagbrush(&["models"])).contains("SmilingWolf/wd-vit-tagger-v3"));
    assert!(stdout(&tagbrush(&["completions", "bash"])).contains("tagbrush"));
    let help = tagbrush(&["tag", "--help"]);
    assert!(stdout(&help).contains("Examples:"));
}

#[test]
fn every_set_of_instructions_and_precision_gives_the_true_tags() {
    let run = |isa: &str, dtype: &str| {
        let (images, tool) = (images(), env!("CARGO_BIN_EXE_tagbrush"));
        let mut command = Command::new(tool);
        command.arg("tag").arg(images).args(["--format", "jsonl", "--dtype", dtype]);
        command.env("TAGBRUSH_ISA", isa).output().unwrap()
    };
    let usual = json_lines(&run("", "f32"));
    for dtype in ["f32", "bf16"] {
        for isa in ["portable", "avx2", "avx512", "avx512-bf16", "amx"] {
            let output = run(isa, dtype);
            if output.status.code() == Some(1) {
                // This machine does not have it, and says so.
                assert!(stderr(&output).contains("this machine has"), "{}", stderr(&output));
                continue;
            }
            for (line, usual) in json_lines(&output).iter().zip(&usual) {
                for part in ["characters", "tags"] {
                    assert_eq!(keys(&line[part]), keys(&usual[part]), "{isa} {dtype}");
                }
            }
        }
    }
    let wrong = run("mmx", "f32");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("TAGBRUSH_ISA") && stderr(&wrong).contains("avx512-bf16"));
}

fn edit_model() -> String {
    core().join("tests/goldens/edit-pipeline").display().to_string()
}

#[test]
fn edits_are_numbered_and_one_that_fails_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (output, model) = (folder.path().join("out"), edit_model());
    let picture = images().join("owl.png").display().to_string();
    let common = ["--model", &model, "--steps", "3", "--seed", "1", "-n", "2", "--output"];
    let missing = folder.path().join("none.png").display().to_string();
    let mut arguments = vec!["edit", &picture, &missing, &picture, "--prompt", "night"];
    arguments.extend(common);
    arguments.push(output.to_str().unwrap());
    let made = tagbrush(&arguments);
    assert_eq!(made.status.code(), Some(2), "{}", stderr(&made));
    let names = ["0000.png", "0001.png", "0004.png", "0005.png"];
    let lines = names.map(|name| output.join(name).display().to_string()).join("\n") + "\n";
    assert_eq!(stdout(&made), lines);
    assert!(stderr(&made).contains("2 of 6 outputs failed"), "{}", stderr(&made));
    assert!(stderr(&made).contains("none.png"), "{}", stderr(&made));
    let read = |name: &str| fs::read(output.join(name)).unwrap();
    assert_eq!(read("0000.png"), read("0004.png"));
    assert_ne!(read("0000.png"), read("0001.png"));
    // Nothing could be made.
    let mut arguments = vec!["edit", &missing, "--prompt", "night"];
    arguments.extend(common);
    arguments.push(output.to_str().unwrap());
    assert_eq!(tagbrush(&arguments).status.code(), Some(1));
}

#[test]
fn prompts_and_modes_of_edits_are_checked_before_the_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let picture = images().join("owl.png").display().to_string();
    let edit = |more: &[&str]| {
        let mut arguments = vec!["edit", &picture, &picture[..], "--output", &output];
        arguments.extend(["--model", "no/such/model/anywhere"]);
        arguments.extend(more);
        let made = tagbrush(&arguments);
        assert_ne!(made.status.code(), Some(0));
        stderr(&made)
    };
    let error = edit(&["--prompt", "a", "--prompt", "b", "--prompt", "c"]);
    assert!(error.contains("3 prompts for 2 images"), "{error}");
    let error = edit(&["--prompt", "a", "--prompt", "b", "--mode", "reference"]);
    assert!(error.contains("2 prompts for one edit"), "{error}");
    for (option, value) in
        [("--size", "big"), ("--preset", "fast"), ("--max-memory", "lots"), ("--format", "gif")]
    {
        assert!(edit(&["--prompt", "a", option, value]).contains(option), "{option}");
    }
    let error = edit(&["--prompt", "a"]);
    assert!(error.contains("model_not_found"), "{error}");
}

#[test]
fn the_demo_model_draws_unless_another_is_named() {
    let output = tempfile::tempdir().unwrap();
    let folder = output.path().display().to_string();
    let prompt = "a red circle on a blue background";
    let made =
        tagbrush(&["generate", "--prompt", prompt, "--seed", "1", "-n", "2", "--output", &folder]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stderr(&made).contains("demo model"), "{}", stderr(&made));
    for name in ["0000.png", "0001.png"] {
        let made = tagbrush::Image::open(output.path().join(name)).unwrap();
        assert_eq!((made.width(), made.height()), (64, 64));
        let corner = made.pixels()[..3].to_vec();
        assert!(corner[2] > 150 && corner[0] < 120, "{name} is {corner:?} at its corner");
    }
    let with = |scheme: &str, vae: &[&str]| {
        let arguments = ["generate", "--prompt", prompt, "--steps", "1", "--output", &folder];
        tagbrush(&[&arguments[..], &["--metadata", scheme], vae].concat())
    };
    let vae = core().join("demo/generate/vae/diffusion_pytorch_model.safetensors");
    let made = with("a1111", &["--vae", vae.to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let file = fs::read(output.path().join("0000.png")).unwrap();
    let text = b"tEXtparameters\0a red circle on a blue background\nSteps: 1, Sampler: DPM++ 2M SDE Karras, ";
    assert!(file.windows(text.len()).any(|found| found == text));
    let text = b", VAE: diffusion_pytorch_model, ";
    assert!(file.windows(text.len()).any(|found| found == text));
    assert!(stderr(&with("exif", &[])).contains("known: fooocus, a1111"));
    let missing = stderr(&with("none", &["--vae", "none.safetensors"]));
    assert!(missing.contains("vae=none.safetensors"), "{missing}");
}

#[test]
fn pictures_are_generated_from_prompts_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let model = core().join("tests/goldens/generate-pipeline/model").display().to_string();
    let common = ["--steps", "2", "--seed", "3", "--size", "64x64", "--output", &output];
    let generate = |more: &[&str]| {
        let mut arguments = vec!["generate", "--model", &model];
        arguments.extend(common);
        arguments.extend(more);
        tagbrush(&arguments)
    };
    let made = generate(&["--prompt", "a cat", "--prompt", "<|endoftext|>", "-n", "2"]);
    assert_eq!(made.status.code(), Some(2), "{}", stderr(&made));
    assert!(stderr(&made).contains("2 of 4 outputs failed"), "{}", stderr(&made));
    let read = |name: &str| fs::read(Path::new(&output).join(name)).unwrap();
    let (first, second) = (read("0000.png"), read("0001.png"));
    assert_ne!(first, second);
    let image = images().join("owl.png").display().to_string();
    let made = generate(&["--prompt", "a cat", "--image", &image, "--denoise", "0.3"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_ne!(read("0000.png"), first);
    // Arrays, wildcards and styles are there before the model is asked.
    let words = folder.path().join("words");
    fs::create_dir(&words).unwrap();
    fs::write(words.join("animal.txt"), "cat").unwrap();
    let words = words.display().to_string();
    let made = generate(&["--prompt", "a [[__animal__, dog]]", "--wildcards", &words]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_eq!(read("0000.png"), first);
    let made = generate(&["--prompt", "a cat", "--style", "Fooocus Sharp"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_ne!(read("0000.png"), first);
    let made = generate(&["--prompt", "a cat", "--style", "Moon"]);
    assert!(stderr(&made).contains("unknown style `Moon`"), "{}", stderr(&made));
    // Files of LoRAs come by path, by a prompt and by a performance.
    let loras = folder.path().join("loras");
    fs::create_dir(&loras).unwrap();
    let file = core().join("tests/goldens/generate-lora/lora_kohya.safetensors");
    fs::copy(&file, loras.join("film.safetensors")).unwrap();
    let loras_of = loras.display().to_string();
    let by_name = ["--prompt", "a cat, <lora:film:0.5>", "--prompt", "a cat"];
    let made = generate(&[&by_name[..], &["--lora-folder", &loras_of]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let with = read("0000.png");
    assert_ne!(with, first);
    assert_eq!(read("0001.png"), first);
    let made = generate(&["--prompt", "a cat", "--lora", &format!("{}:0.5", file.display())]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_eq!(read("0000.png"), with);
    let fast = ["--prompt", "a cat", "--performance", "lightning", "--lora-folder", &loras_of];
    let made = generate(&fast);
    assert_eq!(made.status.code(), Some(1));
    let needed = "sdxl_lightning_4step_lora.safetensors";
    assert!(stderr(&made).contains(needed), "{}", stderr(&made));
    fs::copy(&file, loras.join(needed)).unwrap();
    let made = generate(&fast);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_ne!(read("0000.png"), first);
    // Larger: by a network, which the goldens have, or by resampling, which is said.
    let upscaler = core().join("tests/goldens/generate-upscale/fooocus.bin").display().to_string();
    let larger = ["--prompt", "a cat", "--image", &image, "--upscale", "fast 2"];
    let made = generate(&[&larger[..], &["--upscaler", &upscaler]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(!stderr(&made).contains("resampling"), "{}", stderr(&made));
    let by_network = read("0000.png");
    let made = generate(&larger);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stderr(&made).contains("0000.png: the picture was made larger by resampling"));
    assert_ne!(read("0000.png"), by_network);
    let made = generate(&["--prompt", "a cat", "--upscale", "2"]);
    assert!(stderr(&made).contains("--image"), "{}", stderr(&made));
    let made = generate(&["--prompt", "a cat", "--image", &image, "--upscale", "9"]);
    assert!(stderr(&made).contains("expected 1 to 5"), "{}", stderr(&made));
    let made = generate(&[&larger[..], &["--upscaler", &model]].concat());
    assert!(stderr(&made).contains("upscaler="), "{}", stderr(&made));
    // Parts of an image, with an inpaint engine and without; a mask may be any image of the size.
    let part = ["--prompt", "a cat", "--image", &image, "--mask", &image];
    let made = generate(&part);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let without = read("0000.png");
    let engine =
        |name: &str| core().join("tests/goldens/generate-inpaint").join(name).display().to_string();
    let (head, patch) = (engine("head.pth"), engine("patch.fooocus.patch"));
    let made =
        generate(&[&part[..], &["--inpaint-head", &head, "--inpaint-patch", &patch]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert_ne!(read("0000.png"), without);
    let made = generate(&[&part[..], &["--inpaint-head", &head]].concat());
    assert!(stderr(&made).contains("--inpaint-patch"), "{}", stderr(&made));
    // Mistakes are told before the model is looked for.
    for (option, value) in [("--steps", "0"), ("--sampler", "best"), ("--size", "60x64")] {
        let made = tagbrush(&[
            "generate", "--model", "none", "--output", &output, "--prompt", "a", option, value,
        ]);
        let word = option.trim_start_matches('-').replace("size", "width");
        assert!(stderr(&made).contains(&word), "{option}: {}", stderr(&made));
    }
    let made = tagbrush(&["generate", "--model", "none", "--output", &output, "--prompt", "a"]);
    assert_eq!(made.status.code(), Some(1));
    assert!(stderr(&made).contains("model_not_found"), "{}", stderr(&made));
}
