//! Schedules and samplers against k-diffusion, diffusers and formulas; `make_generate_samplers.py`
//! says which is compared with which.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};

use super::*;
use crate::error::ErrorKind;
use crate::schedule::noise::TorchGenerator;
use crate::schedule::preconditioning::Preconditioning;
use crate::schedule::scheduler::Scheduler;
use crate::schedule::{discrete::Discrete, preconditioning::Prediction};

/// How far results may be off, of the largest number of each.
const TOLERANCE: f64 = 1e-5;
/// The lengths of adaptive steps follow differences of nearly equal numbers, so they differ in f32:
/// k-diffusion in f32 is 4e-4 from k-diffusion in f64.
const ADAPTIVE_TOLERANCE: f64 = 1e-3;

fn goldens(file: &str) -> BTreeMap<String, Tensor> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-samplers");
    safetensors::load(folder.join(file), &Device::Cpu).unwrap().into_iter().collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The largest number; none if one is none.
fn worst_of(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |max: f64, x| if max.is_nan() || x <= max { max } else { x })
}

/// The largest difference, of the largest expected value.
fn deviation(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    worst_of(off) / largest
}

/// The same, each difference of its own expected value.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    let off = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() / b.abs() };
    worst_of(found.iter().zip(expected).map(off))
}

/// The denoiser of the goldens, in f64.
fn denoise(latents: &Tensor, sigma: f64) -> Tensor {
    let numbers = values(latents);
    let count = numbers.len() as f64;
    let (variance, total) = (0.09, 0.09 + sigma * sigma);
    let image = numbers.iter().enumerate().map(|(i, x)| {
        let mean = 0.5 + i as f64 / count;
        let pull = (mean * x / total).tanh() * mean * sigma * sigma;
        ((variance * x + pull) / total) as f32
    });
    Tensor::from_iter(image, &Device::Cpu).unwrap().reshape(latents.shape()).unwrap()
}

/// Runs a sampler to its end; says how often it asked and what steps it told of.
fn run(sampler: &mut Sampler) -> (usize, Vec<usize>) {
    let (mut evaluations, mut steps) = (0, Vec::new());
    while let Some(query) = sampler.query() {
        let denoised = denoise(query.latents, query.sigma);
        evaluations += 1;
        steps.extend(sampler.accept(&denoised).unwrap().map(|done| done.step));
    }
    (evaluations, steps)
}

fn start(scheduler: Scheduler, sigmas: &[f64]) -> Tensor {
    let start = &goldens("samplers.safetensors")["start"];
    (start * scheduler.noise_scale(sigmas)).unwrap()
}

fn torch_noise(seed: u64) -> Noise {
    Noise::new(TorchGenerator::new(seed))
}

/// A sampler as the goldens start it, with other noise.
fn sampler(kind: SamplerKind, scheduler: Scheduler, steps: usize) -> Sampler {
    let sigmas = scheduler.sigmas(kind, steps, 1.0).unwrap();
    let latents = start(scheduler, &sigmas);
    Sampler::new(kind, &sigmas, latents, torch_noise(7)).unwrap()
}

#[test]
fn samplers_equal_the_references() {
    let goldens = goldens("samplers.safetensors");
    let noise = &goldens["noise"];
    let rows = noise.dim(0).unwrap();
    let recorded: Vec<_> = (0..rows).map(|row| noise.narrow(0, row, 1).unwrap()).collect();
    let mut worst: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
    for (key, expected) in goldens.iter().filter(|(key, _)| key.contains('/')) {
        let [kind, scheduler, steps, part] = key.split('/').collect::<Vec<_>>()[..] else {
            panic!("{key}")
        };
        let scheduler: Scheduler = scheduler.parse().unwrap();
        let (steps, part): (usize, f64) = (steps.parse().unwrap(), part.parse().unwrap());
        // The names that mean the same are compared to the same.
        for kind in [kind.to_owned(), format!("{kind}_gpu")] {
            let Ok(kind) = kind.parse::<SamplerKind>() else { continue };
            let sigmas = scheduler.sigmas(kind, steps, part).unwrap();
            let latents = start(scheduler, &sigmas);
            let noise = Noise::recorded(recorded.clone());
            let mut sampler = Sampler::new(kind, &sigmas, latents, noise).unwrap();
            let (_, told) = run(&mut sampler);
            assert_eq!(told, (1..=sampler.steps().unwrap_or(told.len())).collect::<Vec<_>>());
            let off = deviation(&values(sampler.latents()), &values(expected));
            let entry = worst.entry(kind.name()).or_default();
            if off.is_nan() || off > entry.0 {
                *entry = (off, key);
            }
        }
    }
    assert_eq!(worst.len(), SamplerKind::ALL.len(), "a sampler has no golden");
    for (kind, (off, key)) in &worst {
        println!("{kind}: {off:.1e} ({key})");
    }
    for (kind, (off, _)) in &worst {
        let is_adaptive = *kind == SamplerKind::DpmAdaptive.name();
        assert!(*off <= if is_adaptive { ADAPTIVE_TOLERANCE } else { TOLERANCE }, "{worst:#?}");
    }
}

#[test]
fn schedules_equal_the_references() {
    let mut worst = BTreeMap::new();
    for (key, expected) in &goldens("schedules.safetensors") {
        let [scheduler, sampler, steps, part] = key.split('/').collect::<Vec<_>>()[..] else {
            continue;
        };
        let scheduler: Scheduler = scheduler.parse().unwrap();
        let (steps, part) = (steps.parse().unwrap(), part.parse().unwrap());
        let found = scheduler.sigmas(sampler.parse().unwrap(), steps, part);
        let off = relative(&found.unwrap(), &values(expected));
        assert!(off <= 1e-9, "{key}: off by {off:e}");
        let entry: &mut f64 = worst.entry(scheduler.name()).or_default();
        *entry = entry.max(off);
    }
    println!("{worst:?}");
    assert_eq!(worst.len(), Scheduler::ALL.len(), "a scheduler has no golden");
}

#[test]
fn sigmas_and_timesteps_convert_both_ways() {
    let goldens = goldens("schedules.safetensors");
    let golden = |name: &str| values(&goldens[&format!("timesteps/{name}")]);
    let (sigmas, timesteps) = (golden("sigmas"), golden("timesteps"));
    let table = Discrete::sdxl();
    let found: Vec<_> = timesteps.iter().map(|t| table.sigma(*t)).collect();
    assert!(deviation(&found, &golden("sigmas_of")) < 1e-9);
    let found: Vec<_> = sigmas.iter().map(|sigma| table.timestep(*sigma)).collect();
    assert!(deviation(&found, &golden("of_sigmas")) < 1e-9, "{found:?}");
    let found: Vec<_> = sigmas.iter().map(|sigma| table.nearest_timestep(*sigma)).collect();
    assert_eq!(found, golden("nearest"));
    for below in 0..999 {
        let nearest = |t: f64| table.nearest_timestep(table.sigma(t)) - f64::from(below);
        let places = [0.49, 0.5, 0.51].map(|part| nearest(f64::from(below) + part));
        assert_eq!(places, [0.0, 1.0, 1.0], "{below}");
    }
    for table in [table, Discrete::distilled()] {
        for t in [19.0, 25.5, 500.25, 998.0, 999.0] {
            assert!((table.timestep(table.sigma(t)) - t).abs() < 1e-9, "{t}");
        }
        assert_eq!(table.sigma(1e9), table.sigma_max());
        assert_eq!(table.sigma(-1.0), table.sigma_min());
    }
    assert_eq!((Discrete::distilled().len(), Discrete::distilled().first_timestep()), (50, 19.0));
    assert!((Discrete::sdxl().sigma_max() - 14.6146).abs() < 1e-4);
    assert!((Discrete::sdxl().sigma_min() - 0.029_167).abs() < 1e-6);
}

#[test]
fn preconditionings_equal_the_references() {
    let goldens = goldens("schedules.safetensors");
    let sigmas = values(&goldens["timesteps/sigmas"]);
    let check = |name: &str, scheduler: Scheduler, prediction: Prediction| {
        let expected: Vec<Vec<f64>> = goldens[&format!("scalings/{name}")].to_vec2().unwrap();
        let at = |sigma: &f64| scheduler.preconditioning(prediction, *sigma);
        let fields: [fn(Preconditioning) -> f64; 4] =
            [|p| p.c_in, |p| p.c_skip, |p| p.c_out, |p| p.c_noise];
        for (i, (field, expected)) in fields.iter().zip(&expected).enumerate() {
            let found: Vec<f64> = sigmas.iter().map(at).map(field).collect();
            // The smallest and the largest sigma are beyond the table, where k-diffusion has no end.
            let off = relative(&found, expected);
            assert!(off <= 1e-6, "{name} {i}: {off:e}\n{found:?}\n{expected:?}");
        }
    };
    check("epsilon", Scheduler::Karras, Prediction::Epsilon);
    check("v", Scheduler::Normal, Prediction::V);
    check("lcm", Scheduler::Lcm, Prediction::Epsilon);
    check("edm", Scheduler::EdmPlayground, Prediction::Epsilon);
    let p = Preconditioning { c_in: 1.0, c_noise: 0.0, c_skip: 0.5, c_out: -2.0 };
    let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
    let denoised = p.denoised(&tensor([4.0, 8.0]), &tensor([1.0, -1.0])).unwrap();
    assert_eq!(values(&denoised), [0.0, 6.0]);
}

#[test]
fn names_round_trip() {
    for kind in SamplerKind::ALL {
        assert_eq!(kind.to_string().parse::<SamplerKind>().unwrap(), *kind);
    }
    for scheduler in Scheduler::ALL {
        assert_eq!(scheduler.to_string().parse::<Scheduler>().unwrap(), *scheduler);
    }
    assert_eq!((SamplerKind::ALL.len(), Scheduler::ALL.len()), (24, 11));
    let error = "Euler".parse::<SamplerKind>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.context(), [("field", "sampler".to_owned())]);
    assert!(error.message().starts_with("unknown sampler `Euler`; known: euler, euler_anc"));
    let error = "".parse::<Scheduler>().unwrap_err();
    assert_eq!(error.context(), [("field", "scheduler".to_owned())]);
    assert!(error.message().ends_with("tcd, edm_playground_v2.5"), "{error}");
}

#[test]
fn what_makes_no_schedule_is_refused_by_name() {
    let field = |scheduler: Scheduler, kind, steps, part| {
        let error = scheduler.sigmas(kind, steps, part).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.context()[0].1.clone()
    };
    for scheduler in Scheduler::ALL {
        for kind in [SamplerKind::Euler, SamplerKind::UniPc] {
            for steps in [0, 1001, usize::MAX] {
                assert_eq!(field(*scheduler, kind, steps, 1.0), "steps");
            }
            for part in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY, 1e-300] {
                assert_eq!(field(*scheduler, kind, 4, part), "denoise");
            }
        }
    }
    assert!(Scheduler::Turbo.sigmas(SamplerKind::Euler, 10, 1.0).is_ok());
    assert_eq!(field(Scheduler::Turbo, SamplerKind::Euler, 11, 1.0), "steps");
    assert_eq!(field(Scheduler::Turbo, SamplerKind::Dpm2, 10, 1.0), "steps");
    assert_eq!(field(Scheduler::Turbo, SamplerKind::Euler, 6, 0.5), "steps");
    assert_eq!(field(Scheduler::Simple, SamplerKind::Euler, 900, 0.5), "steps");
}

#[test]
fn every_schedule_descends_to_zero() {
    for scheduler in Scheduler::ALL {
        for steps in [1, 2, 3, 7, 10, 30, 60, 333, 1000] {
            for part in [1.0, 0.9999, 0.5, 0.05] {
                for kind in [SamplerKind::Euler, SamplerKind::Dpm2] {
                    let Ok(sigmas) = scheduler.sigmas(kind, steps, part) else { continue };
                    assert!(sigmas.is_sorted_by(|a, b| a > b), "{scheduler} {steps} {part}");
                    assert_eq!(sigmas.last(), Some(&0.0));
                    let is_uneven = *scheduler == Scheduler::DdimUniform;
                    assert!(is_uneven || sigmas.len() == steps + 1, "{scheduler} {steps} {part}");
                }
            }
        }
    }
}

#[test]
fn noise_is_scaled_to_the_first_sigma() {
    let scale = |scheduler: Scheduler, part| {
        scheduler.noise_scale(&scheduler.sigmas(SamplerKind::Euler, 4, part).unwrap())
    };
    let max = Discrete::sdxl().sigma_max();
    assert!((scale(Scheduler::Karras, 1.0) - max.hypot(1.0)).abs() < 1e-9);
    assert!((scale(Scheduler::EdmPlayground, 1.0) - 120f64.hypot(1.0)).abs() < 1e-9);
    let partial = Scheduler::Karras.sigmas(SamplerKind::Euler, 4, 0.5).unwrap();
    assert_eq!(scale(Scheduler::Karras, 0.5), partial[0]);
    assert!(scale(Scheduler::AlignYourSteps, 1.0) > 14.64);
}

#[test]
fn steps_are_counted_as_users_ask_for_them() {
    use SamplerKind as K;
    for kind in SamplerKind::ALL {
        for steps in [2, 3, 4, 5, 6, 20, 40] {
            let mut sampler = sampler(*kind, Scheduler::Karras, steps);
            assert_eq!(sampler.steps(), (*kind != K::DpmAdaptive).then_some(steps));
            let (evaluations, told) = run(&mut sampler);
            assert_eq!(told, (1..=told.len()).collect::<Vec<_>>(), "{kind}");
            assert_eq!(sampler.steps_done(), told.len());
            let expected = match kind {
                K::Heun | K::Dpm2 | K::Dpm2Ancestral | K::DpmPp2sAncestral => 2 * steps - 1,
                K::DpmPpSde | K::DpmPpSdeGpu | K::Restart => 2 * steps - 1,
                K::HeunPp2 => 3 * steps - 3,
                K::DpmAdaptive => {
                    assert!(evaluations > 10 && evaluations < 500);
                    continue;
                }
                _ => steps,
            };
            assert_eq!((evaluations, told.len()), (expected, steps), "{kind}");
        }
    }
}

#[test]
fn an_answer_that_is_not_accepted_changes_nothing() {
    for kind in SamplerKind::ALL {
        let mut plain = sampler(*kind, Scheduler::Karras, 24);
        let mut disturbed = plain.clone();
        run(&mut plain);
        let wrong = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        while let Some(query) = disturbed.query() {
            let denoised = denoise(query.latents, query.sigma);
            let before = (values(query.latents), query.sigma, disturbed.steps_done());
            assert!(disturbed.accept(&wrong).is_err());
            let query = disturbed.query().unwrap();
            assert_eq!((values(query.latents), query.sigma, disturbed.steps_done()), before);
            // An answer that another copy took, noise and all.
            disturbed.clone().accept(&denoised).unwrap();
            disturbed.accept(&denoised).unwrap();
        }
        assert_eq!(values(plain.latents()), values(disturbed.latents()), "{kind}");
        let error = disturbed.accept(plain.latents()).unwrap_err();
        assert!(error.to_string().contains("done"), "{error}");
    }
}

#[test]
fn what_no_sampler_can_do_is_refused() {
    let latents = Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap();
    let field = |kind, sigmas: &[f64]| {
        let sampler = Sampler::new(kind, sigmas, latents.clone(), torch_noise(0));
        sampler.err().map(|error| error.context()[0].1.clone())
    };
    let nan = f64::NAN;
    for kind in SamplerKind::ALL {
        for sigmas in
            [&[][..], &[1.0], &[1.0, 1.0], &[1.0, 2.0], &[1.0, -1.0], &[nan, 0.0], &[1.0, nan]]
        {
            assert_eq!(field(*kind, sigmas).as_deref(), Some("sigmas"), "{kind} {sigmas:?}");
        }
        assert_eq!(field(*kind, &[f64::INFINITY, 0.0]).as_deref(), Some("sigmas"));
        let one_step = field(*kind, &[1.0, 0.0]);
        let needs_two = matches!(kind, SamplerKind::DpmFast | SamplerKind::DpmAdaptive);
        assert_eq!(one_step.as_deref(), needs_two.then_some("steps"), "{kind}");
    }
}

#[test]
fn a_run_may_end_above_zero_and_go_on() {
    // What a refiner does: it takes over in the middle of a schedule.
    let sigmas = Scheduler::Karras.sigmas(SamplerKind::Euler, 12, 1.0).unwrap();
    for kind in SamplerKind::ALL {
        let latents = start(Scheduler::Karras, &sigmas);
        let mut first = Sampler::new(*kind, &sigmas[..9], latents, torch_noise(3)).unwrap();
        run(&mut first);
        let latents = first.latents().clone();
        let mut second = Sampler::new(*kind, &sigmas[8..], latents, torch_noise(4)).unwrap();
        run(&mut second);
        let end = values(second.latents());
        // The denoiser's images are around plus or minus 0.5 to 1.5.
        let mean = end.iter().map(|x| x.abs()).sum::<f64>() / end.len() as f64;
        assert!((0.7..1.3).contains(&mean), "{kind}: {end:?}");
    }
}

#[test]
fn an_adaptive_run_does_not_go_on_for_ever() {
    let mut adaptive = sampler(SamplerKind::DpmAdaptive, Scheduler::Karras, 4);
    let mut evaluations = 0u32;
    let error = loop {
        let latents = adaptive.query().unwrap().latents.clone();
        evaluations += 1;
        let nonsense = (latents * (f64::from(evaluations % 7) * 1e3)).unwrap();
        if let Err(error) = adaptive.accept(&nonsense) {
            break error;
        }
        assert!(evaluations < 10_000);
    };
    assert!(error.to_string().contains("dpm_adaptive"), "{error}");
    let mut adaptive = sampler(SamplerKind::DpmAdaptive, Scheduler::Karras, 4);
    let nan = (adaptive.latents() * f64::NAN).unwrap();
    let error = (0..3).find_map(|_| adaptive.accept(&nan).err()).unwrap();
    assert!(error.to_string().contains("dpm_adaptive"), "{error}");
}

#[test]
fn pieces_of_a_brownian_path_add_up() {
    let like = Tensor::zeros((1, 4, 64, 64), DType::F32, &Device::Cpu).unwrap();
    let mut noise = torch_noise(5);
    let mut piece = |from: f64, to: f64| {
        let scale = (to - from).abs().sqrt();
        values(&noise.brownian(from, to, &like).unwrap())
            .iter()
            .map(|x| x * scale)
            .collect::<Vec<_>>()
    };
    let variance = |piece: &[f64]| piece.iter().map(|x| x * x).sum::<f64>() / piece.len() as f64;
    let product =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64;
    // A range, beyond it below and above, and then refined.
    let whole = piece(10.0, 4.0);
    let below = piece(4.0, 1.0);
    let above = piece(12.0, 10.0);
    let (first, second) = (piece(10.0, 7.0), piece(7.0, 4.0));
    let inner = piece(6.0, 4.5);
    let (left, right) = (piece(7.0, 6.0), piece(4.5, 4.0));
    let sum = |parts: &[&[f64]]| {
        (0..parts[0].len()).map(|i| parts.iter().map(|part| part[i]).sum()).collect::<Vec<f64>>()
    };
    assert!(deviation(&sum(&[&first, &second]), &whole) < 1e-6);
    assert!(deviation(&sum(&[&left, &inner, &right]), &second) < 1e-6);
    assert!(deviation(&piece(4.0, 7.0), &second.iter().map(|x| -x).collect::<Vec<_>>()) < 1e-6);
    // 16384 numbers: a variance is known to about a hundredth of it.
    for (piece, expected) in [
        (&whole, 6.0),
        (&below, 3.0),
        (&above, 2.0),
        (&first, 3.0),
        (&second, 3.0),
        (&inner, 1.5),
        (&left, 1.0),
        (&right, 0.5),
    ] {
        assert!((variance(piece) / expected - 1.0).abs() < 0.05, "{} {expected}", variance(piece));
    }
    for (a, b) in [(&whole, &below), (&whole, &above), (&first, &second), (&left, &inner)] {
        let correlation = product(a, b) / (variance(a) * variance(b)).sqrt();
        assert!(correlation.abs() < 0.04, "{correlation}");
    }
}

#[test]
fn noise_is_that_of_the_seed_and_goes_on_after_the_initial_noise() {
    let mut generator = TorchGenerator::new(11);
    let initial = generator.normal(32);
    let next = generator.clone().normal(32);
    let sigmas = [2.0, 1.0, 0.5, 0.0];
    for kind in SamplerKind::ALL {
        let latents =
            Tensor::from_slice(&initial, (1, 4, 2, 4), &Device::Cpu).unwrap().affine(2.0, 0.0);
        let latents = latents.unwrap();
        let make = || {
            let noise = Noise::new(generator.clone());
            Sampler::new(*kind, &sigmas, latents.clone(), noise).unwrap()
        };
        let (mut one, mut two) = (make(), make());
        run(&mut one);
        run(&mut two);
        assert_eq!(values(one.latents()), values(two.latents()), "{kind}");
    }
    let latents = Tensor::zeros(32, DType::F32, &Device::Cpu).unwrap();
    let mut lcm =
        Sampler::new(SamplerKind::Lcm, &sigmas, latents.clone(), Noise::new(generator)).unwrap();
    lcm.accept(&latents).unwrap();
    assert_eq!(lcm.latents().to_vec1::<f32>().unwrap(), next);
}

#[test]
fn noise_leads_to_the_distribution_of_images() {
    // Images with normal numbers: the best denoiser is a factor, and many steps of any sampler that
    // solves the equations lead from noise to the deviation of the images.
    use SamplerKind as K;
    let deviation = 0.5;
    let best = |sigma: f64| (deviation * deviation) / (deviation * deviation + sigma * sigma);
    for kind in [
        K::Euler,
        K::EulerAncestral,
        K::Dpm2Ancestral,
        K::DpmPp2sAncestral,
        K::DpmPpSde,
        K::DpmPp2mSde,
        K::DpmPp3mSde,
        K::Ddpm,
        K::Restart,
    ] {
        let sigmas = Scheduler::Karras.sigmas(kind, 150, 1.0).unwrap();
        let mut generator = TorchGenerator::new(13);
        let initial = generator.normal(4096);
        let latents = Tensor::new(initial, &Device::Cpu).unwrap();
        let latents = (latents * Scheduler::Karras.noise_scale(&sigmas)).unwrap();
        let mut sampler = Sampler::new(kind, &sigmas, latents, Noise::new(generator)).unwrap();
        while let Some(query) = sampler.query() {
            let denoised = (query.latents * best(query.sigma)).unwrap();
            sampler.accept(&denoised).unwrap();
        }
        let end = values(sampler.latents());
        let found = (end.iter().map(|x| x * x).sum::<f64>() / end.len() as f64).sqrt();
        assert!((found / deviation - 1.0).abs() < 0.06, "{kind}: {found}");
    }
}

#[test]
fn more_steps_come_nearer_to_the_flow() {
    // The deterministic samplers solve one equation: with many steps they agree.
    let mut reference = sampler(SamplerKind::Heun, Scheduler::Karras, 400);
    run(&mut reference);
    let expected = values(reference.latents());
    use SamplerKind as K;
    for (kind, bound) in [
        (K::Euler, 2e-2),
        (K::Ddim, 2e-2),
        (K::Heun, 2e-4),
        (K::HeunPp2, 2e-2),
        (K::Dpm2, 5e-3),
        (K::Lms, 2e-3),
        (K::DpmPp2m, 5e-3),
        (K::UniPc, 5e-3),
        (K::UniPcBh2, 5e-3),
    ] {
        let mut sampler = sampler(kind, Scheduler::Karras, 200);
        run(&mut sampler);
        let off = deviation(&values(sampler.latents()), &expected);
        assert!(off < bound, "{kind}: {off:e}");
    }
}
