//! What one node's DHT says to another's, asks and answers: stable once read.
#![no_main]

use enishi_services::dht::wire::{DhtMessage, Found, Question, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(message) = DhtMessage::decode(octets) {
        assert_eq!(DhtMessage::decode(&message.encode()), Ok(message));
    }
    if let Ok(question) = decode::<Question>(octets) {
        assert_eq!(decode(&encode(&question)), Ok(question));
    }
    if let Ok(found) = decode::<Found>(octets) {
        assert_eq!(decode(&encode(&found)), Ok(found));
    }
});
