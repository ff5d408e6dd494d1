//! What models may be made of: folders that are damaged, files for one part, LoRA, GGUF.

use candle_core::DType;

use super::*;
use crate::device::testing::device;
use crate::weights::SafeTensorsFile;

#[test]
fn what_is_wrong_in_a_folder_is_named() {
    let refused = |damage: &dyn Fn(&Folder), kind: ErrorKind, words: &[&str]| {
        let folder = Folder::of("plus");
        damage(&folder);
        let error = folder.load(&f32()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
        }
    };
    let remove =
        |file: &'static str| move |folder: &Folder| fs::remove_file(folder.path(file)).unwrap();
    let shard = "text_encoder/model-00002-of-00002.safetensors";
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "processor/tokenizer.json",
        "processor/preprocessor_config.json",
        "transformer/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        shard,
    ] {
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".safetensors");
        refused(&remove(file), ErrorKind::ModelNotFound, &[name]);
    }
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    let truncate = |folder: &Folder| {
        let bytes = fs::read(folder.path(weights)).unwrap();
        fs::write(folder.path(weights), &bytes[..bytes.len() / 2]).unwrap();
    };
    refused(&truncate, ErrorKind::ModelInvalid, &["diffusion_pytorch_model.safetensors"]);
    let pickle = |folder: &Folder| {
        let to = folder.path("transformer/diffusion_pytorch_model.bin");
        fs::rename(folder.path(weights), to).unwrap();
    };
    refused(&pickle, ErrorKind::ModelNotFound, &["diffusion_pytorch_model.bin", "pickle"]);
    let not_safetensors =
        |folder: &Folder| fs::write(folder.path(weights), b"PK\x03\x04xxxx").unwrap();
    refused(&not_safetensors, ErrorKind::ModelInvalid, &["zip"]);
    for (file, key, value, words) in [
        (
            "transformer/config.json",
            "num_layers",
            json!(4),
            &["transformer_blocks.3", "missing"][..],
        ),
        (
            "transformer/config.json",
            "num_layers",
            json!(2),
            &["does not account for", "part=transformer"],
        ),
        (
            "transformer/config.json",
            "joint_attention_dim",
            json!(40),
            &["joint_attention_dim", "40 and 32"],
        ),
        ("vae/config.json", "base_dim", json!(8), &["shape", "part=vae"]),
        (
            "text_encoder/config.json",
            "num_hidden_layers",
            json!(3),
            &["layers.2", "part=text_encoder"],
        ),
        ("processor/preprocessor_config.json", "patch_size", json!(16), &["patch_size"]),
    ] {
        refused(&|folder| folder.change(file, key, value.clone()), ErrorKind::ModelInvalid, words);
    }
    let other = |folder: &Folder| {
        folder.change("model_index.json", "_class_name", json!("StableDiffusionXLPipeline"));
    };
    refused(&other, ErrorKind::Unsupported, &["StableDiffusionXLPipeline"]);
    let error = Folder::of("edit").load(&LoadOptions::default().precision(Precision::F16));
    assert!(error.unwrap_err().to_string().contains("overflow f16"));
    // The same is found when blocks are read one by one.
    let folder = Folder::of("plus");
    folder.change("transformer/config.json", "num_layers", json!(4));
    let error = folder.load(&f32().max_memory(80 << 20)).unwrap_err();
    assert!(error.to_string().contains("transformer_blocks.3"), "{error}");
}

#[test]
fn loras_go_without_a_trace() {
    let pipeline = Folder::of("zero").pipeline();
    let values = |loras: &[Lora]| {
        pipeline.set_loras(loras).unwrap();
        let made = pipeline.edit(&requests()[0], &options().keep_values(true)).unwrap();
        values(&made[0]).to_vec()
    };
    let plain = values(&[]);
    let strong = values(&[lora()]);
    assert_ne!(plain, strong);
    assert_eq!(values(&[lora().scale(0.0)]), plain);
    assert_eq!(values(&[lora(), lora().scale(-1.0), lora()]), strong);
    assert_eq!(values(&[]), plain);
    // A file that does not fit changes nothing.
    values(&[lora()]);
    let other = goldens().join("vae/diffusion_pytorch_model.safetensors");
    let error = pipeline.set_loras(&[Lora::new(other)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    let made = pipeline.edit(&requests()[0], &options().keep_values(true)).unwrap();
    assert_eq!(super::tests::values(&made[0]), strong);
    let error = pipeline.set_loras(&[Lora::new("none.safetensors")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound, "{error}");
}

#[test]
fn a_part_may_come_from_another_file() {
    let folder = Folder::of("zero");
    let expected = folder.pipeline().edit(&requests()[0], &options()).unwrap();
    // As ComfyUI has it: with its prefix, and with a marker for `zero_cond_t`.
    let weights = folder.path("transformer/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let marker = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![0], &[]);
    let named = tensors.iter().map(|(name, view)| (format!("model.diffusion_model.{name}"), view));
    let named: Vec<_> =
        named.chain([("__index_timestep_zero__".into(), marker.unwrap())]).collect();
    let single = folder.path("single.safetensors");
    safetensors::serialize_to_file(named, None, &single).unwrap();
    fs::remove_file(weights).unwrap();
    folder.change("transformer/config.json", "zero_cond_t", json!(false));
    let pipeline = folder.load(&f32().transformer(&single)).unwrap();
    let found = pipeline.edit(&requests()[0], &options()).unwrap();
    assert_eq!(found[0].image, expected[0].image);
    let error = folder.load(&f32().transformer(&single).vae(&single)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("single.safetensors"), "{error}");
    let error = folder.load(&f32().transformer("none.gguf")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound, "{error}");
}

/// A GGUF file with the transformer of `folder` in blocks of 8 bits, and the same numbers as safetensors.
fn quantised(folder: &Folder, gguf: &Path, plain: &Path) {
    let stored = folder.path("transformer/diffusion_pytorch_model.safetensors");
    let stored = SafeTensorsFile::open(&stored).unwrap();
    let (mut infos, mut data, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    for name in stored.names() {
        let tensor = stored.load(&name, DType::F32, &device()).unwrap();
        let (shape, values) = (tensor.dims(), tensor.flatten_all().unwrap());
        let values: Vec<f32> = values.to_vec1().unwrap();
        // GGUF has the sizes of a shape the other way round.
        infos.extend(text(&name));
        infos.extend((shape.len() as u32).to_le_bytes());
        infos.extend(shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        let in_blocks = shape.len() == 2 && shape[1] % 32 == 0;
        infos.extend(if in_blocks { 8u32 } else { 0u32 }.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        let mut read = Vec::with_capacity(4 * values.len());
        for block in values.chunks(32) {
            if !in_blocks {
                let plain = block.iter().flat_map(|value| value.to_le_bytes());
                data.extend(plain.clone());
                read.extend(plain);
                continue;
            }
            let largest = block.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let scale = half::f16::from_f32(largest / 127.0);
            data.extend(scale.to_le_bytes());
            for value in block {
                let number = (value / scale.to_f32()).round().clamp(-127.0, 127.0) as i8;
                data.push(number as u8);
                read.extend((f32::from(number) * scale.to_f32()).to_le_bytes());
            }
        }
        data.resize(data.len().next_multiple_of(32), 0);
        numbers.push((name, shape.to_vec(), read));
    }
    let counts = [numbers.len() as u64, 1].map(u64::to_le_bytes).concat();
    let key = [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("qwen_image")];
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &key.concat(), &infos].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    fs::write(gguf, file).unwrap();
    let views = numbers.iter().map(|(name, shape, data)| {
        let kind = safetensors::Dtype::F32;
        (name, safetensors::tensor::TensorView::new(kind, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views, None, plain).unwrap();
}

#[test]
fn a_gguf_file_gives_what_its_numbers_give() {
    let folder = Folder::of("zero");
    let (gguf, plain) = (folder.path("q8.gguf"), folder.path("q8.safetensors"));
    quantised(&folder, &gguf, &plain);
    let edit = |load: &LoadOptions| {
        folder.load(load).unwrap().edit(&requests()[1], &options()).unwrap().remove(0).image
    };
    let expected = edit(&f32().transformer(&plain));
    assert_ne!(expected, edit(&f32()));
    assert_eq!(edit(&f32().transformer(&gguf)), expected);
    assert_eq!(edit(&f32().transformer(&gguf).max_memory(80_000_000)), expected);
    let cut = fs::read(&gguf).unwrap();
    fs::write(&gguf, &cut[..cut.len() - 100]).unwrap();
    let error = folder.load(&f32().transformer(&gguf)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("q8.gguf"), "{error}");
}
