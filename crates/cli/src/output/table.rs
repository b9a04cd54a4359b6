//! Aligned columns.

use unicode_width::UnicodeWidthStr;

use super::harmless;

/// Between two columns.
const GAP: &str = "  ";

/// Rows of cells whose columns are aligned when printed.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// Makes a table with headings.
    pub(crate) fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        table.row(headings.into_iter().map(str::to_uppercase));
        table
    }

    /// Adds a row; each line break in a cell becomes a blank.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) -> &mut Self {
        let cell = |text: String| harmless(&text).replace(['\n', '\t'], " ");
        self.rows.push(cells.into_iter().map(cell).collect());
        self
    }

    /// Has a column, counted from 0, aligned to the right, as befits figures.
    pub(crate) fn right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// The table as lines without a break after the last.
    pub(crate) fn print(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| self.print_row(row, &widths))
            .collect();
        lines.join("\n")
    }

    fn print_row(&self, row: &[String], widths: &[usize]) -> String {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let blanks = " ".repeat(width - cell.width());
                if self.right.contains(&column) {
                    format!("{blanks}{cell}")
                } else {
                    format!("{cell}{blanks}")
                }
            })
            .collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_also_with_wide_characters() {
        let mut table = Table::new(["name", "members", "host"]).right(1);
        table.row(["縁".to_owned(), "3".to_owned(), "a\nb".to_owned()]);
        table.row(["office".to_owned(), "12".to_owned(), String::new()]);
        let expected = "\
NAME    MEMBERS  HOST
縁            3  a b
office       12";
        assert_eq!(table.print(), expected);
    }

    #[test]
    fn an_empty_table_is_empty() {
        assert_eq!(Table::default().print(), "");
    }
}
