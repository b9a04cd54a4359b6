//! Requests of the control interface: whatever is understood can be told again.
#![no_main]

use enishi_api::{Request, StreamRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(octets) {
        let told = serde_json::to_vec(&request).expect("a request is told");
        assert_eq!(serde_json::from_slice::<Request>(&told).ok(), Some(request));
    }
    if let Ok(request) = serde_json::from_slice::<StreamRequest>(octets) {
        let told = serde_json::to_vec(&request).expect("a request is told");
        let again = serde_json::from_slice::<StreamRequest>(&told).ok();
        assert_eq!(again, Some(request));
    }
});
