//! How a newcomer, or a node that lost the others, finds nodes of its overlay.
//!
//! Invitations and the contacts of the last run are given to the node at its start. What is here goes
//! on looking, as long as the node knows too few others; in the local network it always does, since
//! there it costs little, keeps members together when the Internet is gone, and merges islands.
//!
//! ```text
//!   mdns      the local network          ─┐ addresses ┌─────┐ contacts
//!   mainline  the Mainline DHT            ├──────────>│ ask │─────────┐
//!   servers   nodes that are named       ─┘           └─────┘         ├─> node
//!   list      TXT records of a DNS name  ─── contacts, addresses ─────┘
//! ```
//!
//! What is found is hearsay: it is dialled, and nothing else. All counts and rates are bounded.
//!
//! | module | is about |
//! |---|---|
//! | `answer` | who is answered, and how often |
//! | `ask` | the question "who are you?" to addresses |
//! | `book` | which source found whom, for people |
//! | `list` | contacts in the DNS |
//! | `mainline` | the public rendezvous |
//! | `mdns` | the local network |
//! | `pace` | when to look, and when to look again |
//! | `server` | addresses that a person names |

mod answer;
mod ask;
mod book;
mod list;
#[cfg(feature = "mainline")]
mod mainline;
mod mdns;
mod pace;
mod server;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use enishi_overlay::{Contact, NodeId};
use enishi_services::rendezvous::Rendezvous;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::packets::Networks;

pub(crate) use answer::{Answerer, Audience};
use ask::Heard;
pub(crate) use book::{Book, Source};
pub use list::ListName;
pub use server::Server;
pub(crate) use server::is_server;

/// With fewer near neighbours than this a node looks for others, now and then.
pub(crate) const FEW: usize = 3;

/// Whom the node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Company {
    /// How many near neighbours or, as a client, hosts.
    pub(crate) near: usize,
    /// With whom it is in touch.
    pub(crate) peers: BTreeSet<NodeId>,
}

/// Where to look, as the configuration says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Whether in the local network.
    pub(crate) mdns: bool,
    /// Whom to ask.
    pub(crate) servers: Vec<Server>,
    /// Which DNS names to look up.
    pub(crate) lists: Vec<ListName>,
    /// By which nodes of the Mainline DHT; none for not at all, an empty list for the public ones.
    pub(crate) mainline: Option<Vec<Server>>,
}

/// What every source needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) rendezvous: Rendezvous,
    /// Takes what is found.
    pub(crate) found: mpsc::Sender<Vec<Contact>>,
    pub(crate) company: watch::Receiver<Company>,
    pub(crate) networks: Arc<Networks>,
    /// The addresses of this host at which it may be dialled.
    #[cfg_attr(
        not(feature = "mainline"),
        expect(dead_code, reason = "only the Mainline DHT wants to know")
    )]
    pub(crate) addresses: watch::Receiver<Vec<SocketAddr>>,
    pub(crate) book: Arc<Book>,
    pub(crate) stop: CancellationToken,
}

impl Around {
    /// Asks addresses who is there, and tells the node of those who answer. Returns who that is.
    async fn ask_and_tell(
        &self,
        source: Source,
        addresses: &[SocketAddr],
        heard: Heard,
    ) -> Vec<NodeId> {
        let (sender, mut found) = mpsc::channel::<Vec<Contact>>(ask::ADDRESSES_MAX);
        let mut ids = Vec::new();
        let telling = async {
            while let Some(contacts) = found.recv().await {
                ids.extend(contacts.first().map(Contact::id));
                self.tell(source, contacts).await;
            }
        };
        tokio::join!(
            ask::ask(&self.rendezvous, addresses, heard, sender),
            telling
        );
        ids
    }

    /// Tells the node of others.
    async fn tell(&self, source: Source, contacts: Vec<Contact>) {
        self.book.found(source, &contacts);
        // The node stops otherwise.
        let _ = self.found.send(contacts).await;
    }
}

/// Starts to look in all places of a plan, until the node stops. Must be called within a tokio
/// runtime.
pub(crate) fn start(plan: Plan, around: &Around) {
    let Plan {
        mdns,
        servers,
        lists,
        mainline,
    } = plan;
    if mdns {
        around.book.begin(Source::LocalNetwork);
        tokio::spawn(until_stop(around.stop.clone(), mdns::run(around.clone())));
    }
    if !servers.is_empty() {
        around.book.begin(Source::Servers);
        tokio::spawn(until_stop(
            around.stop.clone(),
            server::run(around.clone(), servers),
        ));
    }
    if !lists.is_empty() {
        around.book.begin(Source::DnsList);
        tokio::spawn(until_stop(
            around.stop.clone(),
            list::run(around.clone(), lists),
        ));
    }
    if let Some(nodes) = mainline {
        around.book.begin(Source::Mainline);
        #[cfg(feature = "mainline")]
        tokio::spawn(until_stop(
            around.stop.clone(),
            mainline::run(around.clone(), nodes),
        ));
        #[cfg(not(feature = "mainline"))]
        {
            drop(nodes);
            let reason = "this program was built without the Mainline DHT";
            around.book.failed(Source::Mainline, reason.to_owned());
        }
    }
}

async fn until_stop(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}
