//! Columns of text.

#![forbid(unsafe_code)]

use std::fmt;

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A heading and rows below it, each column as wide as it has to be.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    sides: [Side; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(columns: [(&str, Side); COLUMNS]) -> Self {
        Self {
            sides: columns.map(|(_, side)| side),
            rows: vec![columns.map(|(heading, _)| heading.to_owned())],
        }
    }

    pub(crate) fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            let texts = self.rows.iter().map(|row| row[column].chars().count());
            texts.max().unwrap_or_default()
        });
        for row in &self.rows {
            let mut line = String::new();
            for ((text, side), width) in row.iter().zip(self.sides).zip(widths) {
                line += &match side {
                    Side::Left => format!("{text:<width$}  "),
                    Side::Right => format!("{text:>width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let mut table = Table::new([("NAME", Side::Left), ("PID", Side::Right)]);
        table.push(["orders".into(), "7".into()]);
        table.push(["a".into(), "12345".into()]);
        assert_eq!(
            table.to_string(),
            "NAME      PID\norders      7\na       12345\n"
        );
    }
}
