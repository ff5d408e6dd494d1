//! Sigmas and noise against what diffusers and torch give; `make_edit.py` says how the files were
//! made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::config::FlowMatchEuler;
use super::flow_match::Rounding;
use super::noise::TorchGenerator;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit")
}

/// Every tensor of a file, by its name.
fn goldens(file: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder().join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    tensors.iter().map(|(name, tensor)| (name.to_owned(), values(tensor.data()))).collect()
}

fn config(name: &str) -> FlowMatchEuler {
    let file = folder().join(format!("scheduler_{name}.json"));
    FlowMatchEuler::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn schedules_equal_the_reference() {
    let goldens = goldens("schedule.safetensors");
    assert!(goldens.len() > 180);
    for (key, expected) in &goldens {
        let parts: Vec<&str> = key.split('/').collect();
        let number = |i: usize| parts[i].parse::<usize>().unwrap();
        let config = config(parts[0]);
        let schedule = config.schedule(number(1), number(2)).unwrap();
        assert_eq!(schedule.steps(), number(1), "{key}");
        let (found, tolerance): (Vec<f32>, f32) = match parts[3] {
            "sigmas" => (schedule.sigmas().to_vec(), 1e-7),
            "timesteps" => (schedule.timesteps().collect(), 1e-4),
            "times_f32" => (schedule.times(Rounding::Exact).collect(), 1e-7),
            "times_bf16" => (schedule.times(Rounding::Bf16).collect(), 0.0),
            "factors_f32" => (schedule.factors(Rounding::Exact).collect(), 1e-7),
            "factors_bf16" => (schedule.factors(Rounding::Bf16).collect(), 0.0),
            other => panic!("{other}"),
        };
        let off = largest_difference(&found, expected);
        assert!(off <= tolerance, "{key}: off by {off:e}\n{found:?}\n{expected:?}");
    }
}

#[test]
fn lightning_overrides_what_the_folder_says() {
    let schedule = config("published").lightning().schedule(4, 4096).unwrap();
    assert_eq!(schedule, config("lightning").schedule(4, 1024).unwrap());
    assert!(largest_difference(schedule.sigmas(), &[1.0, 0.9, 0.75, 0.5, 0.0]) <= 1e-7);
}

#[test]
fn one_step_goes_all_the_way() {
    for name in ["published", "lightning", "static"] {
        let schedule = config(name).schedule(1, 4096).unwrap();
        assert_eq!(schedule.sigmas(), [1.0, 0.0], "{name}");
    }
    let error = config("published").schedule(0, 4096).unwrap_err();
    assert_eq!(error.context()[0], ("field", "num_inference_steps".to_owned()));
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (key, value) in [
        ("use_karras_sigmas", "true"),
        ("use_exponential_sigmas", "true"),
        ("use_beta_sigmas", "true"),
        ("stochastic_sampling", "true"),
        ("invert_sigmas", "true"),
        ("time_shift_type", "\"cubic\""),
        ("sample_sigmas", "[1.0, 0.5]"),
        ("_class_name", "\"EulerDiscreteScheduler\""),
        ("shift", "\"3\""),
        ("shift", "-1"),
        ("shift_terminal", "1.5"),
        ("num_train_timesteps", "0"),
        ("use_dynamic_shifting", "1"),
    ] {
        let error = FlowMatchEuler::parse(&format!("{{\"{key}\": {value}}}")).unwrap_err();
        assert!(error.context().contains(&("field", key.to_owned())), "{key}: {error}");
    }
    let same = r#"{"use_dynamic_shifting": true, "max_image_seq_len": 256}"#;
    assert!(FlowMatchEuler::parse(same).is_err());
    assert!(FlowMatchEuler::parse("[]").is_err());
    let off = r#"{"use_karras_sigmas": false, "invert_sigmas": null, "_name": 3, "other": null}"#;
    assert_eq!(FlowMatchEuler::parse(off).unwrap(), FlowMatchEuler::default());
}

#[test]
fn shifts_that_make_no_sigmas_are_refused() {
    let text = r#"{"use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": -2}"#;
    assert!(FlowMatchEuler::parse(text).unwrap().schedule(4, 256).is_err());
    let text = r#"{"use_dynamic_shifting": true, "max_shift": 1e300}"#;
    assert!(FlowMatchEuler::parse(text).unwrap().schedule(4, 4096).is_err());
}

#[test]
fn noise_equals_torch() {
    let goldens = goldens("noise.safetensors");
    assert!(goldens.len() > 80);
    let (mut off, mut unequal, mut count) = (0f32, 0, 0);
    for (key, expected) in goldens.iter().filter(|(key, _)| !key.starts_with("shared/")) {
        let (seed, length) = key.split_once('/').unwrap();
        let seed = seed.parse::<u64>().unwrap_or_else(|_| seed.parse::<i64>().unwrap() as u64);
        let found = TorchGenerator::new(seed).normal(length.parse().unwrap());
        // Of a long noise only the end is kept.
        let found = &found[found.len() - expected.len()..];
        off = off.max(largest_difference(found, expected));
        assert!(off <= 1e-6, "{key}: off by {off:e}");
        unequal += found.iter().zip(expected).filter(|(a, b)| a != b).count();
        count += found.len();
    }
    println!("{unequal} of {count} numbers unequal, by at most {off:e}");
    assert_eq!(unequal, 0);
}

#[test]
fn a_generator_goes_on_where_torch_goes_on() {
    let goldens = goldens("noise.safetensors");
    let mut draws: Vec<(usize, usize, &Vec<f32>)> = goldens
        .iter()
        .filter_map(|(key, values)| {
            let (place, count) = key.strip_prefix("shared/")?.split_once('/')?;
            Some((place.parse().unwrap(), count.parse().unwrap(), values))
        })
        .collect();
    draws.sort_unstable_by_key(|(place, ..)| *place);
    let mut generator = TorchGenerator::new(99);
    for (place, count, expected) in draws {
        let off = largest_difference(&generator.normal(count), expected);
        assert!(off <= 1e-6, "draw {place}: off by {off:e}");
    }
}
