//! The wire: links, routers and an Internet, between hosts that know nothing of it.
//!
//! Each host's Ethernet is a TUN device whose other end is one thread of this process. It carries
//! packets through a fabric of areas: with delay, jitter and loss on each link, and through each router
//! a translation of any kind that RFC 4787 knows, of which the kernel's own has but a few.
//!
//! One packet costs some microseconds: enough for whatever is said between some dozen nodes, and too
//! little to measure throughput by.

mod fabric;
mod firewall;
mod link;
mod nat;
mod nat64;
mod packet;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::unistd::{read, write};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

pub use fabric::{Area, Counts, INTERNET};
pub use link::LinkKind;
pub use nat::{Dependence, NatKind, Outward, Ports};

use crate::host::{Host, INTERFACE};
use crate::lab::MTU;
pub(crate) use fabric::{Fabric, Place};

/// How many packets are taken from one device before the next has its turn.
const BATCH: usize = 32;
/// How long to wait when nothing is on its way.
const IDLE: Duration = Duration::from_secs(1);

/// The thread that carries packets, and what it knows. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: EventFd,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    fabric: Fabric,
    /// By place.
    devices: Vec<Arc<OwnedFd>>,
    is_over: bool,
}

/// One thread is all routers and cables, and many threads want its packets: on a busy machine it goes
/// before them (as `nice` does; of Linux's threads each has its own), lest the network is slower than
/// it was made.
const PRIORITY: i32 = -15;

impl Wire {
    /// Starts the thread, with an Internet in which nobody is.
    pub(crate) fn start() -> Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: wake.context("making an eventfd")?,
            started: Instant::now(),
        });
        let carrying = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lab-wire".to_owned())
            .spawn(move || {
                // Without the right to it, it takes its turn.
                let _ = rustix::process::setpriority_process(None, PRIORITY);
                carrying.carry();
            })
            .context("starting the wire's thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes something about areas, hosts and links.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Fabric) -> T) -> T {
        let changed = change(&mut self.shared.lock().fabric);
        self.shared.wake();
        changed
    }

    /// Makes a host's device, and gives the host its place in an area.
    pub(crate) fn connect(&self, host: &Host, area: Area, link: LinkKind) -> Result<Place> {
        let device = device(host)?;
        let mut state = self.shared.lock();
        let place = state.fabric.host(area, host.address(), link);
        state.devices.push(Arc::new(device));
        drop(state);
        self.shared.wake();
        Ok(place)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was told on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It is full only if the thread is about to wake anyway.
        let _ = self.wake.write(1);
    }

    fn carry(&self) {
        let mut buffer = vec![0; usize::from(MTU)];
        loop {
            let mut state = self.lock();
            if state.is_over {
                return;
            }
            let now = self.started.elapsed();
            for (place, packet) in state.fabric.poll(now) {
                if let Some(device) = state.devices.get(place.0) {
                    // A host whose device is full, or down, loses it.
                    let _ = write(device, &packet);
                }
            }
            let wait = state.fabric.next();
            let wait = wait.map_or(IDLE, |at| at.saturating_sub(self.started.elapsed()));
            let devices = state.devices.clone();
            drop(state);
            let ready = wait_for(self.wake.as_fd(), &devices, wait);
            let _ = self.wake.read();
            for place in ready {
                self.take_from(Place(place), &devices[place], &mut buffer);
            }
        }
    }

    fn take_from(&self, place: Place, device: &OwnedFd, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok(length) = read(device, buffer) else {
                return;
            };
            let now = self.started.elapsed();
            self.lock()
                .fabric
                .send(now, place, buffer[..length].to_vec());
        }
    }
}

/// Waits until devices have packets, something has changed, or the time is over; returns the
/// places of these devices.
fn wait_for(wake: BorrowedFd<'_>, devices: &[Arc<OwnedFd>], wait: Duration) -> Vec<usize> {
    let fds = devices.iter().map(|device| device.as_fd()).chain([wake]);
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    if ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None).is_err() {
        return Vec::new();
    }
    let has_packets = |fd: &PollFd<'_>| {
        let events = fd.revents();
        events.is_some_and(|events| events.contains(PollFlags::POLLIN))
    };
    let devices = fds.iter().take(devices.len()).enumerate();
    let ready = devices.filter(|(_, fd)| has_packets(fd));
    ready.map(|(place, _)| place).collect()
}

/// Makes the TUN device of a host, in its namespace.
fn device(host: &Host) -> Result<OwnedFd> {
    let inside = host.clone();
    let made = thread::spawn(move || -> Result<SyncDevice> {
        inside.enter()?;
        let builder = DeviceBuilder::new().name(INTERFACE).layer(Layer::L3);
        let device = builder.mtu(MTU).build_sync();
        device.map_err(|error| described(error, &inside))
    });
    let device = made.join().map_err(|_| anyhow!("the thread panicked"))??;
    // Whatever the wrapper would do when it is dropped, the kernel does when the descriptor goes.
    let fd: OwnedFd = device
        .as_fd()
        .try_clone_to_owned()
        .context("keeping a device")?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).context("asking a device for its flags")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).context("making a device not wait")?;
    Ok(fd)
}

fn described(error: io::Error, host: &Host) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("making the device of host {}", host.name()))
}
