//! What the node decided, in the engine's terms.

use enishi_dataplane::engine::SessionKeys;
use enishi_dataplane::filter::{self, Filter};
use enishi_dataplane::packet::protocol;
use enishi_dataplane::sealed::{Cipher, DirectionKey};
use enishi_dataplane::table;
use enishi_services::vnet::Agreement;
use enishi_services::vnet::access::{self, Permits, Ports};
use enishi_services::vnet::routes::Prefix;

/// What the engine is to let pass; none for everything.
pub(super) fn filter(permits: Option<&Permits>) -> Option<Filter> {
    let permit = |permit: &access::Permit| filter::Permit {
        network: permit.network.map(network_of),
        ports: permit.ports.map(|ports| match ports {
            Ports::Icmp => (protocol::ICMP, 0..=u16::MAX),
            Ports::Tcp(first, last) => (protocol::TCP, first..=last),
            Ports::Udp(first, last) => (protocol::UDP, first..=last),
            Ports::Sctp(first, last) => (protocol::SCTP, first..=last),
        }),
    };
    permits.map(|permits| {
        let all = |permits: &[access::Permit]| permits.iter().map(permit).collect();
        Filter::new(all(&permits.inbound), all(&permits.outbound))
    })
}

/// A network behind a member, or of a rule.
pub(super) fn network_of(prefix: Prefix) -> table::Network {
    table::Network::new(prefix.address(), prefix.bits())
}

/// The keys of an agreement.
pub(super) fn keys(agreement: &Agreement) -> SessionKeys {
    SessionKeys {
        cipher: match agreement.aes {
            true => Cipher::Aes256Gcm,
            false => Cipher::ChaCha20Poly1305,
        },
        send: DirectionKey::new(*agreement.send),
        receive: DirectionKey::new(*agreement.receive),
        send_index: agreement.send_index,
        receive_index: agreement.receive_index,
        peer_has_them: agreement.member_has_them,
        renew_after: agreement.renew_after,
    }
}
