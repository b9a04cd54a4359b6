//! The settings file of a company: what is signed is read as it was signed, and nothing else is.
#![no_main]

use enishi_overlay::Keypair;
use enishi_proxy::company::{Signed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = parse(text);
    let company = Keypair::from_seed(&[7; 32]);
    if let Ok(signed) = Signed::sign(text, &company) {
        assert_eq!(signed.open(&company.id()).ok(), parsed.ok());
        let other = Keypair::from_seed(&[8; 32]);
        assert!(signed.open(&other.id()).is_err());
    }
    // Whatever stands in the place of a signed file and its signature.
    if let Ok(signed) = serde_json::from_str::<Signed>(text) {
        assert!(signed.open(&company.id()).is_err());
    }
});
