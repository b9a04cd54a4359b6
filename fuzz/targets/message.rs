//! A frame of the control lane: bounded whatever it says, and stable once read.
#![no_main]

use enishi_overlay::Message;
use enishi_overlay::contact::ADDRESSES_MAX;
use enishi_overlay::message::Hello;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Ok(message) = Message::decode(octets) else {
        return;
    };
    if let Message::Hello(Hello { contact, .. }) = &message {
        assert!(contact.addresses().len() <= ADDRESSES_MAX);
    }
    let again = message.encode();
    assert_eq!(again.len(), message.encoded_len());
    assert_eq!(Message::decode(&again), Ok(message));
});
