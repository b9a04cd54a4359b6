//! What people type: node ids and networks. What parses is printed so that it parses
//! to the same.
#![no_main]

use enishi_overlay::NodeId;
use enishi_services::vnet::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
});
