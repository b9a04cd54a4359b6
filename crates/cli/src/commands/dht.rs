//! `enishi dht put | get | remove`.

use std::io::{self, IsTerminal, Read};

use data_encoding::BASE64;
use enishi_api::{Answer, Request, VALUE_BYTES_MAX};
use serde_json::json;

use super::Context;
use crate::args::Dht;
use crate::client::strange;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

pub(super) async fn run(cx: &Context, command: Dht) -> Result<Verdict, Problem> {
    match command {
        Dht::Put { key, value, lease } => put(cx, key, value, lease).await,
        Dht::Get { key } => get(cx, key).await,
        Dht::Remove { key } => remove(cx, key).await,
    }
}

async fn put(cx: &Context, key: String, value: String, lease_s: u32) -> Result<Verdict, Problem> {
    let value = if value == "-" {
        read_input(cx)?
    } else {
        value.into_bytes()
    };
    if value.len() > VALUE_BYTES_MAX {
        let message = Message::ValueTooLong {
            max: VALUE_BYTES_MAX,
        };
        return Err(Problem::Usage(cx.out.text(&message)));
    }
    let request = Request::DhtPut {
        key,
        value,
        lease_s,
    };
    let Answer::Stored { replicas, seq } = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    let object = json!({ "replicas": replicas, "seq": seq });
    cx.out.result(&object, &Message::Stored { replicas, seq })?;
    Ok(Verdict::Yes)
}

/// Reads standard input, one octet more than fits at most.
fn read_input(cx: &Context) -> Result<Vec<u8>, Problem> {
    let mut value = Vec::new();
    let read = io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value);
    match read {
        Ok(_) => Ok(value),
        Err(error) => Err(Problem::Usage(
            cx.out.text(&Message::InputUnreadable { error: &error }),
        )),
    }
}

async fn get(cx: &Context, key: String) -> Result<Verdict, Problem> {
    let Answer::Value { value, seq } = cx.client.ask(&Request::DhtGet { key }).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        // Text as text where it is text; the octets always.
        let text = std::str::from_utf8(&value).ok();
        let octets = BASE64.encode(&value);
        cx.out
            .object(&json!({ "value": text, "value_base64": octets, "seq": seq }))?;
    } else if io::stdout().is_terminal() {
        let text = String::from_utf8_lossy(&value);
        cx.out.line(text.trim_end_matches('\n'))?;
    } else {
        cx.out.bytes(&value)?;
    }
    Ok(Verdict::Yes)
}

async fn remove(cx: &Context, key: String) -> Result<Verdict, Problem> {
    let object = json!({ "removed": key });
    let Answer::Done = cx.client.ask(&Request::DhtRemove { key }).await? else {
        return Err(strange(&cx.out));
    };
    cx.out.result(&object, &Message::Removed)?;
    Ok(Verdict::Yes)
}
