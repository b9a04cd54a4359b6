//! What members of a channel say to each other: stable once read.
#![no_main]

use enishi_services::vnet::wire::VnetMessage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Some(message) = VnetMessage::decode(octets) {
        assert_eq!(VnetMessage::decode(&message.encode()), Some(message));
    }
});
