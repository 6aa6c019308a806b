//! Which channel a customer comes through most: the few that its events name most often, counted.
//!
//! Four are kept (Metwally's Space-Saving: a fifth takes the place and the count of the rarest), so that whatever
//! makes up more than a fifth of all events is among them. Packed: the length of the name, the name, four bytes
//! of count; in the order in which they came. Owns the bytes and what the trait is called.

use thin_vec::ThinVec;

use super::facts::{TraitValue, Traits};
use super::plan::Plan;
use super::store::Customer;

/// The trait that says it, unless a profile event set it.
pub const MAIN_CHANNEL: &str = "main_channel";

/// Channels of one customer.
const KEPT: usize = 4;
/// Longer names are cut.
const NAME_BYTES: usize = 24;
const COUNT_BYTES: usize = 4;

/// One of the channels: where it lies and how often it was.
#[derive(Clone, Copy)]
struct Entry<'a> {
    at: usize,
    name: &'a str,
    count: u32,
}

impl Entry<'_> {
    fn end(&self) -> usize {
        self.at + 1 + self.name.len() + COUNT_BYTES
    }
}

/// Counts an event through this channel.
pub fn count(packed: &mut ThinVec<u8>, name: &str) {
    let name = counted(name);
    if name.is_empty() {
        return;
    }
    let (mut kept, mut rarest, mut found) = (0, None::<(u32, usize, usize)>, None);
    for entry in entries(packed) {
        kept += 1;
        if entry.name == name {
            found = Some((entry.end(), entry.count));
        }
        // Of those as rare the latest goes.
        if rarest.is_none_or(|(count, ..)| entry.count <= count) {
            rarest = Some((entry.count, entry.at, entry.end()));
        }
    }
    match (found, rarest) {
        (Some((end, count)), _) => {
            packed[end - COUNT_BYTES..end].copy_from_slice(&count.saturating_add(1).to_le_bytes());
        }
        (None, Some((count, at, end))) if kept == KEPT => {
            packed.drain(at..end);
            push(packed, name, count.saturating_add(1));
        }
        _ => push(packed, name, 1),
    }
}

/// Takes in the counts of somebody who is the same customer; the most frequent are kept.
pub fn join(packed: &mut ThinVec<u8>, other: &[u8]) {
    let owned = |entry: Entry<'_>| (entry.name.to_owned(), entry.count);
    let mut all: Vec<(String, u32)> = entries(packed).map(owned).collect();
    for (name, count) in entries(other).map(owned) {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => all.push((name, count)),
        }
    }
    while all.len() > KEPT {
        let rarest = all.iter().enumerate().rev().min_by_key(|(_, (_, count))| *count);
        let Some((rarest, _)) = rarest else { break };
        all.remove(rarest);
    }
    packed.clear();
    all.iter().for_each(|(name, count)| push(packed, name, *count));
}

/// As much of a name as counts.
pub fn counted(name: &str) -> &str {
    let end = (0..=name.len().min(NAME_BYTES)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

fn push(packed: &mut ThinVec<u8>, name: &str, count: u32) {
    packed.reserve_exact(1 + name.len() + COUNT_BYTES);
    packed.push(name.len() as u8);
    packed.extend_from_slice(name.as_bytes());
    packed.extend_from_slice(&count.to_le_bytes());
}

/// The most frequent one; of several the one that came first.
pub fn most_frequent(packed: &[u8]) -> Option<&str> {
    let mut most = None::<Entry<'_>>;
    for entry in entries(packed) {
        if most.is_none_or(|most| entry.count > most.count) {
            most = Some(entry);
        }
    }
    most.map(|entry| entry.name)
}

/// Whether bytes are what [`count`] writes.
pub fn is_valid(packed: &[u8]) -> bool {
    let (mut kept, mut end) = (0, 0);
    for entry in entries(packed) {
        kept += 1;
        end = entry.end();
    }
    end == packed.len() && kept <= KEPT
}

/// The channels, up to the first that is none.
fn entries(packed: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (len, rest) = packed.get(at..)?.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len).clamp(1, NAME_BYTES))?;
        let entry = Entry {
            at,
            name: std::str::from_utf8(name).ok().filter(|name| name.len() == usize::from(*len))?,
            count: u32::from_le_bytes(*rest.first_chunk::<COUNT_BYTES>()?),
        };
        at = entry.end();
        Some(entry)
    })
}

/// The customer's traits, the main channel among them where rules ask for it; `room` is for that.
pub fn with_main_channel<'a>(plan: &Plan, customer: &'a Customer, room: &'a mut Traits) -> &'a Traits {
    let own = customer.traits.as_deref();
    let is_set = || own.is_some_and(|traits| traits.contains_key(MAIN_CHANNEL));
    if plan.keeps_channels
        && !is_set()
        && let Some(main) = most_frequent(&customer.channels)
    {
        *room = own.cloned().unwrap_or_default();
        room.insert(MAIN_CHANNEL.into(), TraitValue::Text(main.into()));
        return room;
    }
    own.unwrap_or(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(names: &[&str]) -> ThinVec<u8> {
        let mut packed = ThinVec::new();
        names.iter().for_each(|name| count(&mut packed, name));
        assert!(is_valid(&packed));
        packed
    }

    #[test]
    fn the_most_frequent_is_the_main_one_and_of_equals_the_first() {
        let most = |names: &[&str]| most_frequent(&counted(names)).map(str::to_owned);
        assert_eq!(most(&[]), None);
        assert_eq!(most(&[""]), None);
        assert_eq!(most(&["app", "web"]), Some("app".into()));
        assert_eq!(most(&["app", "web", "web"]), Some("web".into()));
        assert_eq!(most(&["web", "app", "web", "app"]), Some("web".into()));
    }

    #[test]
    fn a_fifth_that_comes_often_enough_gets_a_place() {
        let mut names = vec!["a", "a", "b", "b", "c", "c", "d", "d"];
        names.extend(["e"; 12]);
        assert_eq!(most_frequent(&counted(&names)), Some("e"));
        assert_eq!(entries(&counted(&names)).count(), KEPT);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ü".repeat(30);
        assert_eq!(most_frequent(&counted(&[&long])), Some("ü".repeat(12).as_str()));
    }

    #[test]
    fn damaged_bytes_are_told() {
        let good = counted(&["app", "web"]);
        for cut in 1..good.len() {
            assert_eq!(is_valid(&good[..cut]), cut == 8, "{cut}");
        }
        assert!(!is_valid(&[0; 5]) && !is_valid(&[1, 0xff, 0, 0, 0, 0]));
        assert!(!is_valid(&[1, b'a', 0, 0, 0, 0].repeat(KEPT + 1)));
    }
}
