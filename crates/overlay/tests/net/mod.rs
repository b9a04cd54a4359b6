//! A few overlays joined by a network without delay, for tests of single behaviours.

use std::collections::BTreeSet;
use std::time::Duration;

use enishi_overlay::overlay::{Effect, Input};
use enishi_overlay::{Config, Contact, Keypair, Message, NodeId, Overlay, OverlayId, Rng, Time};

/// Overlays by number, and what they told their hosts.
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) overlays: Vec<Overlay>,
    pub(crate) effects: Vec<(usize, Effect)>,
    pub(crate) sent: Vec<(usize, Contact, Message)>,
    dead: BTreeSet<usize>,
    cut: Vec<[usize; 2]>,
    refused: Vec<[usize; 2]>,
}

/// More messages than follow from any one input.
const SENT_MAX: usize = 10_000;

impl Net {
    /// Makes `size` overlays; each joins through the first.
    pub(crate) fn new(size: usize) -> Self {
        let mut net = Self {
            now: Time::from_secs(1),
            overlays: Vec::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            dead: BTreeSet::new(),
            cut: Vec::new(),
            refused: Vec::new(),
        };
        for _ in 0..size {
            net.add();
        }
        net.run_for(Duration::from_secs(10));
        net
    }

    /// Lets one more join.
    pub(crate) fn add(&mut self) {
        let number = self.overlays.len();
        let address = ([192, 0, 2, number as u8], 7000).into();
        let contact = Contact::new(id(number), [address]);
        let config = Config::new(OverlayId::from_name("test"));
        let rng = Rng::from_seed([number as u8; 32]);
        self.overlays
            .push(Overlay::new(self.now, contact, config, rng));
        if number > 0 {
            let first = self.overlays[0].me().clone();
            self.input(number, Input::Bootstrap(vec![first]));
        }
    }

    /// Lets something happen to one, and everything that follows at the same time.
    pub(crate) fn input(&mut self, number: usize, input: Input) {
        self.overlays[number].handle(self.now, input);
        self.deliver();
    }

    /// Lets time go by, in steps of ten milliseconds.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.now = self.now + Duration::from_millis(10);
            for number in 0..self.overlays.len() {
                let due = self.overlays[number].next_timeout();
                if !self.dead.contains(&number) && due.is_some_and(|due| due <= self.now) {
                    self.overlays[number].handle(self.now, Input::Timeout);
                }
            }
            self.deliver();
        }
    }

    /// From now on one neither hears nor speaks.
    pub(crate) fn kill(&mut self, number: usize) {
        self.dead.insert(number);
    }

    /// From now on two do not hear each other.
    pub(crate) fn cut(&mut self, between: [usize; 2]) {
        self.cut.push(between);
    }

    /// All hear each other again who were cut off.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// From now on the first of two hears at once that the other one cannot be reached.
    pub(crate) fn refuse(&mut self, between: [usize; 2]) {
        self.refused.push(between);
    }

    /// The number of a node.
    pub(crate) fn number(&self, id: NodeId) -> usize {
        self.overlays
            .iter()
            .position(|overlay| overlay.me().id() == id)
            .expect("a known node")
    }

    fn deliver(&mut self) {
        let before = self.sent.len();
        while let Some((from, effect)) = self.next_effect() {
            match effect {
                Effect::Send { to, message } => {
                    self.sent.push((from, to.clone(), message.clone()));
                    assert!(self.sent.len() < before + SENT_MAX, "it has no end");
                    let to = self.number(to.id());
                    if self.refused.contains(&[from, to]) {
                        self.overlays[from].handle(self.now, Input::Unreachable(id(to)));
                        continue;
                    }
                    let is_cut = self
                        .cut
                        .iter()
                        .any(|cut| [[from, to], [to, from]].contains(cut));
                    if !self.dead.contains(&to) && !is_cut {
                        let from = self.overlays[from].me().id();
                        self.overlays[to].handle(self.now, Input::Message { from, message });
                    }
                }
                effect => self.effects.push((from, effect)),
            }
        }
    }

    fn next_effect(&mut self) -> Option<(usize, Effect)> {
        let overlays = self.overlays.iter_mut().enumerate();
        let mut living = overlays.filter(|(number, _)| !self.dead.contains(number));
        living.find_map(|(number, overlay)| Some((number, overlay.pop_effect()?)))
    }
}

/// The id of a node by its number.
pub(crate) fn id(number: usize) -> NodeId {
    Keypair::from_seed(&[number as u8 + 1; 32]).id()
}
