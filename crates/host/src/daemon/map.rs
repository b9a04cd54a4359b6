//! The ring as this node knows it, and, if a person wants, as others tell it.
//!
//! A crawl asks one node after the other who its neighbours are: a routed question to the
//! position of each node that is known, which that node answers with the few next to it.
//! It asks for at most so many nodes as a person allows, [`CRAWL_PER_SECOND`] a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_api::{Answer, Failure, MapLink, MapNode, MapRole, OverlayMap};
use enishi_overlay::class::Class;
use enishi_overlay::view::Role;
use enishi_overlay::{NodeId, Position};
use enishi_services::Node;

use super::desk::{Desk, usage};
use super::diagnostics::{api_path, ms};

/// The most nodes that a crawl asks.
const CRAWL_MAX: u32 = 1_000;

/// How many nodes a crawl asks in a second.
const CRAWL_PER_SECOND: u32 = 20;

/// The most nodes on a map.
const NODES_MAX: usize = 4_096;

/// The most links on a map.
const LINKS_MAX: usize = 16_384;

/// What is known of a node for the map.
#[derive(Clone, Debug)]
struct Known {
    position: Position,
    role: MapRole,
    rtt: Option<Duration>,
    predicted: Option<Duration>,
    class: Class,
}

/// What the node sees.
#[derive(Debug, Default)]
struct Seen {
    size_estimate: u64,
    nodes: BTreeMap<NodeId, Known>,
    links: BTreeSet<(NodeId, NodeId, bool)>,
}

pub(super) async fn map(desk: &Desk, crawl: u32) -> Result<Answer, Failure> {
    if crawl > CRAWL_MAX {
        return Err(usage(format!("A crawl asks at most {CRAWL_MAX} nodes.")));
    }
    let mut seen = desk.look(look).await?;
    ask_around(desk, &mut seen, crawl).await?;
    Ok(Answer::OverlayMap(draw(desk, &seen)))
}

fn look(node: &Node) -> Seen {
    let overlay = node.overlay();
    let mut seen = Seen {
        size_estimate: overlay.size_estimate(),
        ..Seen::default()
    };
    let mut know = |id: NodeId, role, rtt, (predicted, class)| {
        let known = Known {
            position: overlay.position_of(&id),
            role,
            rtt,
            predicted,
            class,
        };
        seen.nodes.insert(id, known);
    };
    let told = told(node);
    for id in overlay.known().into_keys().take(NODES_MAX) {
        let told = told.get(&id).copied();
        know(
            id,
            MapRole::Known,
            None,
            told.unwrap_or((None, Class::Peer)),
        );
    }
    let me = node.id();
    for peer in overlay.peers() {
        let id = peer.contact().id();
        let near = overlay.near().contains(id);
        let role = if near { MapRole::Near } else { MapRole::Long };
        let class = peer.grade().class();
        know(id, role, peer.round_trip().smoothed(), (None, class));
    }
    know(me, MapRole::Itself, None, (None, overlay.class()));
    // Of most in the views only the places are known.
    let names = seen.nodes.iter().map(|(id, known)| (known.position, *id));
    let names: BTreeMap<Position, NodeId> = names.collect();
    for peer in overlay.peers() {
        let id = peer.contact().id();
        seen.link(me, id, !overlay.near().contains(id));
        for member in peer.view().members() {
            if let Some(other) = names.get(&member.position) {
                seen.link(id, *other, member.role == Role::Long);
            }
        }
    }
    seen
}

/// What nodes in the views of peers told of themselves: what the round trips to them should
/// be, by their places in the network, and their classes.
fn told(node: &Node) -> BTreeMap<NodeId, (Option<Duration>, Class)> {
    let overlay = node.overlay();
    let here = overlay.coordinate();
    let members = overlay.peers().flat_map(|peer| peer.view().members());
    let told = members.filter_map(|member| {
        let predicted = here.round_trip(&member.coordinate);
        let id = member.contact.as_ref()?.id();
        Some((id, (predicted, member.grade.class())))
    });
    told.collect()
}

impl Seen {
    fn link(&mut self, one: NodeId, other: NodeId, long: bool) {
        let (one, other) = (one.min(other), one.max(other));
        if one != other && self.links.len() < LINKS_MAX {
            self.links.insert((one, other, long));
        }
    }
}

/// Asks for the neighbours of as many nodes as `budget` allows.
async fn ask_around(desk: &Desk, seen: &mut Seen, budget: u32) -> Result<(), Failure> {
    let mut asked: BTreeSet<NodeId> = BTreeSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CRAWL_PER_SECOND);
    for _ in 0..budget {
        let next = seen.nodes.iter().find(|(id, known)| {
            // Who is next to a neighbour is known from its view; of links it tells only where
            // their neighbours are.
            let told = matches!(known.role, MapRole::Itself | MapRole::Near);
            !told && !asked.contains(id)
        });
        let Some((id, position)) = next.map(|(id, known)| (*id, known.position)) else {
            return Ok(());
        };
        asked.insert(id);
        ticks.tick().await;
        let nodes = desk.locate(position).await?;
        let found = desk.look(move |node| {
            let (overlay, here) = (node.overlay(), node.overlay().coordinate());
            let with = nodes.iter().map(|entry| {
                let id = entry.contact.id();
                let known = Known {
                    position: overlay.position_of(&id),
                    role: MapRole::Found,
                    rtt: None,
                    predicted: here.round_trip(&entry.coordinate),
                    class: entry.grade.class(),
                };
                (id, known)
            });
            with.collect::<Vec<_>>()
        });
        for (id, known) in found.await? {
            if seen.nodes.len() < NODES_MAX {
                seen.nodes.entry(id).or_insert(known);
            }
        }
    }
    Ok(())
}

fn draw(desk: &Desk, seen: &Seen) -> OverlayMap {
    let mut order: Vec<(&NodeId, &Known)> = seen.nodes.iter().collect();
    order.sort_by_key(|(id, known)| (known.role != MapRole::Itself, known.position, **id));
    let places: BTreeMap<&NodeId, u32> = order.iter().map(|(id, _)| *id).zip(0..).collect();
    let links = seen.links.iter().filter_map(|(from, to, long)| {
        Some(MapLink {
            from: *places.get(from)?,
            to: *places.get(to)?,
            long: *long,
        })
    });
    let nodes = order.iter().map(|(id, known)| MapNode {
        node_id: id.to_string(),
        position: known.position.to_string(),
        role: known.role,
        path: api_path(desk, **id),
        rtt_ms: known.rtt.map(ms),
        rtt_predicted_ms: known.predicted.map(ms),
        class: Some(known.class.name().to_owned()),
    });
    OverlayMap {
        size_estimate: seen.size_estimate,
        nodes: nodes.collect(),
        links: links.collect(),
    }
}
