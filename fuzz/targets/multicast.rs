//! What nodes say to each other about multicast groups: stable once read.
#![no_main]

use enishi_services::multicast::wire::Body;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Some((tag, body)) = Body::decode(octets) {
        assert_eq!(Body::decode(&body.encode(tag)), Some((tag, body)));
    }
});
