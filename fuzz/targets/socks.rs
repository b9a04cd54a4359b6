//! What a client of the SOCKS proxy sends: what is read of it lies within it, more octets do
//! not change it, and what the proxy says is read back.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;

// Alone, without the host that it is a part of.
#[allow(dead_code, reason = "what the proxy uses besides")]
#[path = "../../crates/host/src/socks.rs"]
mod socks;

use socks::{Host, MESSAGE_BYTES_MAX, Reply, Request, SocksError};

fuzz_target!(|octets: &[u8]| {
    if let Ok((answer, accepted, length)) = socks::greeting(octets) {
        assert!(length <= octets.len().min(MESSAGE_BYTES_MAX));
        assert_eq!(accepted, answer == [5, 0]);
        assert_eq!(
            socks::greeting(&octets[..length]),
            Ok((answer, accepted, length))
        );
    }
    match Request::decode(octets) {
        Ok((request, length)) => {
            assert!(length <= octets.len().min(MESSAGE_BYTES_MAX));
            let alone = Request::decode(&octets[..length]);
            assert_eq!(alone, Ok((request.clone(), length)));
            let cut = Request::decode(&octets[..length - 1]);
            assert_eq!(cut, Err(SocksError::Truncated));
            if let Host::Address(address) = request.host {
                let bound = SocketAddr::new(address, request.port);
                let reply = socks::reply(Reply::Succeeded, bound);
                let (read, _) = Request::decode(&reply).expect("a reply has the form of a request");
                assert_eq!(
                    (read.host, read.port),
                    (Host::Address(address), request.port)
                );
            }
        }
        Err(SocksError::Truncated) => assert!(octets.len() < MESSAGE_BYTES_MAX),
        Err(_) => {}
    }
    if let Ok((host, port, data)) = socks::datagram(octets) {
        assert!(octets.ends_with(data));
        if let Host::Address(address) = host {
            let again = socks::relayed(SocketAddr::new(address, port), data);
            assert_eq!(
                socks::datagram(&again),
                Ok((Host::Address(address), port, data))
            );
        }
    }
});
