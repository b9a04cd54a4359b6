//! What the engine knows of one network.

use std::io::IoSlice;
use std::net::IpAddr;
use std::time::Instant;

use crate::device::Device;
use crate::filter::Own;
use crate::icmp::{ErrorBudget, Reason, error_for};
use crate::offload::{OFFLOAD_HEADER_BYTES, Offload, split};
use crate::packet::{IpPacket, protocol};
use crate::pending::{Pending, Pushed};
use crate::table::{AddressTable, Lookup, Network as Prefix};

/// How many ICMP errors this host is told per network, at once and per second: Linux's own
/// limits for what it sends (icmp(7), `icmp_msgs_burst`), a twentieth of its rate.
const ERRORS_BURST: u32 = 50;
const ERRORS_PER_SECOND: u32 = 50;
/// How many packets to many are taken from this host per network, at once and per second: each
/// costs every member one, and an author of a group may send 64 a second, 256 at once.
const TO_MANY_BURST: u32 = 200;
const TO_MANY_PER_SECOND: u32 = 60;
/// The longest packet that may wait for its way, with the header of the device: longer ones
/// belong to flows that are under way, and come again.
const WAITING_BYTES_MAX: usize = OFFLOAD_HEADER_BYTES + 2048;

/// One network.
pub(super) struct Network {
    pub(super) device: Option<Device>,
    /// The device of those for whom this host holds addresses.
    pub(super) guests: Option<Device>,
    /// Routes name sessions by their place.
    pub(super) table: AddressTable<usize>,
    /// This host's addresses in the network, and those that it holds for others.
    addresses: Vec<IpAddr>,
    own_addresses: usize,
    /// If networks behind this host are reached, all addresses that it has.
    elsewhere: Vec<IpAddr>,
    pending: Pending,
    errors: ErrorBudget,
    /// How much this host may send to many, and how many packets were more.
    to_many: ErrorBudget,
    pub(super) storm_packets: u64,
}

impl Network {
    pub(super) fn new(
        device: Option<Device>,
        prefixes: Vec<Prefix>,
        addresses: Vec<IpAddr>,
    ) -> Self {
        let mut table = AddressTable::new(prefixes);
        for address in &addresses {
            // More than the table holds are left out.
            let _ = table.add_local(*address);
        }
        Self {
            device,
            guests: None,
            table,
            own_addresses: addresses.len(),
            addresses,
            elsewhere: Vec::new(),
            pending: Pending::default(),
            errors: ErrorBudget::new(ERRORS_BURST, ERRORS_PER_SECOND),
            to_many: ErrorBudget::new(TO_MANY_BURST, TO_MANY_PER_SECOND),
            storm_packets: 0,
        }
    }

    /// Lets a packet, with the device's header, wait for the holder of `destination`. Tells
    /// whether it is the first that does.
    pub(super) fn put_off(&mut self, now: Instant, destination: IpAddr, read: &[u8]) -> bool {
        if read.len() > WAITING_BYTES_MAX {
            return false;
        }
        match self.pending.push(now, destination, read.to_vec()) {
            Pushed::First => true,
            Pushed::Queued => false,
            Pushed::Full => {
                self.refuse(now, Reason::HostUnreachable, read);
                false
            }
        }
    }

    /// Returns the addresses that are to be asked for again, as packets wait for them.
    pub(super) fn ask_again(&mut self, now: Instant) -> Vec<IpAddr> {
        self.pending.ask_again(now)
    }

    /// Returns the addresses that packets wait for whose way is by a session: its own, and those
    /// behind it.
    pub(super) fn awaited(&self, slot: usize) -> Vec<IpAddr> {
        let is_there = |address: &IpAddr| match self.table.lookup(*address) {
            Lookup::Forward(route) => route.peer == slot,
            _ => false,
        };
        self.pending.addresses().filter(is_there).collect()
    }

    /// Takes out what waits for an address.
    pub(super) fn take_waiting(&mut self, address: IpAddr) -> Vec<Vec<u8>> {
        self.pending.take(address)
    }

    /// Nobody has the address: tells those whose packets wait.
    pub(super) fn give_up(&mut self, now: Instant, address: IpAddr) {
        for read in self.pending.take(address) {
            self.refuse(now, Reason::HostUnreachable, &read);
        }
    }

    /// Tells the senders of packets that have waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for read in self.pending.expire(now) {
            self.refuse(now, Reason::HostUnreachable, &read);
        }
    }

    /// Tells the sender on this host that its packet, with the device's header, goes nowhere.
    pub(super) fn refuse(&mut self, now: Instant, reason: Reason, read: &[u8]) {
        let packet = read.get(OFFLOAD_HEADER_BYTES..).unwrap_or_default();
        let Ok(packet) = IpPacket::parse(packet) else {
            return;
        };
        if let Some(error) = error_for(&packet, reason, None)
            && self.errors.take(now)
        {
            self.write(&error);
        }
    }

    /// Tells whether a packet that this host sends to many is to be carried now; counts those
    /// that are too many.
    pub(super) fn may_spread(&mut self, now: Instant, packet: &IpPacket<'_>) -> bool {
        if is_local_to_link(packet) {
            return false;
        }
        let may = self.to_many.take(now);
        self.storm_packets += u64::from(!may);
        may
    }

    /// Hands a packet to the kernel that a member sent to many.
    pub(super) fn deliver_to_many(&self, packet: &[u8]) {
        let to_many = IpPacket::parse(packet).is_ok_and(|packet| {
            let lookup = self.table.lookup(packet.destination());
            !self.table.is_here(packet.source())
                && lookup == Lookup::Many
                && !is_local_to_link(&packet)
        });
        if to_many {
            self.write(packet);
        }
    }

    /// Takes part for others, with their device.
    pub(super) fn host(&mut self, device: Option<Device>, addresses: Vec<IpAddr>) {
        self.guests = device;
        self.addresses.truncate(self.own_addresses);
        self.addresses.extend(&addresses);
        self.table.set_hosted(addresses);
    }

    /// Says which addresses this host has, here and elsewhere.
    pub(super) fn set_elsewhere(&mut self, addresses: Vec<IpAddr>) {
        self.elsewhere = addresses;
    }

    /// Returns this host's addresses for rules.
    pub(super) fn mine(&self) -> Own<'_> {
        Own {
            here: &self.addresses,
            elsewhere: &self.elsewhere,
        }
    }

    /// Tells whether this host has an address itself, and not somebody for whom it passes on.
    pub(super) fn is_of_this_host(&self, address: IpAddr) -> bool {
        let own = &self.addresses[..self.own_addresses];
        own.contains(&address) || self.elsewhere.contains(&address)
    }

    /// Tells whether what this host sends comes from no socket of its kernel.
    pub(super) fn is_in_user_space(&self) -> bool {
        matches!(self.device, Some(Device::Queue(_)))
    }

    /// Returns the device for what is to an address that is here.
    pub(super) fn device_of(&self, destination: IpAddr) -> Option<&Device> {
        match self.table.hosts(destination) {
            true => self.guests.as_ref(),
            false => self.device.as_ref(),
        }
    }

    /// Hands a packet that is complete to the device of its destination; one that it does not
    /// take is lost.
    pub(super) fn write(&self, packet: &[u8]) {
        self.hand_over(Offload::default(), packet);
    }

    /// Hands over what a device of this host has sent to an address that is here: cut, if it is
    /// a super-packet, as the other device may take none.
    pub(super) fn deliver(&self, offload: Offload, packet: &mut [u8]) {
        let parsed = IpPacket::parse(packet);
        if !parsed.is_ok_and(|packet| self.table.is_here(packet.destination())) {
            return;
        }
        match offload.segments {
            Some((transport, segment_bytes)) => {
                let bytes_max = usize::from(u16::MAX);
                split(packet, transport, segment_bytes, bytes_max, |packet| {
                    self.hand_over(offload, packet);
                });
            }
            None => self.hand_over(offload, packet),
        }
    }

    /// Hands over a packet whose checksum is as `offload` tells.
    fn hand_over(&self, offload: Offload, packet: &[u8]) {
        let Ok(parsed) = IpPacket::parse(packet) else {
            return;
        };
        let whole = Offload {
            segments: None,
            ..offload
        };
        let header = whole.encode(true, 0);
        if let Some(device) = self.device_of(parsed.destination()) {
            let _ = device.write(&[IoSlice::new(&header), IoSlice::new(packet)]);
        }
    }
}

/// Tells whether a packet is between a host and its own link: group membership (IGMP, RFC 3376;
/// MLD, RFC 3810), neighbour and router discovery (RFC 4861). The network is asked for no such
/// thing, and neighbours need not be discovered.
fn is_local_to_link(packet: &IpPacket<'_>) -> bool {
    match (packet.protocol(), packet.payload().first()) {
        (protocol::IGMP, _) => true,
        (protocol::ICMPV6, Some(kind)) => matches!(kind, 130..=137 | 143),
        _ => false,
    }
}
