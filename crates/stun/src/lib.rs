//! STUN and TURN as standard programs speak them, without sockets.
//!
//! *STUN* (RFC 8489) is a question, "from which address do you see me?", and its answer. Who is
//! behind a NAT learns its outside address by it. *TURN* (RFC 8656) is the means of last resort
//! where no direct path exists: a client *allocates* an address at a server, the *relayed
//! address*; what peers send there comes to the client, and the client sends from there by way
//! of the server. Each peer needs the client's *permission*, and a *channel* saves 32 octets
//! a datagram for a peer that is written to often.
//!
//! ```text
//!   client ---- Allocate, Send, ChannelData ----> server 3478 | relayed address ----> peer
//!          <--- Data, ChannelData ---------------             | <-------------------
//! ```
//!
//! Enishi's own nodes need none of it among themselves. It is for programs and servers of
//! others:
//!
//! - [`Answerer`] answers STUN questions, and [`question`] asks them;
//! - [`Tickets`] has a node show a server at which address it gets datagrams;
//! - [`Measurement`] finds out for how long a router keeps the mapping of a silent socket;
//! - [`Server`] is a TURN server for the programs of people with a password;
//! - [`Client`] uses a TURN server of others, for instance coturn.
//!
//! The protocol is that of the crates `stun-types`, `turn-server-proto` and
//! `turn-client-proto`, which are sans-io too. What is here is what stands between them and
//! strangers: limits, budgets, which peers may be reached, and which server is still there. These
//! crates draw nonces and transaction ids from the system's randomness themselves, so that what
//! happens here cannot be replayed, and the simulator does without. They also write addresses
//! into the log, and warn of each malformed datagram; whoever uses this crate should turn
//! the targets of [`NOISY_LOG_TARGETS`] off.

mod answer;
mod budget;
mod client;
mod clock;
mod credentials;
mod lifetime;
mod peers;
mod question;
mod server;
mod stream;
mod ticket;

pub use answer::{ANSWER_MULTIPLE_MAX, Answer, Answered, Answerer, is_stun};
pub use budget::{Rate, subscriber};
pub use client::{
    Client, ClientConfig, ClientEvent, ClientInput, ClientOutput, Loss, QUIET_MAX, UNANSWERED_MAX,
};
pub use credentials::{CREDENTIAL_BYTES_MAX, CredentialError, Credentials};
pub use lifetime::{IDLE_S, Lifetime, Measurement, MeasurementInput, Question, SOCKETS};
pub use peers::{Denied, NotPrefix, Prefix, allowed};
pub use question::{QuestionId, mapped, question, question_for_ticket, ticket};
pub use server::{
    Action, ClientInfo, Counters, DATAGRAM_BYTES_MAX, Family, Input, Leg, Limits, Opening, Policy,
    Server, ServerConfig,
};
pub use stream::{MESSAGE_BYTES_MAX, NotTurn, Stream, in_stream, is_data};
pub use ticket::{Ticket, Tickets};

/// The log targets of the protocol crates, which write addresses at level `info` and warn of
/// every malformed datagram.
pub const NOISY_LOG_TARGETS: [&str; 5] = [
    "stun_types",
    "stun_proto",
    "turn_types",
    "turn_server_proto",
    "turn_client_proto",
];
