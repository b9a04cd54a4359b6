//! The matrix as a picture: a field for each pair of kinds.

use std::fmt::Write as _;

use super::matrix::{Cell, Matrix};

/// The side of a field, and the room for names, in units of the picture.
const FIELD: usize = 44;
const NAMES: usize = 150;

/// Draws the matrix as SVG.
pub(super) fn draw(matrix: &Matrix) -> String {
    let side = NAMES + matrix.kinds.len() * FIELD + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        side + 30
    );
    for (row, one) in matrix.kinds.iter().enumerate() {
        let at = NAMES + row * FIELD;
        let middle = at + FIELD / 2 + 4;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{middle}\" y=\"{}\" transform=\"rotate(-60 {middle} {})\">{}</text>",
            NAMES - 6,
            one.name,
            NAMES - 6,
            NAMES - 6,
            one.name
        );
        for (column, other) in matrix.kinds.iter().enumerate() {
            let Some(cell) = matrix.cell(one.name, other.name) else {
                continue;
            };
            let x = NAMES + column * FIELD;
            let (colour, text) = field(cell);
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{at}\" width=\"{}\" height=\"{}\" fill=\"{colour}\"><title>{} to {}: \
                 {}</title></rect>\n<text x=\"{}\" y=\"{middle}\" text-anchor=\"middle\">{text}</text>",
                FIELD - 2,
                FIELD - 2,
                cell.from,
                cell.to,
                cell.short(),
                x + FIELD / 2 - 1
            );
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{}\">green: direct, after so many seconds; yellow: by others; grey: not \
         connected</text>\n</svg>",
        side + 15
    );
    svg
}

fn field(cell: &Cell) -> (&'static str, String) {
    match (cell.first, cell.direct) {
        (None, _) => ("#cccccc", String::new()),
        (Some(first), None) => ("#ffd866", format!("{:.1}", first.as_secs_f64())),
        (Some(_), Some(direct)) => ("#9ad69a", format!("{:.1}", direct.as_secs_f64())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::kinds::KINDS;
    use super::*;

    #[test]
    fn each_pair_has_two_fields_and_each_kind_one_with_itself() {
        let cell = |from: usize, to: usize, first, direct| Cell {
            from: KINDS[from].name,
            to: KINDS[to].name,
            first,
            direct,
            session_is_direct: false,
        };
        let second = Some(Duration::from_secs(1));
        let matrix = Matrix {
            kinds: KINDS[..2].to_vec(),
            cells: vec![
                cell(0, 0, second, second),
                cell(0, 1, second, None),
                cell(1, 1, None, None),
            ],
            survivals: Vec::new(),
        };
        let svg = draw(&matrix);
        for (colour, times) in [("#9ad69a", 1), ("#ffd866", 2), ("#cccccc", 1)] {
            assert_eq!(svg.matches(colour).count(), times, "{colour}");
        }
        assert!(
            matrix
                .to_text()
                .ends_with("3 pairs, 2 connected, 1 directly\n")
        );
        assert_eq!(
            matrix.to_json()["pairs"][1]["direct_s"],
            serde_json::Value::Null
        );
    }
}
