//! Columns that keep their places, as many of them as there is room for.

use ratatui::layout::HorizontalAlignment;
use ratatui::text::{Line, Span};

use super::look::Look;

/// Cells before the first column.
pub(crate) const MARGIN: usize = 1;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Cells that it has at least, so that it does not move with every number.
    pub(crate) width: usize,
    pub(crate) alignment: HorizontalAlignment,
    /// Where room is short, the columns with the lowest rank are left out.
    pub(crate) rank: u8,
}

/// Rows of cells, one for each column.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    /// The column that rows are sorted by, and whether the greatest comes first.
    sorted: Option<(usize, bool)>,
    rows: Vec<Vec<Line<'static>>>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>, sorted: Option<(usize, bool)>) -> Self {
        Self {
            columns,
            sorted,
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Vec<Line<'static>>) {
        self.rows.push(row);
    }

    /// The headings and the rows, in `width` cells.
    pub(crate) fn lines(&self, width: usize, look: Look) -> (Line<'static>, Vec<Line<'static>>) {
        let widths: Vec<usize> = (self.columns.iter().enumerate())
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                let widest = cells.map(Line::width).max().unwrap_or_default();
                widest.max(column.width).max(column.title.len())
            })
            .collect();
        let shown = self.fitting(&widths, width);
        let heading = self.line(&shown, &widths, |index| self.heading(index, look));
        let rows = (self.rows.iter())
            .map(|row| {
                self.line(&shown, &widths, |index| {
                    row.get(index).cloned().unwrap_or_default()
                })
            })
            .collect();
        (heading, rows)
    }

    /// The cells of the columns `shown`, each in its place.
    fn line(
        &self,
        shown: &[usize],
        widths: &[usize],
        cell: impl Fn(usize) -> Line<'static>,
    ) -> Line<'static> {
        let mut spans = Vec::with_capacity(shown.len() * 2);
        let (mut start, mut written) = (0, 0);
        for &index in shown {
            start += MARGIN;
            let (cell, width) = (cell(index), widths[index]);
            let begin = match self.columns[index].alignment {
                HorizontalAlignment::Right => (start + width).saturating_sub(cell.width()),
                _ => start,
            };
            spans.push(Span::raw(" ".repeat(begin.saturating_sub(written))));
            written = written.max(begin) + cell.width();
            let style = cell.style;
            spans.extend((cell.spans.into_iter()).map(|span| Span {
                style: style.patch(span.style),
                ..span
            }));
            start += width;
        }
        Line::from(spans)
    }

    /// The columns that there is room for; the most important one always.
    fn fitting(&self, widths: &[usize], width: usize) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let needed = |shown: &[usize]| -> usize {
            shown.iter().map(|&index| widths[index] + MARGIN).sum() // each with a gap before it
        };
        while shown.len() > 1 && needed(&shown) > width {
            let least = (0..shown.len()).min_by_key(|&place| self.columns[shown[place]].rank);
            shown.remove(least.unwrap_or_default());
        }
        shown
    }

    fn heading(&self, index: usize, look: Look) -> Line<'static> {
        let Column {
            title, alignment, ..
        } = self.columns[index];
        match self.sorted {
            Some((sorted, descending)) if sorted == index => {
                let mark = Span::styled(look.order(descending), look.accent());
                let title = Span::styled(title, look.strong());
                // The mark goes into the gap beside the column.
                Line::from(match alignment {
                    HorizontalAlignment::Right => vec![mark, title],
                    _ => vec![title, mark],
                })
            }
            _ => Line::styled(title, look.faint()),
        }
    }
}
