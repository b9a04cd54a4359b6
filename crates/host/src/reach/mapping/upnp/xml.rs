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

/// How many services of a router are looked at: two lines, each by both kinds.
pub(super) const SERVICES_MAX: usize = 4;

/// What a device's description says, as it is written there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// The address that the others are relative to (`URLBase` of UPnP Device Architecture 1.0, section 2.1);
    /// newer devices say none.
    pub(super) base: Option<String>,
    /// The first services that map ports, at most `SERVICES_MAX`, each with the address at which it takes
    /// questions.
    pub(super) services: Vec<(&'static str, String)>,
}

/// Reads a description, as far as it is XML; none if it names no service before it ceases to be.
pub(super) fn described(text: &str) -> Option<Described> {
    let mut described = Described::default();
    let (mut kind, mut control) = (None, None);
    let mut elements = Elements::of(text);
    loop {
        let element = elements.next();
        let is_whole = element.is_some();
        let Some((name, text)) = element.flatten() else {
            let is_of_use = is_whole || !described.services.is_empty();
            return is_of_use.then_some(described);
        };
        match name {
            "URLBase" if described.base.is_none() && !text.is_empty() => {
                described.base = Some(text.to_owned());
            }
            "serviceType" => kind = SERVICES.into_iter().find(|known| *known == text),
            "controlURL" => control = Some(text.to_owned()),
            // What is between two services belongs to none.
            "service" => {
                if let (Some(kind), Some(control)) = (kind.take(), control.take())
                    && described.services.len() < SERVICES_MAX
                {
                    described.services.push((kind, control));
                }
            }
            _ => {}
        }
    }
}

/// What a router says to an action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said<const N: usize> {
    /// It did it.
    pub(super) is_done: bool,
    /// Its number for why not (UPnP Device Architecture 1.1, section 3.2.2).
    pub(super) refusal: Option<u16>,
    /// The texts of the elements that were asked for.
    pub(super) values: [Option<String>; N],
}

/// Reads the answer to an action, and some elements of it. None if it is no XML or stops in the middle.
pub(super) fn said<const N: usize>(text: &str, action: &str, wanted: [&str; N]) -> Option<Said<N>> {
    let mut said = Said {
        is_done: false,
        refusal: None,
        values: [const { None }; N],
    };
    let mut elements = Elements::of(text);
    while let Some((name, text)) = elements.next()? {
        let nth = wanted.iter().position(|wanted| *wanted == name);
        match (name, nth) {
            ("errorCode", _) => said.refusal = text.parse().ok(),
            (_, Some(nth)) => said.values[nth] = Some(text.to_owned()),
            (_, None) => said.is_done |= name.strip_suffix("Response") == Some(action),
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
