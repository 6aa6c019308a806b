//! The nouns of the input: what an event is once it has been read, and why a record can be unusable.
