//! Opens the first messages of QUIC handshakes, as everybody on their way can: their keys follow
//! from what stands in front of them (RFC 9001, section 5.2).

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

/// For QUIC version 1.
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const VERSION: [u8; 4] = [0, 0, 0, 1];

/// Returns the contents of the Initial packets that clients sent first, in a file of `tcpdump`.
pub(crate) fn opened(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut opened = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<16>() {
        let [.., a, b, c, d, _, _, _, _] = *header;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((frame, next)) = after.split_at_checked(bytes) else {
            break;
        };
        opened.extend(udp(frame).and_then(open));
        rest = next;
    }
    opened
}

/// Returns the content of a frame with IPv4 and UDP.
fn udp(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(12..)?.strip_prefix(&[8, 0])?;
    let header_bytes = usize::from(packet.first()? & 15) * 4;
    let is_udp = packet.get(9) == Some(&17);
    packet.get(header_bytes + 8..).filter(|_| is_udp)
}

/// Opens the packet with which a datagram begins; none unless it is an Initial packet whose
/// keys are the client's of its own destination.
fn open(datagram: &[u8]) -> Option<Vec<u8>> {
    let (&first, rest) = datagram.split_first()?;
    let rest = rest
        .strip_prefix(&VERSION)
        .filter(|_| first & 0xf0 == 0xc0)?;
    let (destination, rest) = with_length(rest)?;
    let (_source, rest) = with_length(rest)?;
    let (token_bytes, rest) = number(rest)?;
    let (bytes, rest) = number(rest.get(token_bytes..)?)?;
    let header_bytes = datagram.len() - rest.len();
    let keys = Keys::of(destination)?;

    let mask = keys.header.new_mask(rest.get(4..20)?).ok()?;
    let first = first ^ (mask[0] & 0x0f);
    let number_bytes = usize::from(first & 3) + 1;
    let mut header = datagram.get(..header_bytes + number_bytes)?.to_vec();
    header[0] = first;
    let mut nonce = keys.nonce;
    for at in 0..number_bytes {
        header[header_bytes + at] ^= mask[1 + at];
        nonce[12 - number_bytes + at] ^= header[header_bytes + at];
    }
    let mut sealed = rest.get(number_bytes..bytes)?.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let content = keys
        .packet
        .open_in_place(nonce, Aad::from(&header), &mut sealed);
    content.ok().map(|content| content.to_vec())
}

struct Keys {
    header: HeaderProtectionKey,
    packet: LessSafeKey,
    nonce: [u8; 12],
}

impl Keys {
    fn of(destination: &[u8]) -> Option<Self> {
        let common = Salt::new(HKDF_SHA256, &SALT).extract(destination);
        let client = Prk::new_less_safe(HKDF_SHA256, &expand::<32>(&common, "client in")?);
        let packet = UnboundKey::new(&AES_128_GCM, &expand::<16>(&client, "quic key")?);
        let header = HeaderProtectionKey::new(&quic::AES_128, &expand::<16>(&client, "quic hp")?);
        Some(Self {
            header: header.ok()?,
            packet: LessSafeKey::new(packet.ok()?),
            nonce: expand(&client, "quic iv")?,
        })
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
fn expand<const BYTES: usize>(secret: &Prk, label: &str) -> Option<[u8; BYTES]> {
    let label = format!("tls13 {label}");
    let info = [
        &[0, BYTES as u8, label.len() as u8][..],
        label.as_bytes(),
        &[0],
    ];
    let mut octets = [0; BYTES];
    let expanded = secret.expand(&info, Length(BYTES)).ok()?;
    expanded.fill(&mut octets).ok()?;
    Some(octets)
}

/// Reads octets after one with their number.
fn with_length(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, rest) = octets.split_first()?;
    rest.split_at_checked(usize::from(*bytes))
}

/// Reads a number of variable length (RFC 9000, section 16).
fn number(octets: &[u8]) -> Option<(usize, &[u8])> {
    let bytes = 1 << (octets.first()? >> 6);
    let (number, rest) = octets.split_at_checked(bytes)?;
    let fold = |sum: usize, octet: &u8| sum << 8 | usize::from(*octet);
    let sum = number.iter().fold(0, fold) & ((1 << (bytes * 8 - 2)) - 1);
    Some((sum, rest))
}
