//! The permissions that an application needs, as the commands of Kafka's own tool that grant them. Pure: names in, lines
//! out.

use std::fmt;
use std::io::Write;

use super::clients::ClientSettings;
use super::topics::{Layout, Role};
use crate::error::{Error, Result};

/// What to do about an error that a missing permission causes.
pub const HINT: &str = "`stagecast topics acls` prints the commands that grant all that is needed";

/// One command of `kafka-acls.sh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub operations: &'static [&'static str],
    pub resource: Resource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    Group(String),
    /// Every transactional id that begins so.
    TransactionalIds(String),
}

/// What `run` needs, and what `topics create` needs besides.
pub fn needed(app_id: &str, layout: &Layout) -> (Vec<Grant>, Vec<Grant>) {
    let topics = layout.topics();
    let grant = |operations, resource| Grant { operations, resource };
    // Reading and writing let describe as well. The configuration is looked at before every start.
    let of_topic = |(topic, role): &(&str, Role)| {
        let operations: &[&str] = match role {
            Role::Input => &["Read", "DescribeConfigs"],
            Role::State | Role::Moves => &["Read", "Write", "DescribeConfigs"],
            Role::Log | Role::Receipts | Role::Scores => &["Write", "DescribeConfigs"],
        };
        grant(operations, Resource::Topic((*topic).to_owned()))
    };
    let mut run: Vec<Grant> = topics.iter().map(of_topic).collect();
    run.push(grant(&["Read"], Resource::Group(app_id.to_owned())));
    // Each worker's is this, the instance and a number.
    run.push(grant(&["Write"], Resource::TransactionalIds(format!("{app_id}-"))));
    let create = topics.iter().map(|(topic, _)| grant(&["Create"], Resource::Topic((*topic).to_owned())));
    (run, create.collect())
}

/// `stagecast topics acls`: the commands for `principal`, by default the user that the configuration logs in as.
pub fn print(
    settings: &ClientSettings,
    layout: &Layout,
    principal: Option<&str>,
    out: &mut dyn Write,
) -> Result<()> {
    let user = settings.common.get("sasl.username").map(|user| format!("User:{user}"));
    let principal = principal.map(str::to_owned).or(user).ok_or_else(|| {
        Error::user("whom are the permissions for? The configuration names no \"sasl.username\"")
            .hint("pass --principal User:NAME; with client certificates NAME is the certificate's subject")
    })?;
    let bootstrap = settings.common.get("bootstrap.servers").map_or("", String::as_str);
    let (run, create) = needed(&settings.app_id, layout);
    let mut text = String::from("# for `stagecast run`\n");
    let command = |grant: &Grant| {
        let (bootstrap, principal) = (quoted(bootstrap), quoted(&principal));
        format!("kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal {principal} {grant}\n")
    };
    text.extend(run.iter().map(command));
    text.push_str("# for `stagecast topics create`, besides\n");
    text.extend(create.iter().map(command));
    out.write_all(text.as_bytes()).map_err(|e| Error::world(format!("cannot write: {e}")))
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for operation in self.operations {
            write!(f, "--operation {operation} ")?;
        }
        match &self.resource {
            Resource::Topic(name) => write!(f, "--topic {name}"),
            Resource::Group(name) => write!(f, "--group {}", quoted(name)),
            Resource::TransactionalIds(prefix) => {
                write!(f, "--transactional-id {} --resource-pattern-type prefixed", quoted(prefix))
            }
        }
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:,@/=+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::setup;

    fn printed(principal: Option<&str>) -> Result<String> {
        let config = Config::default();
        let mut out = Vec::new();
        print(&setup::clients(&config), &setup::topics(&config), principal, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_topic_has_its_permissions_and_no_more() {
        let text = printed(Some("User:CN=box, O=shop")).unwrap();
        let start =
            "kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal 'User:CN=box, O=shop' ";
        for end in [
            "--operation Read --operation DescribeConfigs --topic clickstream",
            "--operation Write --operation DescribeConfigs --topic churn-scores",
            "--operation Read --operation Write --operation DescribeConfigs --topic stagecast-state",
            "--operation Read --group stagecast",
            "--operation Write --transactional-id stagecast- --resource-pattern-type prefixed",
            "--operation Create --topic stagecast-dlq",
        ] {
            assert!(text.contains(&format!("{start}{end}\n")), "{end}:\n{text}");
        }
        let inputs_written = text.lines().any(|line| line.contains("Write") && line.ends_with("clickstream"));
        assert!(!inputs_written, "{text}");
    }

    #[test]
    fn without_a_user_it_asks_for_whom() {
        let error = printed(None).unwrap_err();
        assert!(error.hint.unwrap().contains("--principal"), "{}", error.what);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
