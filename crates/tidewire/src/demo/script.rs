//! The demo's file of SQL, cut into statements that are printed with the comments above them.

use tidewire_sql::Parsed;
use tidewire_types::Result;

/// Each statement and the text to print for it: from the end of the one before, comments included, without semicolon.
pub fn statements(script: &str, broker: &str) -> Result<Vec<(String, Parsed)>> {
    let script = script.replace(":'broker'", &format!("'{}'", broker.replace('\'', "''")));
    let characters: Vec<char> = script.chars().collect();
    let mut end_before = 0;
    let mut statements = vec![];
    for parsed in tidewire_sql::parse(&script)? {
        let end = parsed.offset + parsed.text.chars().count();
        let text: String = characters.get(end_before..end).unwrap_or_default().iter().collect();
        let text = text.trim_start_matches(|c: char| c == ';' || c.is_whitespace()).to_owned();
        end_before = end;
        statements.push((text, parsed));
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_keep_the_comments_above_them() {
        let statements = statements("-- one\nSELECT :'broker';\n\n-- two\nSELECT 2;", "h:1").unwrap();
        let texts: Vec<&str> = statements.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["-- one\nSELECT 'h:1'", "-- two\nSELECT 2"]);
        assert_eq!(statements[1].1.text, "SELECT 2");
    }

    #[test]
    fn the_demos_file_parses() {
        let statements = statements(crate::demo::SCRIPT, "127.0.0.1:9092").unwrap();
        assert_eq!(statements.len(), 9);
        assert!(statements.iter().all(|(text, _)| !text.contains(":'broker'")));
    }
}
