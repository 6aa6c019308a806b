//! Where those at rest lie: strings of bytes, close together in pages.
//!
//! An allocation for each would be rounded up by an eighth, and leave a hole that fits nobody once its customer has
//! grown. So a page has no holes: what stands behind a string that goes moves up. A string goes into the fullest page
//! that has room for it. Where a string stands in its page is written at the page's end; its [`Bed`] is the number of
//! the page and of that entry, so that moving up changes nobody's. Knows nothing of what the strings mean.

/// Little, so that moving up costs little. About eight customers lie in one.
const PAGE: usize = 4096;
/// Pages to a drawer, which is allocated at once and never moves.
const DRAWER: usize = 16;
/// Longer strings have an allocation of their own: two of them would hardly share a page.
const LONGEST: usize = PAGE / 2;
/// Of a string in its page's directory: where it begins and how long it is, two bytes each. An entry without length
/// is free.
const ENTRY: usize = 4;
const ENTRIES_MOST: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = 6;
/// Pages are told apart by room to this many bytes.
const STEP: usize = PAGE / SHELVES;
const SHELVES: usize = 128;
/// Pages with no room to this many are not worth looking at.
const NO_SHELF: usize = 0;
/// Set in the number of a bed of a string with its own allocation.
const ALONE: u32 = 1 << 28;

/// The number of a place where a string stands; below [`Bed::END`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bed(u32);

impl Bed {
    pub const END: u32 = ALONE << 1;
    const PAGES_MOST: usize = (ALONE >> ENTRY_BITS) as usize;

    pub fn number(self) -> u32 {
        self.0
    }

    pub fn of_number(number: u32) -> Bed {
        debug_assert!(number < Self::END);
        Bed(number)
    }

    fn new(page: usize, entry: usize) -> Bed {
        Bed((page as u32) << ENTRY_BITS | entry as u32)
    }

    fn page(self) -> usize {
        (self.0 >> ENTRY_BITS) as usize
    }

    fn entry(self) -> usize {
        self.0 as usize & (ENTRIES_MOST - 1)
    }
}

/// What is known of a page without looking into it.
#[derive(Clone, Copy, Debug)]
struct Page {
    /// Bytes of strings, from the page's beginning on.
    used: u16,
    entries: u8,
    /// The place of the page on its shelf.
    at: u32,
}

impl Page {
    const EMPTY: Page = Page { used: 0, entries: 0, at: 0 };

    /// The longest string that there is room for.
    fn room(self) -> usize {
        if usize::from(self.entries) == ENTRIES_MOST {
            return 0;
        }
        (PAGE - ENTRY - ENTRY * usize::from(self.entries)).saturating_sub(usize::from(self.used))
    }

    fn shelf(self) -> usize {
        (self.room() / STEP).min(SHELVES - 1)
    }
}

/// All strings of those at rest of one partition.
#[derive(Debug)]
pub struct Beds {
    drawers: Vec<Box<[u8]>>,
    pages: Vec<Page>,
    /// The numbers of the pages with so many steps of room, and which shelves have any.
    shelves: Vec<Vec<u32>>,
    filled: u128,
    /// Bytes of strings in pages.
    used: usize,
    alone: Vec<Box<[u8]>>,
    free_alone: Vec<u32>,
}

impl Default for Beds {
    fn default() -> Self {
        Beds {
            drawers: Vec::new(),
            pages: Vec::new(),
            shelves: vec![Vec::new(); SHELVES],
            filled: 0,
            used: 0,
            alone: Vec::new(),
            free_alone: Vec::new(),
        }
    }
}

impl Beds {
    /// Keeps a string, which is not empty. `None` once there are as many pages as can be numbered.
    pub fn put(&mut self, string: &[u8]) -> Option<Bed> {
        debug_assert!(!string.is_empty());
        if string.len() > LONGEST {
            return Some(self.put_alone(string));
        }
        let page = self.page_with_room(string.len())?;
        self.take_off(page);
        let Page { used, entries, .. } = self.pages[page];
        let bytes = page_mut(&mut self.drawers, page);
        let entry = (0..usize::from(entries)).find(|entry| entry_of(bytes, *entry).1 == 0);
        let entry = entry.unwrap_or(usize::from(entries));
        let start = usize::from(used);
        bytes[start..start + string.len()].copy_from_slice(string);
        set_entry(bytes, entry, (start, string.len()));
        self.used += string.len();
        self.pages[page].used += string.len() as u16;
        self.pages[page].entries = entries.max(entry as u8 + 1);
        self.put_on(page);
        Some(Bed::new(page, entry))
    }

    fn put_alone(&mut self, string: &[u8]) -> Bed {
        let number = self.free_alone.pop().unwrap_or_else(|| {
            self.alone.push(Box::default());
            self.alone.len() as u32 - 1
        });
        self.alone[number as usize] = string.into();
        Bed(ALONE | number)
    }

    /// The fullest page with room for so many bytes, as far as shelves tell them apart.
    fn page_with_room(&mut self, len: usize) -> Option<usize> {
        let found = self.filled >> len.div_ceil(STEP);
        if found == 0 {
            return self.add_drawer();
        }
        let shelf = len.div_ceil(STEP) + found.trailing_zeros() as usize;
        self.shelves[shelf].last().map(|page| *page as usize)
    }

    /// Returns the first page of a new drawer.
    fn add_drawer(&mut self) -> Option<usize> {
        let first = self.pages.len();
        if first + DRAWER > Bed::PAGES_MOST {
            return None;
        }
        self.drawers.push(vec![0; DRAWER * PAGE].into());
        self.pages.resize(first + DRAWER, Page::EMPTY);
        // The last of a shelf is the first to be filled.
        (first..self.pages.len()).rev().for_each(|page| self.put_on(page));
        Some(first)
    }

    fn put_on(&mut self, page: usize) {
        let shelf = self.pages[page].shelf();
        if shelf != NO_SHELF {
            self.pages[page].at = self.shelves[shelf].len() as u32;
            self.shelves[shelf].push(page as u32);
            self.filled |= 1 << shelf;
        }
    }

    fn take_off(&mut self, page: usize) {
        let shelf = self.pages[page].shelf();
        if shelf == NO_SHELF {
            return;
        }
        let at = self.pages[page].at as usize;
        self.shelves[shelf].swap_remove(at);
        if let Some(moved) = self.shelves[shelf].get(at) {
            self.pages[*moved as usize].at = at as u32;
        }
        if self.shelves[shelf].is_empty() {
            self.filled &= !(1 << shelf);
        }
    }

    /// The string, which is there.
    pub fn get(&self, bed: Bed) -> &[u8] {
        if bed.0 & ALONE != 0 {
            return &self.alone[(bed.0 & !ALONE) as usize];
        }
        let bytes = page_of(&self.drawers, bed.page());
        let (start, len) = entry_of(bytes, bed.entry());
        &bytes[start..start + len]
    }

    /// Forgets a string, which is there.
    pub fn remove(&mut self, bed: Bed) {
        if bed.0 & ALONE != 0 {
            self.alone[(bed.0 & !ALONE) as usize] = Box::default();
            self.free_alone.push(bed.0 & !ALONE);
            return;
        }
        let page = bed.page();
        self.take_off(page);
        let Page { used, mut entries, .. } = self.pages[page];
        let bytes = page_mut(&mut self.drawers, page);
        let (start, len) = entry_of(bytes, bed.entry());
        bytes.copy_within(start + len..usize::from(used), start);
        set_entry(bytes, bed.entry(), (0, 0));
        for entry in 0..usize::from(entries) {
            let (other, other_len) = entry_of(bytes, entry);
            if other > start {
                set_entry(bytes, entry, (other - len, other_len));
            }
        }
        while entries > 0 && entry_of(bytes, usize::from(entries) - 1).1 == 0 {
            entries -= 1;
        }
        self.used -= len;
        self.pages[page].used -= len as u16;
        self.pages[page].entries = entries;
        self.put_on(page);
    }

    /// Gives the last drawer back if a quarter of all room is free, and more than two drawers. One at a time, so that
    /// what is wanted next is still there. Calls `moved` with every string that stood in it, its bed until
    /// now and its new one, which may be one that another string had.
    pub fn give_back(&mut self, mut moved: impl FnMut(&[u8], Bed, Bed)) {
        let room = self.pages.len() * PAGE;
        if room - self.used < (room / 4).max(2 * DRAWER * PAGE) {
            return;
        }
        let first = self.pages.len() - DRAWER;
        (first..self.pages.len()).for_each(|page| self.take_off(page));
        let pages = self.pages.split_off(first);
        let Some(drawer) = self.drawers.pop() else { return };
        for ((bytes, page), number) in drawer.chunks_exact(PAGE).zip(pages).zip(first..) {
            self.used -= usize::from(page.used);
            for entry in 0..usize::from(page.entries) {
                let (start, len) = entry_of(bytes, entry);
                let string = &bytes[start..start + len];
                // There are numbers for as many pages as there were.
                if let Some(bed) = (len > 0).then(|| self.put(string)).flatten() {
                    moved(string, Bed::new(number, entry), bed);
                }
            }
        }
    }

    /// Bytes of all pages and strings, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        let alone: usize = self.alone.iter().map(|string| super::store::allocated(string.len())).sum();
        let shelves: usize = self.shelves.iter().map(|shelf| shelf.capacity() * 4).sum();
        let lists = (self.drawers.capacity() + self.alone.capacity()) * size_of::<Box<[u8]>>();
        let pages = self.pages.capacity() * size_of::<Page>();
        self.pages.len() * PAGE + alone + lists + pages + shelves + self.free_alone.capacity() * 4
    }
}

fn page_of(drawers: &[Box<[u8]>], page: usize) -> &[u8] {
    &drawers[page / DRAWER][page % DRAWER * PAGE..][..PAGE]
}

fn page_mut(drawers: &mut [Box<[u8]>], page: usize) -> &mut [u8] {
    &mut drawers[page / DRAWER][page % DRAWER * PAGE..][..PAGE]
}

/// Where a string begins and how long it is. The directory stands at the page's end and grows towards its beginning.
fn entry_of(page: &[u8], entry: usize) -> (usize, usize) {
    let at = PAGE - ENTRY * (entry + 1);
    let half = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    (half(at), half(at + 2))
}

fn set_entry(page: &mut [u8], entry: usize, (start, len): (usize, usize)) {
    let at = PAGE - ENTRY * (entry + 1);
    page[at..at + 2].copy_from_slice(&(start as u16).to_le_bytes());
    page[at + 2..at + 4].copy_from_slice(&(len as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The bytes of a string, by its number, so that no two are alike.
    fn string(number: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| (number * 31 + i * 7) as u8).collect()
    }

    proptest! {
        #[test]
        fn every_string_is_what_was_put_there(
            acts in prop::collection::vec((0u8..10, 0usize..1000, prop_oneof![1usize..90, 300usize..900, 1usize..5000]), 0..600)
        ) {
            let (mut beds, mut known) = (Beds::default(), BTreeMap::new());
            for (number, (act, pick, len)) in acts.into_iter().enumerate() {
                if act < 6 {
                    let string = string(number, len);
                    let bed = beds.put(&string).unwrap();
                    prop_assert!(known.insert(bed.number(), string).is_none(), "a bed for two");
                } else if act < 9 && !known.is_empty() {
                    let bed = *known.keys().nth(pick % known.len()).unwrap();
                    beds.remove(Bed::of_number(bed));
                    known.remove(&bed);
                } else {
                    let (first, mut back) = (beds.pages.len().saturating_sub(DRAWER), BTreeMap::new());
                    let drawers = beds.drawers.len();
                    beds.give_back(|string, from, to| {
                        assert_eq!(known[&from.number()], string);
                        back.insert(to.number(), string.to_vec());
                    });
                    if beds.drawers.len() < drawers || !back.is_empty() {
                        known.retain(|bed, _| bed & ALONE != 0 || Bed(*bed).page() < first);
                    }
                    known.append(&mut back);
                }
                let used: usize = known.values().map(Vec::len).filter(|len| *len <= LONGEST).sum();
                prop_assert_eq!(beds.used, used);
            }
            for (bed, string) in &known {
                prop_assert_eq!(beds.get(Bed::of_number(*bed)), &string[..]);
            }
        }
    }

    #[test]
    fn little_room_is_left_as_strings_come_and_go_and_drawers_go_back() {
        let (mut beds, mut there) = (Beds::default(), Vec::new());
        let len = |i: usize| 250 + i * 7_919 % 400;
        for i in 0..20_000 {
            there.push(beds.put(&string(i, len(i))).unwrap());
        }
        for i in 0..60_000 {
            let place = i * 104_729 % there.len();
            beds.remove(there[place]);
            // They grow all the while.
            there[place] = beds.put(&string(i, len(i) + i / 150)).unwrap();
        }
        let share = beds.used as f64 / beds.bytes() as f64;
        assert!(share > 0.93, "{share} of all room is used");
        for bed in there.drain(10_000..) {
            beds.remove(bed);
        }
        let drawers = beds.drawers.len();
        for _ in 0..drawers {
            beds.give_back(|_, _, _| {});
        }
        assert!(
            beds.drawers.len() < drawers * 7 / 10,
            "{} of {drawers} drawers are left",
            beds.drawers.len()
        );
    }
}
