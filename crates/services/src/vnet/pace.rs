//! How much one node may make this one do.
//!
//! A message that names a channel has this node try the name against all of its channels and
//! their epochs; one that names the right channel has it check a proof, open a seal, verify
//! signatures, agree on keys, and sometimes ask the DHT. That takes up to some hundred
//! microseconds, while its sender may have made it once and send it, or something like it, time
//! and again. So whatever a node says is paid from its own budget before anything is worked out.
//! What one node says costs no other node anything.

use super::wire::HOSTED_MAX;
use crate::bucket::Rate;

/// How many messages one node may send: the seven that an agreement and an announcement with
/// their repetitions may take in each of 64 channels that two nodes share, at once; and in the long
/// run signs of life of routers every two seconds in half of them. At some 300 us each that is a
/// hundredth of a processor for each node that does no better.
pub(super) const MESSAGES: Rate = Rate {
    per_s: 32,
    burst: 512,
};
/// How many questions to the DHT a node's messages may cause: whether it has its address, twice in
/// each of 64 channels at once.
pub(super) const LOOKUPS: Rate = Rate {
    per_s: 2,
    burst: 128,
};
/// How many questions about addresses that a node holds for others: all in four channels, at once.
/// Those beyond are asked later, and attaching does not wait for them.
pub(super) const HOSTED_LOOKUPS: Rate = Rate {
    per_s: 2,
    burst: 4 * HOSTED_MAX as u32,
};
