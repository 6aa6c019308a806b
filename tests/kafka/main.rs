//! The Kafka shell against real brokers: Apache Kafka 4.1, which the tests fetch (Maven) and start (Java)
//! themselves. Without Java 17 and Maven they fail and say what to install; with
//! `STAGECAST_TEST_KAFKA_LIBS=DIR` the jars come from a folder and Maven is not needed.
//!
//! [`broker`] starts and mistreats brokers, [`records`] writes and reads topics, [`process`] runs programs,
//! [`world`] has an application with its topics, and [`checker`] says all that is wrong in it.

mod broker;
mod proxy;
mod records;
mod process;
mod world;
mod checker;

mod errors;
mod members;
mod outages;
mod standby;
mod topics;
mod transactions;
mod service;
mod checkpoints;
mod changes;
mod kpis;
mod rights;
mod identity;
mod formats;
mod training;
mod security;
#[cfg(feature = "tls")]
mod tls;
mod guards;
mod faults;
