//! Real connections: limits of what clients send, clients that hang up, and the stop of the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;

use crate::common::{Form, Server, base64, form};

/// A server on a port of this machine.
async fn listening(
    server: &Server,
) -> (
    std::net::SocketAddr,
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<std::io::Result<()>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = server_example::serve(listener, server.app.clone(), async move {
        stopped.await.ok();
    });
    (address, stop, tokio::spawn(serving))
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, bytes: String) -> String {
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_that_says_it_is_too_long_is_not_read() {
    let (server, _) = Server::new(&[("MAX_BODY_MB", "1")]).await;
    let (address, _stop, _) = listening(&server).await;
    let head = "POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Type: multipart/form-data; boundary=a\r\nContent-Length: 99999999999\r\n\r\n";
    let answer = exchange(address, head.to_owned()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("request_too_large"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_that_stops_coming_is_given_up() {
    let (server, _) = Server::new(&[("BODY_TIMEOUT_S", "1")]).await;
    let (address, _stop, _) = listening(&server).await;
    let head = "POST /tagger/v1/interrogate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Length: 1000\r\n\r\n{\"image\"";
    let answer = exchange(address, head.to_owned()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

/// Sends the first part at once and of the second a byte every 50 milliseconds, until the server closes.
/// What it answered, and after how long.
async fn byte_by_byte(address: SocketAddr, first: &str, then: &str) -> (String, Duration) {
    let (first, then) = (first.to_owned(), then.to_owned());
    let exchange = move || {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 1024]);
        for byte in then.bytes() {
            assert!(start.elapsed() < Duration::from_secs(30), "it is not cut off");
            let is_open = stream.write_all(&[byte]).is_ok();
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(length) => answer.extend(&part[..length]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    assert!(is_open);
                }
                Err(_) => break,
            }
        }
        (String::from_utf8_lossy(&answer).into_owned(), start.elapsed())
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_sends_byte_by_byte_is_cut_off() {
    let (server, _) = Server::new(&[("HEAD_TIMEOUT_S", "1"), ("BODY_TIMEOUT_S", "2")]).await;
    let (address, _stop, _) = listening(&server).await;
    let endless = "a".repeat(10_000);
    let head = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ";
    let (answer, after) = byte_by_byte(address, head, &endless).await;
    assert!(answer.is_empty() && after >= Duration::from_secs(1), "{after:?}: {answer}");
    let head =
        "POST /tagger/v1/interrogate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n";
    let (answer, after) = byte_by_byte(address, head, &endless).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer}");
    assert!(after >= Duration::from_secs(2), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_may_take_long_if_it_keeps_coming() {
    let (server, _) = Server::new(&[("BODY_TIMEOUT_S", "2")]).await;
    let (address, _stop, _) = listening(&server).await;
    let body = format!("{{\"image\": \"{}\", \"model\": \"demo\"}}", base64(&[0; 96 << 10]));
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST /tagger/v1/interrogate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        for part in body.as_bytes().chunks(body.len() / 8) {
            stream.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    // It came whole: what is wrong is that it is no picture.
    let answer = exchange.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_after_a_refused_one_are_answered_in_order() {
    let (server, _) = Server::new(&[]).await;
    let (address, _stop, _) = listening(&server).await;
    let wrong =
        "POST /tagger/v1/interrogate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{";
    let right = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(address, format!("{wrong}{right}")).await;
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
    assert_eq!(statuses, ["400", "200"], "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_asks_first_is_told_to_go_on_or_not_to() {
    let (server, _) = Server::new(&[("MAX_BODY_MB", "1")]).await;
    let (address, _stop, _) = listening(&server).await;
    for (length, expected) in [(2, "HTTP/1.1 100"), (2 << 20, "HTTP/1.1 413")] {
        let told = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(
                stream,
                "POST /tagger/v1/interrogate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
            )
            .unwrap();
            // The body only afterwards.
            let mut told = [0; 12];
            stream.read_exact(&mut told).unwrap();
            stream.write_all(b"{}").ok();
            stream.read_to_end(&mut Vec::new()).ok();
            String::from_utf8_lossy(&told).into_owned()
        });
        assert_eq!(told.await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_hangs_up_while_it_uploads_costs_no_work() {
    let (server, fake) = Server::new(&[]).await;
    let (address, _stop, _) = listening(&server).await;
    let body = form().body();
    let mut stream = TcpStream::connect(address).unwrap();
    let kind = Form::content_type();
    let length = body.len();
    write!(stream, "POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n").unwrap();
    stream.write_all(&body[..length / 2]).unwrap();
    drop(stream);
    server.edit(form()).await.ok();
    assert_eq!(*fake.calls.lock().unwrap(), [1], "only the other's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_hangs_up_frees_the_model() {
    let (server, fake) = Server::new(&[]).await;
    let (address, _stop, _) = listening(&server).await;
    fake.hold();
    let body = form().body();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        Form::content_type(),
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    fake.until_held().await;
    drop(stream);
    fake.until(|fake| fake.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    fake.release();
    server.edit(form()).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_lets_running_work_end() {
    let (server, fake) = Server::new(&[]).await;
    let (address, stop, serving) = listening(&server).await;
    fake.hold();
    let server = Arc::new(server);
    let own = Arc::clone(&server);
    let running = tokio::spawn(async move { own.edit(form()).await });
    fake.until_held().await;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!serving.is_finished(), "it waits for the edit");
    fake.release();
    let body: Value = running.await.unwrap().ok();
    assert_eq!(body["data"].as_array().unwrap().len(), 1);
    tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}
