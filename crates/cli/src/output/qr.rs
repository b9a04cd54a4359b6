//! QR codes for terminals.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Draws text as a QR code of half blocks; none when it is too long for one (about
/// 2,900 octets).
///
/// Terminals are mostly dark, so the light modules are the ones that are drawn.
pub(crate) fn draw(text: &str) -> Option<String> {
    // The least redundancy gives the smallest code, and a screen has no stains.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_rectangle_of_half_blocks() {
        let picture = draw("enishi1abcdef").unwrap();
        let widths: Vec<usize> = picture.lines().map(|line| line.chars().count()).collect();
        // Version 1 has 21 modules, with 4 light ones on each side.
        assert_eq!(widths, vec![29; 15]);
        assert!(picture.chars().all(|c| " ▀▄█\n".contains(c)));
        // The quiet zone is light, which means drawn.
        assert!(picture.starts_with('█'));
    }

    #[test]
    fn text_that_does_not_fit_has_no_code() {
        assert_eq!(draw(&"x".repeat(4_000)), None);
    }
}
