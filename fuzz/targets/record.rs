//! A record from another node: checking never panics, and one that was read is
//! judged like itself.
#![no_main]

use enishi_services::record::{Precedence, Record, SEALED_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Ok(record) = postcard::from_bytes::<Record>(octets) else {
        return;
    };
    let genuine = record.verify();
    assert!(!genuine || record.content().value.len() <= SEALED_BYTES_MAX);
    assert_eq!(record.precedence(&record), Precedence::Same);
    let again = postcard::to_stdvec(&record).expect("a record that was read can be written");
    let again: Record = postcard::from_bytes(&again).expect("and read again");
    assert_eq!(again.verify(), genuine);
    assert_eq!(again, record);
});
