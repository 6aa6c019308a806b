//! The Kafka shell: everything that names rdkafka, and nothing that decides about customers.
//!
//! [`broker`] says what a mock needs done differently, [`clients`] how each client is configured, `reach` whether the cluster lets us in, [`topics`] what the topics must look like (with [`admin`]
//! asking and telling the cluster) and who must be allowed what ([`acls`]), [`transactions`] how a transaction is filled, drained and ended and what
//! an error in it asks for ([`answer`]), [`partitioner`] which partition a key belongs to (`keys` looks whether
//! they stand there; `watermarks` where partitions begin and end), and [`dead_letter`] how an unusable record is passed on ([`letters`]: how it comes back; [`bounded`] reads a topic to its end). [`ending`] knows when `--until-end` is reached, [`checkpoint`] keeps copies of the state in files, and [`standby`] of what others own in memory.

pub mod broker;
pub mod clients;
mod reach;
#[cfg(feature = "tls")]
mod certificate;
pub mod topics;
pub mod admin;
pub mod acls;
pub mod transactions;
pub mod answer;
pub mod faults;
pub mod partitioner;
mod keys;
pub mod watermarks;
pub mod dead_letter;
pub mod headers;
pub mod marker;
mod spans;
pub mod task;
pub mod members;
mod news;
pub mod checkpoint;
pub mod standby;
pub mod restore;
pub mod ending;
pub mod worker;
pub mod service;
pub mod sender;
pub mod feed;
pub(crate) mod bounded;
pub mod letters;
pub mod embedded;
pub mod history;
