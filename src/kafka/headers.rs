//! A record's headers, looked at only when a format asks for one.

use std::fmt;

use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use crate::event::decoder::Headers;

/// The headers of a message that librdkafka still owns.
pub struct MessageHeaders<'m, 'c>(pub &'m BorrowedMessage<'c>);

impl Headers for MessageHeaders<'_, '_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let headers = self.0.headers()?;
        let found = headers.iter().find(|header| header.key.eq_ignore_ascii_case(name))?;
        found.value
    }

    fn all(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let headers = self.0.headers().into_iter().flat_map(|headers| headers.iter());
        headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    }
}

impl fmt::Debug for MessageHeaders<'_, '_> {
    /// Names only: a value may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.headers().into_iter().flat_map(|headers| headers.iter());
        f.debug_list().entries(names.map(|header| header.key)).finish()
    }
}
