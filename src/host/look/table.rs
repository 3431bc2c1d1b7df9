//! Text tables: columns are as wide as their cells; the first one is cut to fit the terminal. Pure.

/// A column and its heading; numbers are right-aligned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
    /// A number, omitted if the terminal is too narrow for all columns.
    Spare(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) | Self::Spare(heading) => heading,
        }
    }
}

const GAP: usize = 2;
/// The minimum width of the first column, however narrow the terminal is.
const LEAST: usize = 12;

/// The lines of a table, for a terminal of `width` columns.
pub(super) fn lines(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let of_column = |index: usize| rows.iter().map(move |row| row[index].as_str());
    let mut shown: Vec<(Column, usize, Vec<&str>)> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells: Vec<&str> = std::iter::once(column.heading())
                .chain(of_column(index))
                .collect();
            let width = cells.iter().map(|cell| length(cell)).max().unwrap_or(0);
            (*column, width, cells)
        })
        .collect();
    if let Some(width) = width {
        fit(&mut shown, width);
    }
    let mut text = String::new();
    for row in 0..=rows.len() {
        let line: Vec<String> = shown
            .iter()
            .map(|(column, width, cells)| {
                let cell = cut(cells[row], *width);
                match column {
                    Column::Text(_) => format!("{cell:<width$}"),
                    Column::Number(_) | Column::Spare(_) => format!("{cell:>width$}"),
                }
            })
            .collect();
        text += line.join(&" ".repeat(GAP)).trim_end();
        text.push('\n');
    }
    text
}

/// Makes the table fit: omits the spare columns if cutting the first column would not suffice.
fn fit(shown: &mut Vec<(Column, usize, Vec<&str>)>, width: usize) {
    let others = |shown: &[(Column, usize, Vec<&str>)]| -> usize {
        shown.iter().skip(1).map(|(_, width, _)| width + GAP).sum()
    };
    let first = shown.first().map_or(0, |(_, width, _)| *width);
    if others(shown) + first.min(LEAST) > width {
        shown.retain(|(column, ..)| !matches!(column, Column::Spare(_)));
    }
    let room = width.saturating_sub(others(shown)).max(LEAST);
    if let Some((_, first, _)) = shown.first_mut() {
        *first = room.min(*first);
    }
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

fn cut(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::Text("NAME"),
        Column::Number("CALLS"),
        Column::Text("WHAT"),
    ];

    fn rows() -> Vec<Vec<String>> {
        [["a", "1", "x"], ["a-very-long-name", "1234567", "y"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "NAME                CALLS  WHAT\n\
                        a                       1  x\n\
                        a-very-long-name  1234567  y\n";
        assert_eq!(lines(&COLUMNS, &rows(), None), expected);
        assert_eq!(lines(&COLUMNS, &rows(), Some(80)), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_first_column_and_then_leaves_columns_out() {
        let text = lines(&COLUMNS, &rows(), Some(28));
        assert!(text.contains("a-very-long-…  1234567  y\n"), "{text}");
        assert!(text.lines().all(|line| length(line) <= 28), "{text}");
        let [name, _, what] = COLUMNS;
        let columns = [name, Column::Spare("CALLS"), what];
        let expected = "NAME              WHAT\n\
                        a                 x\n\
                        a-very-long-name  y\n";
        assert_eq!(lines(&columns, &rows(), Some(22)), expected);
    }
}
