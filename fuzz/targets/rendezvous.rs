//! What strangers send and announce to those who look for an overlay: read without a fault, and what
//! an answer says survives being sealed and opened.
#![no_main]

use enishi_overlay::{OverlayId, Rng};
use enishi_services::rendezvous::{Answer, Listed, QUESTION_BYTES, Rendezvous};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let here = Rendezvous::new(&OverlayId::from_name("open"), None);
    let mut rng = Rng::from_seed([1; 32]);
    let (asked, question) = here.question(&mut rng);
    assert_eq!(here.read_question(&question), Some(asked));
    // Nobody guesses a seal.
    assert_eq!(here.read_question(octets), None);
    assert_eq!(here.read_answer(&asked, octets), None);
    if let Some(answer) = Answer::decode(octets) {
        let sealed = here.answer(&mut rng, &asked, answer.clone());
        assert!(sealed.len() <= QUESTION_BYTES);
        let read = here.read_answer(&asked, &sealed);
        let read = read.expect("what is sealed is opened");
        assert_eq!(answer.port, read.port);
        assert!(answer.contacts.starts_with(&read.contacts));
    }
    let text = String::from_utf8_lossy(octets);
    let label = here.is_label(&text);
    assert!(!label || text.len() == 32);
    let _ = Listed::read(octets);
});
