//! Compiles the library's kernels for CUDA together with what emulates a device.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const KERNELS: &str = "../../src/kernels";

fn main() {
    println!("cargo:rerun-if-changed=emulate.cpp");
    println!("cargo:rerun-if-changed={KERNELS}");
    println!("cargo:rerun-if-env-changed=CXX");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (object, library) = (out.join("emulated.o"), out.join("libtagbrush_emulated.a"));
    let mut compiler = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    compiler.args(["-std=c++17", "-O2", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-I"]);
    run(compiler.args([KERNELS, "-c", "emulate.cpp", "-o"]).arg(&object));
    let _ = std::fs::remove_file(&library);
    run(Command::new("ar").arg("rcs").arg(&library).arg(&object));
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=tagbrush_emulated");
    println!("cargo:rustc-link-lib=stdc++");
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?} failed: {status}"),
        Err(error) => panic!("{command:?} cannot be run: {error}; a C++ compiler is needed"),
    }
}
