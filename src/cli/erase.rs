//! `stagecast erase`: asks for a customer to be forgotten.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::event::native::MAX_CUSTOMER_ID_BYTES;
use crate::kafka::sender::{Outgoing, Sender};
use crate::setup;
use crate::time::{Ts, format_rfc3339, wall_now};

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The customer's id
    #[arg(value_name = "CUSTOMER", value_parser = customer_id)]
    pub customer: String,

    /// The instant of the erasure [default: now]. Where time is what the events say, give one of theirs: an instant
    /// after all of them waits until they get there, or takes the clock along
    #[arg(long, value_name = "TS", value_parser = instant)]
    pub at: Option<Ts>,
}

fn customer_id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_CUSTOMER_ID_BYTES => Ok(text.to_owned()),
        _ => Err(format!("a customer id has 1 to {MAX_CUSTOMER_ID_BYTES} bytes")),
    }
}

/// Writes a `customer_deleted` event to the profile topic.
pub fn run(args: &Args, config: &Config) -> Result<()> {
    let profile = setup::source(config, Source::Profile);
    if !profile.enabled || !setup::decoder(profile).is_plain() {
        let what = "erasing a customer needs a profile topic that is read in the native format";
        return Err(Error::user(what).hint(
            "set source.profile.enabled = true with format = \"native\", no fields and no types, and restart `stagecast run`",
        ));
    }
    let now = wall_now();
    let sender = Sender::new(&setup::clients(config))?;
    sender.send(&Outgoing {
        topic: &profile.topic,
        partition: None,
        key: Some(args.customer.as_bytes()),
        value: Some(event(&args.customer, args.at.unwrap_or(now), now).as_bytes()),
        headers: &[],
        timestamp: now,
    })?;
    sender.finish()?;
    super::print(&format!("asked for the erasure of {} on {}\n", args.customer, profile.topic))
}

fn event(customer: &str, at: Ts, now: Ts) -> String {
    let ts = format_rfc3339(at);
    serde_json::json!({
        "customer_id": customer,
        "type": "customer_deleted",
        "ts": ts.as_str(),
        "event_id": format!("erase-{now}"),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_event_is_one_that_the_native_format_knows() {
        let json: serde_json::Value = serde_json::from_str(&event("c \"1\"", 0, 7)).unwrap();
        assert_eq!(json["customer_id"], "c \"1\"");
        assert_eq!(
            (&json["type"], &json["ts"]),
            (&"customer_deleted".into(), &"1970-01-01T00:00:00.000Z".into())
        );
    }

    #[test]
    fn without_a_native_profile_topic_it_says_what_to_do() {
        let args = Args { customer: "c".into(), at: None };
        for set in ["source.profile.enabled=false", "source.profile={enabled=true, format='segment'}"] {
            let layers = Layers { set: vec![set.into()], ..Layers::default() };
            let error = run(&args, &Config::from_layers(&layers).unwrap()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.hint.unwrap().contains("source.profile.enabled = true"));
        }
    }
}
