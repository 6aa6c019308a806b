//! What a mock broker needs done differently from a real one: all of it, and only here and in
//! [`super::clients`], which asks for the kind to choose a client's properties.
//!
//! librdkafka's mock takes every transactional call and implements almost none of it: transactions are not
//! isolated, and the positions that they carry are forgotten. So positions are committed once more behind the
//! transaction, and exactly-once is not claimed. It knows no admin requests either: its topics are made
//! through [`super::embedded`] and are what they are.

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;

use super::clients::ClientSettings;
use super::members::Member;
use super::topics::{self, Layout};
use crate::error::Result;

/// What answers behind `bootstrap.servers`; it changes settings, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokerKind {
    #[default]
    Real,
    /// librdkafka's mock: no static membership, a slow classic protocol, fetches that sleep their full wait.
    Embedded,
}

impl BrokerKind {
    /// Where a consumer of the inputs stands whose offset is gone. The mock drops the oldest records of a
    /// partition that has grown too large: that must be an error, never a silent start elsewhere.
    pub fn offset_reset(self) -> &'static str {
        match self {
            BrokerKind::Real => "earliest",
            BrokerKind::Embedded => "error",
        }
    }

    /// To be called once a transaction is committed, with the positions it carried.
    pub fn after_commit(self, member: &Member, positions: &TopicPartitionList) -> KafkaResult<()> {
        match self {
            BrokerKind::Real => Ok(()),
            BrokerKind::Embedded => member.commit(positions, CommitMode::Sync),
        }
    }

    /// Checks the topics and returns how many partitions inputs and state share.
    pub fn require_topics(self, clients: &ClientSettings, layout: &Layout) -> Result<i32> {
        match self {
            BrokerKind::Real => topics::require(clients, layout),
            BrokerKind::Embedded => Ok(layout.partitions),
        }
    }
}
