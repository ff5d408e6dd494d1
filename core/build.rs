//! Compiles the kernels for CUDA with nvcc, where the feature asks for them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "src/kernels/cuda/kernels.cu";
/// For one generation alone, which has instructions that no other one has.
const HOPPER: (&str, &str) = ("src/kernels/cuda/hopper.cu", "90a");
/// The oldest generation that the kernels need: what is built for it runs on all later ones.
const OLDEST: &str = "80";

fn main() {
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        println!("cargo:rerun-if-changed=src/kernels");
        compile(&PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")));
    } else {
        println!("cargo:rerun-if-changed=build.rs");
    }
}

/// `kernels.ptx`, for the generation that `CUDA_COMPUTE_CAP` names, and `hopper.ptx`.
fn compile(out: &Path) {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP", "PATH", "TAGBRUSH_PTX"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let nvcc = env::var_os("NVCC").map(PathBuf::from).unwrap_or_else(|| {
        let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
        home.filter(|nvcc| nvcc.exists()).unwrap_or_else(|| "nvcc".into())
    });
    let generation = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| OLDEST.to_owned());
    for (kernels, generation) in [(KERNELS, generation.as_str()), HOPPER] {
        let mut command = Command::new(&nvcc);
        command.args(["--ptx", "-std=c++17", "-O3"]).arg(format!("-arch=compute_{generation}"));
        run(command.arg("--output-directory").arg(out).arg(kernels));
    }
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?} failed: {status}"),
        Err(error) => panic!("{command:?} cannot be run: {error}"),
    }
}
