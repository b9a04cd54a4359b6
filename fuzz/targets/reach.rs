//! What nodes say to each other about how they are reached: stable once read.
#![no_main]

use enishi_services::reach::wire::ReachMessage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Some(message) = ReachMessage::decode(octets) {
        assert_eq!(ReachMessage::decode(&message.encode()), Some(message));
    }
});
