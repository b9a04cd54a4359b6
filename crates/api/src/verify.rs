//! What several paths through the overlay say of a node or a key.

use serde::{Deserialize, Serialize};

/// How many paths are taken at most.
pub const PATHS_MAX: u8 = 8;

/// What follows from all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is there, and most paths or holders agree on it.
    Confirmed,
    /// It is there, but most disagree.
    Disputed,
    /// It was not found.
    Unknown,
}

/// What was to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// That this node is where its key puts it.
    Node(String),
    /// What is stored under this key.
    Key(String),
}

/// What several paths found out that have no node in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// What it is about: `node` or `key`.
    #[serde(flatten)]
    pub subject: Verified,
    /// What follows.
    pub verdict: Verdict,
    /// Whether this node knows all nodes of the overlay, so that it asks nobody for the way
    /// and there are no paths to compare.
    #[serde(default)]
    pub all_known: bool,
    /// How many paths led anywhere.
    pub paths: u32,
    /// How many of them ended at the node in question, or at one that shows the record.
    pub agreeing: u32,
    /// How many nodes were asked for the way.
    pub asked: u32,
    /// The nodes nearest to the place that answered themselves, nearest first.
    pub nearest: Vec<String>,
    /// For a key: what most of the nodes show that were asked for it.
    pub record: Option<VerifiedRecord>,
    /// Whether nodes sit much closer to the place, or further from it, than elsewhere.
    pub unusual: bool,
}

/// A record that several nodes show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedRecord {
    /// As whom its owner signed it: a pseudonym, for this record alone.
    pub owner: String,
    /// Its version.
    pub seq: u64,
    /// How many of the nodes that were asked show it.
    pub holders: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_has_the_form_that_scripts_read() {
        let verification = Verification {
            subject: Verified::Node("n1".to_owned()),
            verdict: Verdict::Disputed,
            all_known: false,
            paths: 8,
            agreeing: 3,
            asked: 40,
            nearest: vec!["n1".to_owned()],
            record: None,
            unusual: false,
        };
        let text = serde_json::to_string(&verification).unwrap();
        let start = r#"{"node":"n1","verdict":"disputed","all_known":false,"paths":8"#;
        assert!(text.starts_with(start), "{text}");
        assert_eq!(
            serde_json::from_str::<Verification>(&text).unwrap(),
            verification
        );
    }
}
