//! Datagrams on their way out, until there are enough for one send.

use std::io;
use std::net::SocketAddr;

use super::sockets::{Pair, Sockets};
use crate::ecn::NOT_CAPABLE;
use crate::socket::{BATCH_BYTES_MAX, is_too_long};

/// So many octets that are ready are sent by themselves: copying them would cost more than it spares.
const ALONE_BYTES: usize = 8_192;

/// Datagrams by one socket to one address, all of one length but the last, which may be shorter.
pub(super) struct Batch {
    octets: Box<[u8]>,
    /// How many of the octets are to be sent.
    filled: usize,
    stride: usize,
    to: Pair,
    /// What is said of congestion ([`crate::ecn`]).
    ecn: u8,
    /// Whose datagrams were too long for the system to send, and how long they were.
    pub(super) too_long: Option<(Pair, usize)>,
    /// Datagrams that the system did not take.
    pub(super) lost: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            octets: vec![0; BATCH_BYTES_MAX].into(),
            filled: 0,
            stride: 0,
            to: SocketAddr::from(([0, 0, 0, 0], 0)).into(),
            ecn: NOT_CAPABLE,
            too_long: None,
            lost: 0,
        }
    }

    /// Returns room for a datagram of `bytes` octets; sends what is there first when it does
    /// not go with it.
    pub(super) fn room(
        &mut self,
        sockets: &Sockets,
        (to, ecn): (Pair, u8),
        bytes: usize,
    ) -> &mut [u8] {
        let start = self.filled;
        let goes_with = start > 0
            && bytes <= self.stride
            && start.is_multiple_of(self.stride)
            && start + bytes <= BATCH_BYTES_MAX
            && start < self.stride * sockets.first().batch_datagrams_max()
            && (to, ecn) == (self.to, self.ecn);
        if !goes_with {
            self.flush(sockets);
            self.stride = bytes;
            (self.to, self.ecn) = (to, ecn);
        }
        let start = self.filled;
        self.filled += bytes;
        &mut self.octets[start..self.filled]
    }

    /// Takes back the room that was given last.
    pub(super) fn take_back(&mut self, bytes: usize) {
        self.filled -= bytes;
    }

    /// Sends datagrams that are ready, all of `stride` octets but the last, which may be shorter.
    pub(super) fn pass_on(
        &mut self,
        sockets: &Sockets,
        (to, ecn): (Pair, u8),
        datagrams: &[u8],
        stride: usize,
    ) {
        if datagrams.len() < ALONE_BYTES {
            // Copied, so that few calls of the system send what came by many.
            for datagram in datagrams.chunks(stride) {
                let room = self.room(sockets, (to, ecn), datagram.len());
                room.copy_from_slice(datagram);
            }
            return;
        }
        self.flush(sockets);
        let Some(socket) = sockets.get(to.via) else {
            return;
        };
        let most = stride * socket.batch_datagrams_max();
        for datagrams in datagrams.chunks(most.min(BATCH_BYTES_MAX / stride * stride).max(stride)) {
            if let Err(error) = socket.send((to.address, ecn), datagrams, stride) {
                let count = datagrams.len().div_ceil(stride);
                self.failed(&error, (to, stride, count));
            }
        }
    }

    /// Sends what is there.
    pub(super) fn flush(&mut self, sockets: &Sockets) {
        if self.filled == 0 {
            return;
        }
        let octets = &self.octets[..self.filled];
        // Without the socket there is nobody to send to any more.
        if let Some(socket) = sockets.get(self.to.via) {
            let to = (self.to.address, self.ecn);
            if let Err(error) = socket.send(to, octets, self.stride) {
                let count = self.filled.div_ceil(self.stride.max(1));
                self.failed(&error, (self.to, self.stride, count));
            }
        }
        self.filled = 0;
    }

    fn failed(&mut self, error: &io::Error, (to, stride, count): (Pair, usize, usize)) {
        self.lost += count as u64;
        if is_too_long(error) {
            self.too_long = Some((to, stride));
        }
    }
}
