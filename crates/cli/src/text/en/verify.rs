//! `verify` in English.

use enishi_api::Verdict;

pub(super) const fn verdict(verdict: Verdict, is_key: bool) -> &'static str {
    match (verdict, is_key) {
        (Verdict::Confirmed, false) => {
            "Confirmed: the node with this id is where its id puts it, and proved its key there."
        }
        (Verdict::Confirmed, true) => {
            "Confirmed: most of the nodes in charge of the key show the same record."
        }
        (Verdict::Disputed, false) => {
            "Disputed: the node answers, but most of the paths ended at others."
        }
        (Verdict::Disputed, true) => {
            "Disputed: somebody shows a record, but most of the nodes in charge do not."
        }
        (Verdict::Unknown, false) => "Not found: no path led to a node that proved this id.",
        (Verdict::Unknown, true) => "Not found: nobody shows a record of this key.",
    }
}

pub(super) const fn advice(verdict: Verdict, is_key: bool) -> &'static str {
    match (verdict, is_key) {
        (Verdict::Confirmed, _) => "",
        (Verdict::Disputed, false) => {
            "Nodes near it may have come or gone just now: try again in a minute. If it stays \
             disputed, somebody diverts questions about this node. What you send to it is safe all \
             the same, for only it has the key of this id; but compare the whole id with its owner \
             by another way, for example by telephone, and do not trust anybody who answers in \
             its place."
        }
        (Verdict::Disputed, true) => {
            "It may have been stored or changed just now: try again in a minute. If it stays \
             disputed, do not rely on the value: compare it, and the owner above, with whoever \
             stored it by another way, for example by telephone, and ask them to store it again."
        }
        (Verdict::Unknown, false) => {
            "It may be switched off, attached as a client, which has no place of its own, or in \
             another overlay. Compare every character of the id. If its owner sees it running, \
             it is being hidden from you: try `enishi ping` with the whole id, or join by an \
             invitation of that node."
        }
        (Verdict::Unknown, true) => {
            "Check the spelling of the key. If whoever stored it can read it, it is being hidden \
             from you: ask them to store it again."
        }
    }
}

pub(super) const fn crowded(is_key: bool) -> &'static str {
    if is_key {
        "Nodes sit unnaturally close to this key, or far from it: somebody may have made keys \
         to surround it. The region around it was asked too. Where it matters, choose another key."
    } else {
        "Nodes sit unnaturally close to this node's place, or far from it: somebody may have made \
         keys to surround it. The region around it was searched too."
    }
}

pub(super) fn paths(all_known: bool, agreeing: u32, paths: u32) -> String {
    match all_known {
        true => "none needed: this node knows all nodes of the overlay".to_owned(),
        false => format!("{agreeing} of {paths} agree"),
    }
}

pub(super) fn shown(seq: u64, holders: u32) -> String {
    let nodes = if holders == 1 {
        "node shows"
    } else {
        "nodes show"
    };
    format!("version {seq}, which {holders} {nodes}")
}
