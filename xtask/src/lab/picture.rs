//! The matrix as a picture: a field for each pair of kinds, beside it the same of iroh alone, and below it
//! what is survived, as far as these were tried.

use std::fmt::Write as _;

use super::iroh::Times;
use super::matrix::{Cell, Matrix};
use super::strip::Strip;

/// The side of a field, and the room for names, in units of the picture.
pub(super) const FIELD: usize = 44;
pub(super) const NAMES: usize = 150;
/// How wide it is at least: what is written below the grid is as long.
const WIDTH_MIN: usize = 540;

/// Draws the matrix as SVG.
pub(super) fn draw(matrix: &Matrix) -> String {
    let side = NAMES + matrix.kinds.len() * FIELD + 10;
    let width = side * if matrix.has_iroh() { 2 } else { 1 };
    let width = width.max(WIDTH_MIN);
    let strip = Strip::of(matrix);
    let below = side + strip.height();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        below + 45
    );
    draw_fields(&mut svg, matrix, 0, "Enishi", |cell| {
        Some((cell.times, cell.short()))
    });
    if matrix.has_iroh() {
        draw_fields(&mut svg, matrix, side, "iroh alone", |cell| {
            Some((cell.iroh?, cell.short_of_iroh()))
        });
    }
    strip.draw(&mut svg, side);
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{}\">green: direct, after so many seconds; yellow: by others; grey: not \
         connected</text>\n<text x=\"10\" y=\"{}\">{}</text>\n</svg>",
        below + 15,
        below + 32,
        matrix.links
    );
    svg
}

/// Draws the fields of one column of the table, so far to the right.
fn draw_fields(
    svg: &mut String,
    matrix: &Matrix,
    left: usize,
    title: &str,
    column: impl Fn(&Cell) -> Option<(Times, String)>,
) {
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"20\" font-weight=\"bold\">{title}</text>",
        left + 10
    );
    for (row, one) in matrix.kinds.iter().enumerate() {
        let (x, y) = (left + NAMES + row * FIELD, NAMES + row * FIELD);
        let (across, down) = (x + FIELD / 2 + 4, y + FIELD / 2 + 4);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{down}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{across}\" y=\"{}\" transform=\"rotate(-60 {across} {})\">{}</text>",
            left + NAMES - 6,
            one.name,
            NAMES - 6,
            NAMES - 6,
            one.name
        );
        for (number, other) in matrix.kinds.iter().enumerate() {
            let Some(cell) = matrix.cell(one.name, other.name) else {
                continue;
            };
            let Some((times, short)) = column(cell) else {
                continue;
            };
            let x = left + NAMES + number * FIELD;
            let (colour, text) = field(times);
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{colour}\"><title>{} to {}: \
                 {short}</title></rect>\n<text x=\"{}\" y=\"{down}\" text-anchor=\"middle\">{text}</text>",
                FIELD - 2,
                FIELD - 2,
                cell.from,
                cell.to,
                x + FIELD / 2 - 1
            );
        }
    }
}

fn field(times: Times) -> (&'static str, String) {
    match (times.first, times.direct) {
        (None, _) => ("#cccccc", String::new()),
        (Some(first), None) => ("#ffd866", format!("{:.1}", first.as_secs_f64())),
        (Some(_), Some(direct)) => ("#9ad69a", format!("{:.1}", direct.as_secs_f64())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::kinds::KINDS;
    use super::super::links::Links;
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn matrix(iroh: Option<Times>) -> Matrix {
        let cell = |from: usize, to: usize, first, direct| Cell {
            from: KINDS[from].name,
            to: KINDS[to].name,
            times: Times { first, direct },
            session_is_direct: false,
            iroh,
        };
        Matrix {
            kinds: KINDS[..2].to_vec(),
            cells: vec![
                cell(0, 0, SECOND, SECOND),
                cell(0, 1, SECOND, None),
                cell(1, 1, None, None),
            ],
            survivals: Vec::new(),
            late: Duration::ZERO,
            links: Links::default(),
        }
    }

    #[test]
    fn each_pair_has_two_fields_and_each_kind_one_with_itself() {
        let matrix = matrix(None);
        let svg = draw(&matrix);
        for (colour, times) in [("#9ad69a", 1), ("#ffd866", 2), ("#cccccc", 1)] {
            assert_eq!(svg.matches(colour).count(), times, "{colour}");
        }
        let links = "links take 10 ms and lose 0 %, each way";
        assert!(svg.contains(&format!(">{links}</text>")), "{svg}");
        let last = format!(
            "3 pairs, 2 connected, 1 directly; {links}; the lab was late by 0 ms at most\n"
        );
        assert!(matrix.to_text().ends_with(&last), "{}", matrix.to_text());
        let told = serde_json::json!({ "delay_ms": 10, "loss_percent": 0.0 });
        assert_eq!(matrix.to_json()["links"], told);
        assert_eq!(
            matrix.to_json()["pairs"][1]["direct_s"],
            serde_json::Value::Null
        );
        assert_eq!(matrix.to_json()["iroh"], serde_json::Value::Null);
    }

    #[test]
    fn iroh_stands_beside() {
        let relayed = Times {
            first: SECOND,
            direct: None,
        };
        let matrix = matrix(Some(relayed));
        let svg = draw(&matrix);
        for (colour, times) in [("#9ad69a", 1), ("#ffd866", 2 + 4), ("#cccccc", 1)] {
            assert_eq!(svg.matches(colour).count(), times, "{colour}");
        }
        let text = matrix.to_text();
        let first = text.lines().next().unwrap();
        assert!(first.contains("1.0 1.0 (session relayed)"), "{first}");
        assert!(first.ends_with("iroh 1.0 relayed"), "{first}");
        assert!(
            text.ends_with("iroh alone: 3 connected, 0 directly\n"),
            "{text}"
        );
        let json = matrix.to_json();
        assert_eq!(json["pairs"][2]["iroh"]["first_s"], 1.0);
        assert_eq!(
            json["iroh"],
            serde_json::json!({ "connected": 3, "direct": 0 })
        );
    }
}
