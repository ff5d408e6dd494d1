//! The server as a process: signals, a second one in its place, and a disk that is full.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::common::{Form, png};

/// A server in a process of its own, ended with the test.
struct Process {
    child: Child,
    url: String,
    agent: ureq::Agent,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, after what a shell does first.
fn command(folder: &Path, port: u16, first: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_server-example");
    command.args(["-c", &format!("{first} exec \"$0\""), program]).current_dir(folder);
    command.env_clear().env("PORT", port.to_string()).env("GRACE_S", "60");
    command.env("EDIT_QUEUE", "1000").stdin(Stdio::null()).stderr(Stdio::null());
    command
}

impl Process {
    fn start(folder: &Path, first: &str) -> Self {
        let port = free_port();
        let child = command(folder, port, first).stdout(Stdio::null()).spawn().unwrap();
        let settings = ureq::Agent::config_builder().http_status_as_error(false).build();
        let url = format!("http://127.0.0.1:{port}");
        let process = Self { child, url, agent: settings.into() };
        let until = Instant::now() + Duration::from_secs(120);
        let is_ready = |url: String| process.agent.get(url).call().is_ok_and(|a| a.status() == 200);
        while !is_ready(format!("{}/ready", process.url)) {
            assert!(Instant::now() < until, "it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    fn get(&self, path: &str) -> Value {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Status and body of a request for a job.
    fn ask(&self, steps: usize) -> (u16, Value) {
        self.ask_for("64x64", steps)
    }

    /// The same for pictures of a size.
    fn ask_for(&self, size: &str, steps: usize) -> (u16, Value) {
        let form = Form::default()
            .text("size", size)
            .text("prompt", "make the background blue")
            .file("images", &png(1))
            .text("num_inference_steps", &steps.to_string())
            .text("async_process", "true");
        let request = self.agent.post(format!("{}/v1/images/edits", self.url));
        let mut answer = request.content_type(Form::content_type()).send(form.body()).unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap())
    }

    fn until_running(&self, id: &Value) {
        while self.get(&format!("/tasks/{}", id.as_str().unwrap()))["task_status"] != "running" {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    /// The exit code, once it has ended by itself.
    fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn h16_a_signal_lets_work_end_and_a_second_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(folder.path(), "");
    let (status, job) = server.ask(200);
    assert_eq!(status, 200);
    server.until_running(&job["task_id"]);
    server.terminate();
    assert_eq!(server.ended(), Some(0));
    let db = Connection::open(folder.path().join("outputs/db.sqlite3")).unwrap();
    let status: Option<String> =
        db.query_row("SELECT task_status FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(status.as_deref(), Some("finished"));
    drop(db);
    let server = Process::start(folder.path(), "");
    let ask = |_| server.ask_for("256x256", 1000).1["task_id"].clone();
    let endless: Vec<_> = (0..50).map(ask).collect();
    server.until_running(&endless[0]);
    let start = Instant::now();
    server.terminate();
    std::thread::sleep(Duration::from_millis(300));
    server.terminate();
    assert_eq!(server.ended(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn h17_a_second_server_says_what_is_in_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(folder.path(), "");
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let other = tempfile::tempdir().unwrap();
    for (folder, port, expected) in
        [(other.path(), port, "cannot listen"), (folder.path(), free_port(), "another server")]
    {
        let second = command(folder, port, "").output().unwrap();
        let words = String::from_utf8(second.stdout).unwrap();
        assert_eq!(second.status.code(), Some(1), "{words}");
        assert!(words.contains(expected), "{words}");
    }
    assert_eq!(server.get("/health")["status"], "healthy");
}

#[test]
fn d01_a_full_disk_loses_no_accepted_job() {
    let folder = tempfile::tempdir().unwrap();
    // No file may grow beyond this, which the database's does soon: the system answers as for a full disk.
    let server = Process::start(folder.path(), "trap '' XFSZ; ulimit -f 128;");
    let mut accepted = Vec::new();
    let refused = loop {
        assert!(accepted.len() < 1000, "there was always room");
        match server.ask(1) {
            (200, task) => accepted.push(task["task_id"].as_str().unwrap().to_owned()),
            (429, _) => std::thread::sleep(Duration::from_millis(50)),
            (status, body) => break (status, body),
        }
    };
    assert_eq!(refused.0, 500, "{}", refused.1);
    assert_eq!(server.get("/health")["status"], "healthy");
    server.terminate();
    server.ended();
    let server = Process::start(folder.path(), "");
    for id in accepted {
        let until = Instant::now() + Duration::from_secs(120);
        while server.get(&format!("/tasks/{id}"))["task_status"] != "finished" {
            assert!(Instant::now() < until, "{}", server.get(&format!("/tasks/{id}")));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
