//! The trace that an event belongs to, as W3C Trace Context writes it: carried from a record to the records that it
//! causes, and otherwise never looked at. A trace that is not well-formed is none; it never makes a record unusable.

use super::decoder::Headers;

/// The headers, as the records of the input have them and those of the outputs.
pub const PARENT: &str = "traceparent";
pub const STATE: &str = "tracestate";

/// Of version 00: version, trace, parent and flags, with dashes between them.
const PARENT_BYTES: usize = 55;
/// What anybody has to pass on.
const STATE_BYTES_MOST: usize = 512;

/// Where an event stands in somebody's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    parent: Box<str>,
    state: Option<Box<str>>,
}

impl Trace {
    /// The trace that the headers name.
    pub fn of(headers: &dyn Headers) -> Option<Trace> {
        Trace::new(headers.text(PARENT)?, headers.text(STATE))
    }

    pub fn new(parent: &str, state: Option<&str>) -> Option<Trace> {
        let state = state.filter(|state| {
            !state.is_empty()
                && state.len() <= STATE_BYTES_MOST
                && state.bytes().all(|b| (0x20..0x7f).contains(&b))
        });
        is_parent(parent).then(|| Trace { parent: parent.into(), state: state.map(Into::into) })
    }

    pub fn parent(&self) -> &str {
        &self.parent
    }

    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Later versions may be longer; they begin like the first.
fn is_parent(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let mut next = || parts.next().unwrap_or_default();
    let (version, trace, parent, flags) = (next(), next(), next(), next());
    let is_long = text.len() > PARENT_BYTES;
    hex(version, 2)
        && version != "ff"
        && (version != "00" || !is_long)
        && text.len() <= STATE_BYTES_MOST
        && hex(trace, 32)
        && some(trace)
        && hex(parent, 16)
        && some(parent)
        && hex(flags, 2)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_trace_is_read_and_any_other_is_none() {
        let later = format!("cc{}-what-comes-later", &PARENT[2..]);
        for good in [PARENT, &later] {
            assert_eq!(Trace::new(good, None).map(|t| t.parent().to_owned()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::new(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_state_that_nobody_has_to_pass_on_is_left_out() {
        let state = |text: &str| Trace::new(PARENT, Some(text)).unwrap().state().map(str::to_owned);
        assert_eq!(state("vendor=1,other=2").as_deref(), Some("vendor=1,other=2"));
        for bad in ["", "a=\u{1}", &"x".repeat(STATE_BYTES_MOST + 1)] {
            assert_eq!(state(bad), None);
        }
    }
}
