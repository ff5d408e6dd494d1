//! Compares the kernels and models of tagbrush on a device with those on the CPU, and measures them at full
//! size with random weights. Needs no files and no network.
//!
//! `gpu-check [--device cuda:0] [--quick] [--output FILE]` prints what it finds and writes it as JSON. It
//! fails if something on the device is further from the CPU than it may be.

use std::error::Error;
use std::process::ExitCode;

use tagbrush::Device;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut device, mut quick, mut output) = (Device::Cuda(0), false, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--device" => device = value()?.parse()?,
            "--quick" => quick = true,
            "--output" => output = Some(value()?),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let report = tagbrush::gpu_check::run(device, quick)?;
    if let Some(output) = output {
        std::fs::write(&output, report.json())
            .map_err(|e| format!("cannot write {output}: {e}"))?;
    }
    Ok(report.is_right())
}
