//! Where nodes show that their packets come out besides: a host with IPv4 and IPv6, or behind a NAT64,
//! comes out at one address by each, and a session goes by one of them.
//!
//! ```text
//!   P  asks W by STUN, by both versions of IP, from its packets' port; each answer has a ticket
//!   P -- shows: 198.51.100.7, ticket --> W   in their session, if W sees P elsewhere in it
//!                                        W   knows its ticket: it went to 198.51.100.7, and P has it
//!   V -- where: P ---------------------> W   before it searches ports at 198.51.100.7 ([`super::punch`])
//!     <- sees too: 2001:db8::7, 198.51.100.7
//! ```
//!
//! **Nobody shows an address at which it gets nothing.** The ticket is in what was sent there
//! (`enishi_stun::Tickets`), is good for two minutes and at the server that gave it, and is shown in a
//! session, so that W knows whose it is; P tells it nobody else. That is as much as W knows of the
//! address to which a session goes, which QUIC validates in the same manner (RFC 9000, section 8.2).
//! So W's word of both weighs the same, and who asks weighs it against that of others.
//!
//! What is shown is of IPv4 alone: of IPv6, ports need not be searched.
//!
//! Nodes show what they were given when they ask by STUN anyway, which is every hundred seconds and
//! before a search. Of these servers V may know none; so W, when it is asked about a node that it sees
//! by IPv6 alone, has that one ask it ([`ReachMessage::Show`](super::wire::ReachMessage::Show)), and V
//! asks again.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use enishi_overlay::Time;

use crate::bucket::{Bucket, Rate};

/// For how long what was shown is told: longer than the pause between two questions of a node.
pub(super) const LASTS: Duration = Duration::from_secs(240);

/// How often one node is asked to show itself; a little less often than it does so.
const PROMPT_INTERVAL: Duration = Duration::from_secs(3);

/// How often this node shows itself because others ask for it; and how often to one of them.
const PROMPTED: Rate = Rate { per_s: 1, burst: 8 };
const PROMPTED_PAUSE: Duration = Duration::from_millis(2_500);
/// How often one is asked because it wants to be, if it gives no ticket by another version of IP: where it
/// says that it takes questions may be somebody else.
const VAIN_MAX: u8 = 3;

/// Between two tickets of one node that are looked at.
const SHOWS_PAUSE: Duration = Duration::from_millis(2_500);

/// What one node has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    at: Option<(Ipv4Addr, Time)>,
    next_prompt: Option<Time>,
    next_ticket: Option<Time>,
}

impl Shown {
    /// Tells whether a ticket of it is to be looked at now.
    pub(super) fn may_show(&mut self, now: Time) -> bool {
        let is_due = self.next_ticket.is_none_or(|next| now >= next);
        if is_due {
            self.next_ticket = Some(now + SHOWS_PAUSE);
        }
        is_due
    }

    /// It has shown an address, in place of the one before; one of IPv6 says nothing.
    pub(super) fn learn(&mut self, now: Time, at: IpAddr) {
        if let IpAddr::V4(at) = at.to_canonical() {
            self.at = Some((at, now));
        }
    }

    /// Its session goes elsewhere now: what it has shown may be of where it was.
    pub(super) fn moved(&mut self) {
        (self.at, self.next_ticket) = (None, None);
    }

    /// Returns what it has shown lately, if that is not where its session goes anyway.
    pub(super) fn besides(&self, now: Time, session: IpAddr) -> Option<IpAddr> {
        let (at, since) = self.at?;
        let at = IpAddr::from(at);
        let is_told = now.since(since) < LASTS && at != session.to_canonical();
        is_told.then_some(at)
    }

    /// Tells whether it is to be asked now to show itself, since its session, which goes to an
    /// address, says nothing of its IPv4.
    pub(super) fn is_prompted(&mut self, now: Time, session: IpAddr) -> bool {
        let is_wanted = session.to_canonical().is_ipv6() && self.besides(now, session).is_none();
        let is_due = self.next_prompt.is_none_or(|next| now >= next);
        if is_wanted && is_due {
            self.next_prompt = Some(now + PROMPT_INTERVAL);
        }
        is_wanted && is_due
    }
}

/// How often this node does what others ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prompted(Option<Bucket>);

/// How often it does what one of them asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptedBy {
    next: Option<Time>,
    vain: u8,
}

impl Prompted {
    /// Tells whether it may do so now for one of them.
    pub(super) fn may(&mut self, now: Time, by: &mut PromptedBy) -> bool {
        let is_early = by.next.is_some_and(|next| now < next);
        if is_early || by.vain >= VAIN_MAX {
            return false;
        }
        let bucket = self.0.get_or_insert_with(|| Bucket::full(PROMPTED, now));
        if !bucket.take(PROMPTED, now) {
            return false;
        }
        by.next = Some(now + PROMPTED_PAUSE);
        by.vain += 1;
        true
    }
}

impl PromptedBy {
    /// It has given a ticket by another version of IP than that of its session.
    pub(super) fn has_given(&mut self) {
        self.vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_shown_is_told_for_a_while_and_only_what_the_session_does_not_say() {
        let (four, six) = (ip("198.51.100.7"), ip("2001:db8::7"));
        let now = Time::from_secs(1_000);
        let mut shown = Shown::default();
        assert_eq!(shown.besides(now, six), None);
        shown.learn(now, ip("::ffff:198.51.100.7"));
        assert_eq!(shown.besides(now, six), Some(four));
        assert_eq!(shown.besides(now, four), None);
        assert_eq!(shown.besides(now + LASTS, six), None);
        let moved = ip("203.0.113.9");
        shown.learn(now, moved);
        assert_eq!(shown.besides(now, four), Some(moved));
        // IPv6 does not take the place of IPv4.
        shown.learn(now, ip("2001:db8::8"));
        assert_eq!(shown.besides(now, six), Some(moved));
        shown.moved();
        assert_eq!(shown.besides(now, six), None);
    }

    #[test]
    fn tickets_of_one_node_are_looked_at_rarely() {
        let (mut shown, now) = (Shown::default(), Time::from_secs(1));
        assert!(shown.may_show(now) && !shown.may_show(now));
        assert!(shown.may_show(now + SHOWS_PAUSE));
    }

    #[test]
    fn who_gives_no_ticket_is_not_asked_for_ever_and_nobody_takes_the_turns_of_others() {
        let (mut prompted, mut now) = (Prompted::default(), Time::from_secs(1_000));
        let (mut greedy, mut other) = (PromptedBy::default(), PromptedBy::default());
        let mut asked = 0;
        for _ in 0..1_000 {
            asked += usize::from(prompted.may(now, &mut greedy));
            now = now + Duration::from_millis(100);
        }
        assert_eq!(asked, usize::from(VAIN_MAX));
        assert!(prompted.may(now, &mut other));
        // Who gives one is asked again, as often as before.
        greedy.has_given();
        assert!(prompted.may(now, &mut greedy) && !prompted.may(now, &mut greedy));
        now = now + PROMPTED_PAUSE;
        assert!(prompted.may(now, &mut greedy));
    }

    #[test]
    fn nobody_is_asked_to_show_itself_without_need_or_time_and_again() {
        let (four, six) = (ip("198.51.100.7"), ip("2001:db8::7"));
        let mut now = Time::from_secs(1_000);
        let mut shown = Shown::default();
        assert!(!shown.is_prompted(now, four));
        assert!(shown.is_prompted(now, six) && !shown.is_prompted(now, six));
        now = now + PROMPT_INTERVAL;
        assert!(shown.is_prompted(now, six));
        now = now + PROMPT_INTERVAL;
        shown.learn(now, four);
        assert!(!shown.is_prompted(now, six));
        let mut prompted = Prompted::default();
        let mut by = [PromptedBy::default(); 1_000];
        let times = by
            .iter_mut()
            .map(|by| prompted.may(now, by))
            .filter(|may| *may)
            .count();
        assert_eq!(times, PROMPTED.burst as usize);
    }
}
