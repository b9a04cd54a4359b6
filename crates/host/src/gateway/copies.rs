//! Which documents a gateway has put into an overlay and not taken out yet. It is on the disk before
//! a document is put, so that a later run takes out what an earlier one left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::GatewayError;
use crate::data_dir::{read_settings, write_private};

const FILE_NAME: &str = "copies.json";

/// How many copies there may be; no further one is put while earlier ones cannot be taken out.
pub const COPIES_MAX: usize = 64;

/// The longest file, in octets: [`COPIES_MAX`] names of 1,024 octets, and paths.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a copy is: the id of the overlay into which it was put, and its name.
pub type Place = (String, String);

/// The copies of a gateway.
#[derive(Debug, Default)]
pub struct Copies {
    dir: PathBuf,
    /// Each with the data directory of the node that put it.
    places: BTreeMap<Place, PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    overlay: String,
    document: String,
    data: PathBuf,
}

impl Copies {
    /// Reads those of a gateway's directory.
    ///
    /// # Errors
    /// [`GatewayError::DataDir`].
    pub fn open(dir: &Path) -> Result<Self, GatewayError> {
        let parse =
            |text: &str| serde_json::from_str::<Vec<Kept>>(text).map_err(|error| error.to_string());
        let kept = read_settings(&dir.join(FILE_NAME), FILE_BYTES_MAX, parse)?;
        let place = |kept: Kept| ((kept.overlay, kept.document), kept.data);
        let kept = kept.unwrap_or_default().into_iter().take(COPIES_MAX);
        Ok(Self {
            dir: dir.to_owned(),
            places: kept.map(place).collect(),
        })
    }

    /// Returns them, each with the data directory of the node that put it.
    pub fn places(&self) -> &BTreeMap<Place, PathBuf> {
        &self.places
    }

    /// Notes one that is about to be put.
    ///
    /// # Errors
    /// [`GatewayError::CopiesFull`], [`GatewayError::DataDir`]: it must not be put then.
    pub fn add(&mut self, place: &Place, data: &Path) -> Result<(), GatewayError> {
        if self.places.get(place).is_some_and(|kept| kept == data) {
            return Ok(());
        }
        if self.places.len() >= COPIES_MAX && !self.places.contains_key(place) {
            return Err(GatewayError::CopiesFull);
        }
        let mut places = self.places.clone();
        places.insert(place.clone(), data.to_owned());
        self.keep(places)
    }

    /// Notes that one was taken out.
    ///
    /// # Errors
    /// [`GatewayError::DataDir`]; it is taken out once more then.
    pub fn remove(&mut self, place: &Place) -> Result<(), GatewayError> {
        let mut places = self.places.clone();
        match places.remove(place) {
            Some(_) => self.keep(places),
            None => Ok(()),
        }
    }

    fn keep(&mut self, places: BTreeMap<Place, PathBuf>) -> Result<(), GatewayError> {
        let kept = places.iter().map(|((overlay, document), data)| Kept {
            overlay: overlay.clone(),
            document: document.clone(),
            data: data.clone(),
        });
        let kept: Vec<Kept> = kept.collect();
        let text = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
        write_private(&self.dir, &self.dir.join(FILE_NAME), &text)?;
        self.places = places;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: usize) -> Place {
        ("overlay".to_owned(), format!("\"{number}").repeat(300))
    }

    #[test]
    fn copies_are_known_to_a_later_run() {
        let dir = tempfile::tempdir().unwrap();
        let data = Path::new("/data");
        let mut copies = Copies::open(dir.path()).unwrap();
        for number in 0..COPIES_MAX {
            copies.add(&place(number), data).unwrap();
        }
        let full = copies.add(&place(COPIES_MAX), data);
        assert!(matches!(full, Err(GatewayError::CopiesFull)), "{full:?}");
        copies.remove(&place(3)).unwrap();
        let again = Copies::open(dir.path()).unwrap();
        assert_eq!(again.places(), copies.places());
        assert_eq!(again.places().len(), COPIES_MAX - 1);
        assert!(!again.places().contains_key(&place(3)));
    }
}
