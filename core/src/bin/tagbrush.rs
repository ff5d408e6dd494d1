//! The program `tagbrush`; what it does is [`tagbrush::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tagbrush::cli::run(std::env::args_os()))
}
