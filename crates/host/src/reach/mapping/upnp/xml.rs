//! What is looked for in a router's XML. Elements are taken one after the other, so that depth costs
//! nothing; declarations, entities of its own and namespaces mean nothing.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// Services that map ports (UPnP Internet Gateway Device 1 and 2). Both know what is asked here.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// Returns the first service that maps ports in a device's description, and the address at which it
/// takes questions, as it is written there.
pub(super) fn service(text: &str) -> Option<(&'static str, String)> {
    let (mut kind, mut control) = (None, None);
    let mut elements = Elements::of(text);
    while let Some((name, text)) = elements.next()? {
        match name {
            "serviceType" => kind = SERVICES.into_iter().find(|known| *known == text),
            "controlURL" => control = Some(text.to_owned()),
            // What is between two services belongs to none.
            "service" => {
                if let (Some(kind), Some(control)) = (kind.take(), control.take()) {
                    return Some((kind, control));
                }
            }
            _ => {}
        }
    }
    None
}

/// What a router says to an action.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// It did it.
    pub(super) is_done: bool,
    /// Its number for why not (UPnP Device Architecture 1.1, section 3.2.2).
    pub(super) refusal: Option<u16>,
    /// The text of the element that was asked for.
    pub(super) value: Option<String>,
}

/// Reads the answer to an action, and an element of it. None if it is no XML or stops in the middle.
pub(super) fn said(text: &str, action: &str, wanted: &str) -> Option<Said> {
    let mut said = Said::default();
    let mut elements = Elements::of(text);
    while let Some((name, text)) = elements.next()? {
        match name {
            "errorCode" => said.refusal = text.parse().ok(),
            _ if name == wanted => said.value = Some(text.to_owned()),
            _ => said.is_done |= name.strip_suffix("Response") == Some(action),
        }
    }
    Some(said)
}

/// The elements of a text, each when it ends.
struct Elements<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
    name: String,
    /// The text since the last element began or ended.
    text: String,
}

impl<'a> Elements<'a> {
    fn of(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        // In names of products and in addresses it is not always written as it ought to be.
        config.allow_dangling_amp = true;
        Self {
            reader,
            depth: 0,
            name: String::new(),
            text: String::new(),
        }
    }

    /// Returns the next one's name without its prefix, and the text at its end without white space
    /// around it. `Some(None)` is the end of the text, none that it is not well formed.
    #[allow(clippy::option_option, reason = "the end is no mistake")]
    fn next(&mut self) -> Option<Option<(&str, &str)>> {
        self.text.clear();
        loop {
            match self.reader.read_event().ok()? {
                Event::Start(_) => {
                    self.depth += 1;
                    self.text.clear();
                }
                Event::End(end) => {
                    self.depth = self.depth.checked_sub(1)?;
                    self.name.clear();
                    self.name.push_str(end.local_name().into_inner());
                    return Some(Some((&self.name, self.text.trim())));
                }
                Event::Text(text) => self.text.push_str(&text),
                Event::CData(text) => self.text.push_str(&text),
                Event::GeneralRef(named) => self.text.push(character(&named)?),
                Event::Eof => return (self.depth == 0).then_some(None),
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => {}
            }
        }
    }
}

/// Returns what stands for a character; none for entities of a document's own.
fn character(named: &BytesRef<'_>) -> Option<char> {
    if let Some(numbered) = named.resolve_char_ref().ok()? {
        return Some(numbered);
    }
    match &**named {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}
