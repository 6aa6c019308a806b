//! A value that a transaction changes as a whole, and that is what it was before when the transaction is taken back.

/// Keeps a copy from the first change of a transaction on: for values that are small, or seldom changed.
#[derive(Debug, Default)]
pub struct Revertible<T> {
    value: T,
    before: Option<Box<T>>,
}

impl<T: Clone> Revertible<T> {
    pub fn new(value: T) -> Self {
        Revertible { value, before: None }
    }

    pub fn get(&self) -> &T {
        &self.value
    }

    pub fn change(&mut self) -> &mut T {
        self.before.get_or_insert_with(|| Box::new(self.value.clone()));
        &mut self.value
    }

    /// Whether the transaction at hand has changed it.
    pub fn has_changed(&self) -> bool {
        self.before.is_some()
    }

    pub fn commit(&mut self) {
        self.before = None;
    }

    pub fn rollback(&mut self) {
        if let Some(before) = self.before.take() {
            self.value = *before;
        }
    }
}
