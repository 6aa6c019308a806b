//! Where in a record something is wrong: the JSON pointer (RFC 6901) of what stands at a place that a parser
//! complains about.
//!
//! Reads bytes that are no valid JSON as far as they tell; bounded in what it says, as the text is anybody's.

/// Of a pointer; deeper parts are left out.
const MAX_POINTER_BYTES: usize = 256;
const MAX_DEPTH: usize = 32;

/// A container that is open.
enum Open {
    /// Of an object: the key whose value it is at, with its quotes.
    Object(Option<(usize, usize)>),
    List(usize),
}

/// The pointer of the value or key at a line and column, which count from 1; empty for the whole.
pub(super) fn pointer_at(json: &[u8], line: usize, column: usize) -> String {
    let lines_before = line.saturating_sub(1);
    let line_starts =
        json.split_inclusive(|b| *b == b'\n').take(lines_before).map(<[u8]>::len).sum::<usize>();
    let end = (line_starts + column).min(json.len());
    let open = open_at(&json[..end]);
    let mut pointer = String::new();
    for container in &open {
        match container {
            Open::Object(Some((from, to))) => {
                let Ok(key) = serde_json::from_slice::<String>(&json[*from..*to]) else { break };
                if pointer.len() + key.len() > MAX_POINTER_BYTES {
                    break;
                }
                pointer.push('/');
                pointer.push_str(&pointer_token(&key));
            }
            Open::List(index) => pointer.push_str(&format!("/{index}")),
            Open::Object(None) => break,
        }
    }
    pointer
}

/// A field's name as it stands in a JSON pointer.
pub(super) fn pointer_token(name: &str) -> std::borrow::Cow<'_, str> {
    if name.contains(['~', '/']) { name.replace('~', "~0").replace('/', "~1").into() } else { name.into() }
}

/// What is open at the end of this text. Its last byte may be what is wrong, so it closes and separates nothing.
fn open_at(text: &[u8]) -> Vec<Open> {
    let (mut open, mut deeper) = (Vec::new(), 0usize);
    let mut at = 0;
    while at < text.len() {
        let last = at + 1 == text.len();
        match text[at] {
            b'"' => {
                let end = string_end(text, at);
                if let (0, Some(Open::Object(key @ None))) = (deeper, open.last_mut())
                    && let Some(end) = end
                {
                    *key = Some((at, end));
                }
                at = end.unwrap_or(text.len());
                continue;
            }
            b'{' | b'[' if open.len() == MAX_DEPTH => deeper += 1,
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::List(0)),
            _ if last => {}
            b'}' | b']' if deeper > 0 => deeper -= 1,
            b'}' | b']' => drop(open.pop()),
            b',' if deeper == 0 => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::List(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    open
}

/// Behind the closing quote of the string that begins at `start`, if it is closed.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the place at which serde_json complains.
    fn told(json: &str) -> String {
        let error = serde_json::from_str::<serde_json::Value>(json).unwrap_err();
        pointer_at(json.as_bytes(), error.line(), error.column())
    }

    #[test]
    fn the_pointer_is_that_of_what_is_wrong() {
        for (json, pointer) in [
            (r#"{"a":1,"amount":1e999,"b":2}"#, "/amount"),
            (r#"{"a":1,"amount":1e999}"#, "/amount"),
            (r#"{"a":{"b":[1,{"c":NaN}]}}"#, "/a/b/1/c"),
            (r#"{"a":[],"b":"\ud800"}"#, "/b"),
            (r#"{"a":"x,}]{","b":tru}"#, "/b"),
            (r#"{"a\"/~":nul}"#, "/a\"~1~0"),
            ("{\n \"a\": 1,\n \"b\": [2,\n 3 4]}", "/b/1"),
            (r#"{"a":1,}"#, ""),
            (r#"{"a":{"b":1},"c":{"d":1,}}"#, "/c"),
            (r#"{"a":{"b":1"#, "/a/b"),
            (r#"{"a":{"b"#, "/a"),
            ("nul", ""),
            ("[1,2,x]", "/2"),
        ] {
            assert_eq!(told(json), pointer, "{json}");
        }
    }

    #[test]
    fn hostile_text_is_told_about_within_bounds() {
        let deep = format!("{}x", "[".repeat(100_000));
        assert_eq!(pointer_at(deep.as_bytes(), 1, deep.len()), "/0".repeat(MAX_DEPTH));
        let long = format!(r#"{{"{}":x}}"#, "k".repeat(1_000));
        assert_eq!(pointer_at(long.as_bytes(), 1, long.len() - 1), "");
        for (line, column) in [(0, 0), (1, 0), (9, 9), (usize::MAX, 3)] {
            pointer_at(br#"{"a\":1"#, line, column);
        }
        assert_eq!(pointer_at(b"", 1, 0), "");
    }
}
