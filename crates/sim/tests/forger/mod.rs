//! A member of a channel whose program was changed: it has the secret, and says what it likes.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use enishi_overlay::{Contact, Keypair, Message, NodeId, Rng};
use enishi_services::Command;
use enishi_services::calls::PutRequest;
use enishi_services::dht::{self, Caller};
use enishi_services::keys::{Secret, derive, derive_keypair, seal};
use enishi_services::record::Kind;
use enishi_services::service::ServiceId;
use enishi_services::vnet::wire::{Mark, Offers, VnetMessage};
use enishi_services::vnet::{ChannelSpec, Network};
use enishi_sim::world::{Index, World};

/// What a holder keeps of one directory, and some more.
const ENTRIES: u8 = 70;

/// Who makes claims of a channel of a secret by its keys.
pub(crate) struct Forger {
    secret: Secret,
    id: Secret,
    session: Secret,
    node: Keypair,
}

impl Forger {
    pub(crate) fn new(spec: &ChannelSpec, node: Keypair) -> Self {
        let network = spec.network.to_string();
        let about = [spec.name.as_bytes(), network.as_bytes()];
        let derived = |context| derive(context, &*spec.secret, &about);
        Self {
            secret: spec.secret.clone(),
            id: derived("enishi 1 channel id"),
            session: derived("enishi 1 channel session"),
            node,
        }
    }

    /// Returns the IPv6 address that follows from a node's key.
    pub(crate) fn address6(&self, node: &NodeId) -> Ipv6Addr {
        Network::address6(&self.id, node)
    }

    /// Makes a claim of the forger's to an address, as its octets.
    pub(crate) fn claim(&self, contact: &Contact, address: Ipv4Addr) -> Vec<u8> {
        self.claim_both(contact, address, self.address6(&self.node.id()))
    }

    /// The same with an IPv6 address that need not follow from its key.
    pub(crate) fn claim_both(
        &self,
        contact: &Contact,
        address: Ipv4Addr,
        address6: Ipv6Addr,
    ) -> Vec<u8> {
        let host = "rogue";
        let offers = Offers::default();
        let said = (&*self.id, contact, host, address, address6, &offers);
        let signed = postcard::to_extend(&said, b"enishi 1 claim\0".to_vec()).unwrap();
        let signature = self.node.sign(&signed);
        let (first, second) = signature.split_at(32);
        let halves: ([u8; 32], [u8; 32]) = (first.try_into().unwrap(), second.try_into().unwrap());
        let credential: Option<()> = None;
        let claim = (
            contact, host, address, address6, &offers, halves, credential,
        );
        postcard::to_stdvec(&claim).unwrap()
    }

    /// Tells a node of a claim.
    pub(crate) fn announce(&self, world: &mut World, to: Index, claim: &[u8]) {
        let key = derive("enishi 1 channel message seal", &*self.secret, &[&*self.id]);
        let claim = seal(&mut Rng::from_seed([1; 32]), &key, &*self.id, claim);
        let message = VnetMessage::Announce {
            channel: self.blinded(&world.id(to)),
            mark: Mark::default(),
            claim: claim.into(),
        };
        let service = ServiceId::Vnet as u8;
        let body = Bytes::from(message.encode());
        world.inject(to, self.node.id(), Message::Direct { service, body });
    }

    fn blinded(&self, to: &NodeId) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.session);
        let from = self.node.id();
        hasher.update(b"name").update(from.as_bytes());
        hasher.update(to.as_bytes());
        hasher.finalize().as_bytes()[..16].try_into().unwrap()
    }

    /// Puts a claim, or anything else, into a page of the directory.
    pub(crate) fn enter_directory(&self, world: &mut World, at: Index, page: u8, claim: &[u8]) {
        let owner = Keypair::from_seed(&[page + 100; 32]);
        self.put(world, at, (&page_name(page), owner), Some(claim));
    }

    /// Fills a page of the directory with what is nobody's entry.
    pub(crate) fn fill(&self, world: &mut World, at: Index, page: u8) {
        for number in 0..ENTRIES {
            let owner = Keypair::from_seed(&[number; 32]);
            self.put(world, at, (&page_name(page), owner), Some(b"nothing"));
        }
    }

    /// Takes a node's entry, whose key is known, out of the first page.
    pub(crate) fn leave_directory(&self, world: &mut World, at: Index, whose: &Keypair) {
        let name = page_name(0);
        let about = [&self.id[..], &name];
        let owner = derive_keypair("enishi 1 channel record owner", &*whose.seed(), &about);
        self.put(world, at, (&name, owner), None);
    }

    /// Puts a claim under an IPv6 address.
    pub(crate) fn claim_address6(
        &self,
        world: &mut World,
        at: Index,
        address: Ipv6Addr,
        claim: &[u8],
    ) {
        let name = [&b"6"[..], &address.octets()].concat();
        let owner = Keypair::from_seed(&self.node.seed());
        self.put(world, at, (&name, owner), Some(claim));
    }

    fn put(
        &self,
        world: &mut World,
        at: Index,
        (name, owner): (&[u8], Keypair),
        claim: Option<&[u8]>,
    ) {
        let about = [&self.id[..], name];
        let writer = derive_keypair("enishi 1 channel record writer", &*self.secret, &about);
        let key = derive("enishi 1 channel record seal", &*self.secret, &about);
        let value = claim.map(|claim| {
            let mut rng = Rng::from_seed([2; 32]);
            seal(&mut rng, &key, writer.id().as_bytes(), claim).into()
        });
        let kind = match name.first() {
            Some(b'm') => Kind::Set,
            _ => Kind::Lease,
        };
        let request = PutRequest {
            kind,
            writer,
            owner,
            lease_s: 86_400,
            value,
        };
        let (caller, request) = (Caller::Host(9), Box::new(request));
        world.command(at, Command::Dht(dht::Command::Put { caller, request }));
    }
}

fn page_name(page: u8) -> Vec<u8> {
    match page {
        0 => b"m".to_vec(),
        _ => [b'm', page].to_vec(),
    }
}
