//! Every model folder under `tests/goldens/timm` against what timm computed (`make_timm.py`), and the
//! behaviour that holds for every tagger whatever its network.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::config::ModelConfig;
use super::*;
use crate::ErrorKind;
use crate::device::testing::device;
use crate::kernels::cpu::Isa;
use crate::weights::ModelDir;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// The folders of one kind of goldens, sorted.
fn folders(kind: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(goldens().join(kind)).unwrap();
    let mut folders: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn golden(folder: &Path) -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("golden.safetensors"), &device()).unwrap()
}

fn load(folder: &Path) -> Tagger {
    Tagger::load(folder.to_str().unwrap(), &LoadOptions::default()).unwrap()
}

/// The pictures of a golden file, `(b, h, w, 3)` RGB bytes.
fn images(pixels: &Tensor) -> Vec<Image> {
    let (b, h, w, _) = pixels.dims4().unwrap();
    (0..b)
        .map(|i| {
            let bytes = pixels.get(i).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            Image::from_rgb8(w as u32, h as u32, bytes).unwrap()
        })
        .collect()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .flat_map(|(found, expected)| {
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).map(|(a, b)| (a - b).abs())
        })
        .fold(0.0, |max, x| if x.is_nan() { f32::NAN } else { x.max(max) })
}

/// What a difference may be: `tolerance`, more where the processor multiplies split numbers.
fn allowed(tolerance: f32) -> f32 {
    if Isa::chosen() == Ok(Isa::Amx) { 20.0 * tolerance } else { tolerance }
}

#[test]
fn networks_equal_timm() {
    let mut report = Vec::new();
    let mut failed = false;
    let mut most = (0f32, 0f32);
    let folders = folders("timm");
    assert!(folders.len() >= 30);
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let golden = golden(&folder);
        let found = ModelConfig::load(&ModelDir::Disk(folder.clone())).and_then(|config| {
            let dir = ModelDir::Disk(folder.clone());
            let weights = dir.safetensors("model.safetensors", &device(), DType::F32)?;
            let labels = golden["logits"].dim(1).unwrap();
            let network =
                archs::load(&config.args, labels, &weights.root(), &config.input.scale())?;
            weights.check_all_taken(|_| false)?;
            let pixels = images(&golden["pixels"]);
            let prepared: Vec<_> = pixels.iter().map(|image| image.pixels().to_vec()).collect();
            let placement = Placement::resolve(Default::default(), Default::default())?;
            let input = prepare::to_input(&prepared, &config.input, &placement).unwrap();
            let features = network.embed(&input).map_err(|e| classify(e, "embed"))?;
            let logits = network.classify(&features).map_err(|e| classify(e, "classify"))?;
            Ok((rows(&features), rows(&logits)))
        });
        let line = match found {
            Err(error) => format!("{error:#}"),
            Ok((features, logits)) => {
                let features = difference(&features, &rows(&golden["features"]));
                let logits = difference(&logits, &rows(&golden["logits"]));
                most = (most.0.max(features), most.1.max(logits));
                if features <= allowed(1e-5) && logits <= allowed(1e-5) {
                    continue;
                }
                format!("features differ by {features:e}, logits by {logits:e}")
            }
        };
        failed = true;
        report.push(format!("{name}: {line}"));
    }
    println!("features at most {:.1e} off, logits {:.1e}", most.0, most.1);
    assert!(!failed, "\n{}", report.join("\n"));
}

#[test]
fn scores_and_embeddings_are_those_of_the_network() {
    for folder in folders("timm") {
        let golden = golden(&folder);
        let tagger = load(&folder);
        let images = images(&golden["pixels"]);
        let scores = tagger.scores(&images, &Control::new());
        let scores: Vec<_> = scores.into_iter().map(Result::unwrap).collect();
        let sigmoid = |logit: &f32| 1.0 / (1.0 + (-logit).exp());
        let expected: Vec<Vec<f32>> =
            rows(&golden["logits"]).iter().map(|row| row.iter().map(sigmoid).collect()).collect();
        let off = difference(&scores, &expected);
        // A quarter of what logits may differ by: the sigmoid's slope.
        assert!(off < allowed(2.5e-6), "{} is off by {off}", folder.display());
        let embeddings = tagger.embed(&images, &Control::new());
        let embeddings: Vec<_> = embeddings.into_iter().map(Result::unwrap).collect();
        assert!(difference(&embeddings, &rows(&golden["features"])) < allowed(1e-5));
        assert_eq!(tagger.embedding_length(), embeddings[0].len());
    }
}

/// The probabilities of a folder under `goldens/onnx` against onnxruntime's.
fn difference_to_onnxruntime(folder: &Path, golden: &Path) -> f32 {
    let golden = self::golden(golden);
    let (b, h, w, _) = golden["input"].dims4().unwrap();
    let bgr = golden["input"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let rgb: Vec<u8> = bgr.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    let rgb = Tensor::from_vec(rgb, (b, h, w, 3), &device()).unwrap();
    let scores = load(folder).scores(images(&rgb), &Control::new());
    let scores: Vec<_> = scores.into_iter().map(Result::unwrap).collect();
    difference(&scores, &rows(&golden["probs"]))
}

#[test]
fn onnx_graphs_equal_onnxruntime() {
    let mut report = Vec::new();
    for folder in folders("onnx") {
        if folder.ends_with("keras-moat") {
            let error = Tagger::load(folder.to_str().unwrap(), &LoadOptions::default());
            assert!(error.unwrap_err().to_string().contains("MOAT"));
            continue;
        }
        let difference = difference_to_onnxruntime(&folder, &folder);
        println!("{}: {difference:.1e}", folder.file_name().unwrap().to_string_lossy());
        if difference.is_nan() || difference > allowed(1e-5) {
            report.push(format!("{}: {difference:e}", folder.display()));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[test]
fn saved_models_equal_onnxruntime() {
    for folder in folders("onnx").iter().filter(|folder| folder.join("variables").is_dir()) {
        // The same folder without the graph, as people have it who deleted the larger file.
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("variables")).unwrap();
        for file in ["keras_metadata.pb", "saved_model.pb", "selected_tags.csv"] {
            if folder.join(file).is_file() {
                std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
            }
        }
        for entry in std::fs::read_dir(folder.join("variables")).unwrap() {
            let path = entry.unwrap().path();
            let to = copy.path().join("variables").join(path.file_name().unwrap());
            std::fs::copy(path, to).unwrap();
        }
        let difference = difference_to_onnxruntime(copy.path(), folder);
        println!("{}: {difference:.1e}", folder.file_name().unwrap().to_string_lossy());
        assert!(difference < allowed(1e-5), "{}: {difference:e}", folder.display());
    }
}

#[test]
fn the_stages_of_a_folder_are_followed_or_refused() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "selected_tags.csv"] {
        let from = goldens().join("timm/vit-wd").join(file);
        std::fs::copy(from, copy.path().join(file)).unwrap();
    }
    let scores = |stages: &str| {
        std::fs::write(copy.path().join("preprocess.json"), stages).unwrap();
        let tagger = Tagger::load(copy.path().to_str().unwrap(), &LoadOptions::default())?;
        tagger.scores([picture(3)], &Control::new()).remove(0)
    };
    let normalize = r#"{"type": "to_tensor"}, {"type": "normalize", "mean": 0.5, "std": 0.5}"#;
    let with = |stages: &str| scores(&format!(r#"{{"test": [{stages}, {normalize}]}}"#));
    let crop = r#"{"type": "center_crop", "size": 32}"#;
    let stretch = r#"{"type": "resize", "size": [32, 32]}"#;
    assert_ne!(with(crop).unwrap(), with(stretch).unwrap());
    let error = with(&format!(r#"{stretch}, {{"type": "posterize"}}"#)).unwrap_err().to_string();
    for part in ["posterize", "stage=test[1]", "preprocess.json"] {
        assert!(error.contains(part), "{error}");
    }
    let odd = r#"{"type": "resize", "size": [32, 31]}"#;
    assert!(with(odd).unwrap_err().to_string().contains("31 x 32"));
    // A graph takes pictures of 0..255, which no stages make.
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let graph = goldens().join("onnx/keras-vit/model.onnx");
    std::fs::copy(graph, copy.path().join("model.onnx")).unwrap();
    std::fs::copy(
        goldens().join("onnx/keras-vit/selected_tags.csv"),
        copy.path().join("selected_tags.csv"),
    )
    .unwrap();
    assert!(with(stretch).unwrap_err().to_string().contains("scales its input itself"));
}

/// A small tagger of each family with random weights, for tests of what is the same for all.
fn one_of_each() -> Vec<Tagger> {
    let tiny = |arch: &archs::Arch| {
        let placement = Placement::resolve(Default::default(), Default::default()).unwrap();
        let config = serde_json::from_str(arch.tiny).unwrap();
        let tagger = Tagger::random(config, 15, placement).unwrap();
        assert_eq!(tagger.name(), arch.family);
        tagger.with_batch_size(4).unwrap()
    };
    archs::ARCHS.iter().map(tiny).collect()
}

#[test]
fn random_networks_see_their_pictures() {
    for tagger in one_of_each() {
        let scores = tagger.scores((0..2).map(picture), &Control::new());
        let scores: Vec<_> = scores.into_iter().map(Result::unwrap).collect();
        let apart = difference(&scores[..1], &scores[1..]);
        let undecided = scores[0].iter().filter(|score| (0.02..0.98).contains(*score)).count();
        let name = tagger.name();
        assert!(apart > 1e-3, "{name}: pictures differ by {apart:e}");
        assert!(undecided > scores[0].len() / 2, "{name}: {:?}", scores[0]);
    }
}

/// A picture of its own for every seed.
fn picture(seed: u8) -> Image {
    let (width, height) = (30 + u32::from(seed % 7) * 9, 30 + u32::from(seed % 5) * 11);
    let byte =
        |i: u32| (i.wrapping_mul(u32::from(seed) * 2 + 1).wrapping_mul(2_654_435_761) >> 24) as u8;
    let pixels: Vec<u8> = (0..width * height * 3).map(byte).collect();
    Image::from_rgb8(width, height, pixels).unwrap()
}

#[test]
fn any_split_into_batches_gives_the_same_answers() {
    if !crate::kernels::are_exact() {
        return;
    }
    for tagger in one_of_each() {
        let images: Vec<_> = (0..11).map(picture).collect();
        let scores = |tagger: &Tagger| -> Vec<Vec<f32>> {
            tagger.scores(&images, &Control::new()).into_iter().map(Result::unwrap).collect()
        };
        let singles: Vec<_> = images
            .iter()
            .map(|image| tagger.scores([image], &Control::new()).remove(0).unwrap())
            .collect();
        let mut runner = TestRunner::new(Config::with_cases(12));
        runner
            .run(&(1usize..13), |batch| {
                let batched = scores(&tagger.with_batch_size(batch).unwrap());
                prop_assert_eq!(&batched, &singles);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn the_same_picture_has_the_same_tags_wherever_it_stands() {
    if !crate::kernels::are_exact() {
        return;
    }
    for tagger in one_of_each() {
        let tagger = tagger.with_batch_size(3).unwrap();
        let images = vec![picture(9); 8];
        let options = TagOptions::default();
        let all = tagger.tag_batch(&images, &options, &Control::new()).unwrap();
        let first = all[0].as_ref().unwrap();
        assert!(all.iter().all(|tags| tags.as_ref().unwrap() == first));
        assert_eq!(first.ratings.len(), 4);
    }
}

#[test]
fn scores_give_the_tags_of_any_options() {
    let tagger = Tagger::load("demo", &LoadOptions::default()).unwrap();
    let scores = tagger.scores([picture(7)], &Control::new()).remove(0).unwrap();
    for options in [TagOptions::default(), TagOptions::default().threshold(0.01).top_k(2)] {
        let expected = tagger.tag(picture(7), &options).unwrap();
        assert_eq!(tagger.select(&scores, &options).unwrap(), expected);
    }
    let wrong = [
        tagger.select(&scores[1..], &TagOptions::default()),
        tagger.select(&scores, &TagOptions::default().threshold(-1.0)),
    ];
    for wrong in wrong {
        assert_eq!(wrong.unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_bad_picture_costs_no_other_one_its_answer() {
    let inputs = || {
        [
            Input::Image(picture(1)),
            Input::Bytes(b"no picture".to_vec()),
            Input::Path("does/not/exist.png".into()),
            Input::Image(picture(2)),
        ]
    };
    for tagger in one_of_each() {
        let options = TagOptions::default();
        for batch in [1, 2, 8] {
            let tagger = tagger.with_batch_size(batch).unwrap();
            let results = tagger.tag_batch(inputs(), &options, &Control::new()).unwrap();
            let codes: Vec<_> =
                results.iter().map(|result| result.as_ref().err().map(|e| e.kind())).collect();
            let expected = [None, Some(ErrorKind::ImageDecode), Some(ErrorKind::Io), None];
            assert_eq!(codes, expected);
            assert_eq!(results[3].as_ref().unwrap(), &tagger.tag(picture(2), &options).unwrap());
        }
        let none: [Input; 0] = [];
        assert!(tagger.tag_batch(none, &options, &Control::new()).unwrap().is_empty());
    }
}

#[test]
fn a_cancelled_run_says_so_for_every_item_and_leaves_the_tagger_usable() {
    for tagger in one_of_each() {
        let tagger = tagger.with_batch_size(2).unwrap();
        let control = Control::new();
        let options = TagOptions::default();
        let images = (0..9).map(picture);
        let mut results = tagger.tag_iter(images, &options, &control).unwrap();
        assert!(results.next().unwrap().is_ok());
        control.cancel();
        let rest: Vec<_> = results.collect();
        assert_eq!(rest.len(), 8);
        assert!(rest[1..].iter().all(|r| r.as_ref().unwrap_err().kind() == ErrorKind::Cancelled));
        assert!(tagger.tag(picture(3), &options).is_ok());
    }
}

#[test]
fn one_tagger_serves_several_threads() {
    fn is_shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let tagger = is_shared(load(&goldens().join("timm/vit-wd")));
    let expected = tagger.tag(picture(4), &TagOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tags = tagger.tag(picture(4), &TagOptions::default()).unwrap();
                assert_eq!(tags, expected);
            });
        }
    });
}
