//! The text form of a node id: what parses is printed back as it was.
#![no_main]

use enishi_overlay::NodeId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
});
