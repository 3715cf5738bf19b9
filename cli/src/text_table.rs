//! Rows of text as aligned columns. Knows nothing of what they say.

/// Which side a column's values are flush with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lines of equal layout: heading, rule, rows. Line breaks and control characters in values become spaces.
pub fn layout(heading: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter().map(|v| v.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()).collect()
        })
        .collect();
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = heading
        .iter()
        .enumerate()
        .map(|(i, (name, _))| {
            rows.iter().filter_map(|row| row.get(i)).map(|v| width(v)).chain([width(name)]).max().unwrap_or(0)
        })
        .collect();
    let line = |values: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, value) in values.enumerate().take(widths.len()) {
            let pad = " ".repeat(widths[i].saturating_sub(width(value)));
            text.push_str(if i == 0 { "" } else { "  " });
            match heading[i].1 {
                Align::Left => text.extend([value, &pad]),
                Align::Right => text.extend([pad.as_str(), value]),
            }
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heading.iter().map(|(name, _)| *name));
    text.push_str(&line(
        &mut widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str),
    ));
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// The same as a table of Markdown, for a document.
pub fn markdown(heading: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let cell = |value: &str| -> String {
        value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
    };
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(heading.iter().map(|(name, _)| cell(name)).collect());
    let rule = |align: &Align| if *align == Align::Right { "---:" } else { "---" }.to_owned();
    text.push_str(&line(heading.iter().map(|(_, align)| rule(align)).collect()));
    for row in rows {
        text.push_str(&line(row.iter().take(heading.len()).map(|value| cell(value)).collect()));
    }
    text
}

/// At most `most` characters, the last an ellipsis if some are left out.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
