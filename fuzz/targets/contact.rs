//! A contact from a peer: bounded whatever it says, and stable once read.
#![no_main]

use enishi_overlay::Contact;
use enishi_overlay::contact::ADDRESSES_MAX;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(contact) = postcard::from_bytes::<Contact>(octets) {
        assert!(contact.addresses().len() <= ADDRESSES_MAX);
        let again =
            postcard::to_allocvec(&contact).expect("a contact that was read can be written");
        assert!(postcard::from_bytes(&again) == Ok(contact));
    }
});
