//! The command line tool. It parses, calls the library, and prints; it decides nothing of its own.

mod doctor;
mod edit;
mod models;
mod progress;
mod pull;
mod tag;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tagbrush::Error;

/// Everything went well.
const SUCCESS: u8 = 0;
/// Nothing could be done.
const FAILURE: u8 = 1;
/// Some pictures failed, all others were done.
const SOME_FAILED: u8 = 2;
/// Stopped by Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Tags images, and edits them by instruction.
#[derive(Parser)]
#[command(name = "tagbrush", version, max_term_width = 100, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tag(Box<tag::TagCommand>),
    Edit(Box<edit::EditCommand>),
    Pull(pull::PullCommand),
    /// List the models that go by a name
    Models,
    /// Say what this build and machine can do
    Doctor,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  tagbrush completions bash > ~/.local/share/bash-completion/completions/tagbrush"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Tag(command) => command.run(),
        Command::Edit(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Models => models::run(),
        Command::Doctor => doctor::run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tagbrush", &mut std::io::stdout());
            Ok(SUCCESS)
        }
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        report(&error);
        FAILURE
    }))
}

/// Prints an error with its causes.
fn report(error: &Error) {
    eprintln!("error[{}]: {error}", error.code());
    let mut shown = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Messages often end with their cause already.
        if !shown.contains(&text) {
            eprintln!("  caused by: {text}");
        }
        shown = text;
        cause = error.source();
    }
}

/// Cancels `control` at the first Ctrl-C, so that what is written is whole; the second one ends the
/// process at once.
fn cancel_on_interrupt(control: &tagbrush::Control) {
    let control = control.clone();
    // Without a handler Ctrl-C ends the process, which loses nothing either.
    let _ = ctrlc::set_handler(move || {
        if control.is_cancelled() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        control.cancel();
        eprintln!("stopping after this batch or step; press Ctrl-C again to stop at once");
    });
}
