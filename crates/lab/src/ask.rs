//! Questions to a daemon at its control socket, without a process in between.
//!
//! The socket is a file: it is reached from any network namespace. One connection, one
//! request of HTTP/1.0, one answer that ends with the connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The name of the socket in a daemon's data directory.
const SOCKET_NAME: &str = "control.sock";

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// The longest answer that is read, in octets.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Asks the daemon of a data directory and returns its last answer.
///
/// # Errors
/// When nobody listens there, no answer comes in time, or the answer is a failure.
pub(crate) fn ask(data: &Path, request: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(data.join(SOCKET_NAME)).context("no daemon listens")?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    let body = request.to_string();
    let head = format!(
        "POST /v1/call HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut response = String::new();
    let mut answers = stream.take(ANSWER_BYTES_MAX);
    answers
        .read_to_string(&mut response)
        .context("no answer in time")?;
    last_answer(&response).with_context(|| format!("asking {request}"))
}

/// Reads the last line of a response.
fn last_answer(response: &str) -> Result<Value> {
    let (_, body) = response.split_once("\r\n\r\n").context("half an answer")?;
    let line = body
        .lines()
        .rfind(|line| !line.is_empty())
        .context("an empty answer")?;
    let answer: Value = serde_json::from_str(line).with_context(|| format!("reading {line:?}"))?;
    ensure!(answer["answer"].is_string(), "a strange answer: {line}");
    if answer["answer"] == "failure" {
        bail!("{}", answer["message"].as_str().unwrap_or("it failed"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_line_is_the_answer_and_a_failure_an_error() {
        let response =
            "HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"answer\":\"lost\"}\n{\"answer\":\"done\"}\n";
        assert_eq!(last_answer(response).unwrap(), json!({ "answer": "done" }));
        let refused =
            "HTTP/1.0 404 Not Found\r\n\r\n{\"answer\":\"failure\",\"message\":\"No.\"}\n";
        assert_eq!(last_answer(refused).unwrap_err().to_string(), "No.");
        assert!(last_answer("HTTP/1.0 200 OK\r\n").is_err());
    }
}
