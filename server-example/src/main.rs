//! The server program: configuration, logs, models, and a stop that loses nothing.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use server_example::config::Config;
use server_example::engine::models::RealModels;
use server_example::{App, serve};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // A `.env` file is a convenience: what the environment says goes before it.
    let env_file = dotenvy::dotenv();
    let config = match Config::from_vars(&|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    start_logs(&config);
    if let Err(e) = env_file
        && !e.not_found()
    {
        error!("the file .env cannot be read: {e}");
        return ExitCode::from(2);
    }
    for warning in config.warnings() {
        warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("cannot start threads: {e}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(config))
}

async fn run(config: Config) -> ExitCode {
    let address = config.address();
    // The port is taken first: of two servers the second one stops here, before it touches a job.
    let listener = match tokio::net::TcpListener::bind(&address).await {
        Ok(listener) => listener,
        Err(e) => {
            error!("cannot listen on {address}: {e}");
            return ExitCode::FAILURE;
        }
    };
    let models = Arc::new(RealModels::new(&config));
    let app = match App::start(config, models) {
        Ok(app) => app,
        Err(message) => {
            error!("{message}");
            return ExitCode::FAILURE;
        }
    };
    info!("listening on http://{address}/ (the page), http://{address}/docs (the endpoints)");
    match serve(listener, app, stop_signal()).await {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(e) => {
            error!("the server failed: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let has_colours = std::io::stdout().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let logs = logs.with_ansi(has_colours);
    match config.json_logs {
        true => logs.json().init(),
        false => logs.init(),
    }
}

/// Ends with the first interrupt or terminate signal. A second one ends the process at once.
async fn stop_signal() {
    one_signal().await;
    info!("stopping; a second signal stops at once");
    tokio::spawn(async {
        one_signal().await;
        std::process::exit(130);
    });
}

async fn one_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            },
            Err(e) => {
                warn!("no terminate signals: {e}");
                interrupt.await.ok();
            }
        }
    }
    #[cfg(not(unix))]
    interrupt.await.ok();
}
