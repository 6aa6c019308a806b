//! `stagecast schema`: the interfaces as documents, for whoever writes the inputs or reads the outputs.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Error, Result, did_you_mean};
use crate::schema::{Document, documents};

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Which document, such as stage-change, asyncapi or openapi [default: lists all]
    #[arg(value_name = "NAME", conflicts_with = "out")]
    pub name: Option<String>,

    /// Writes all documents into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let documents = documents(config);
    match (&args.name, &args.out) {
        (Some(name), _) => super::print(&text(find(&documents, name)?)),
        (None, Some(folder)) => {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, &e))?;
            documents.iter().try_for_each(|document| {
                let path = folder.join(&document.file);
                std::fs::write(&path, text(document)).map_err(|e| Error::io("write", &path, &e))
            })?;
            super::print(&format!("{} documents written to {}\n", documents.len(), folder.display()))
        }
        (None, None) => super::print(&documents.iter().map(line).collect::<String>()),
    }
}

/// A document as its file has it.
pub fn text(document: &Document) -> String {
    format!("{:#}\n", document.content)
}

fn line(document: &Document) -> String {
    let about = &document.content;
    let help =
        about["description"].as_str().or_else(|| about["info"]["description"].as_str()).unwrap_or_default();
    let sentence = help.split_inclusive(". ").next().unwrap_or_default().trim_end();
    format!("{:20} {sentence}\n", name(document))
}

fn name(document: &Document) -> &str {
    document.file.trim_end_matches(".json").trim_end_matches(".schema")
}

fn find<'d>(documents: &'d [Document], wanted: &str) -> Result<&'d Document> {
    documents.iter().find(|document| name(document) == wanted).ok_or_else(|| {
        let near = did_you_mean(wanted, documents.iter().map(name));
        Error::user(format!("there is no document `{wanted}`{near}")).hint("`stagecast schema` lists all")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_by_name_and_a_wrong_name_is_answered_with_the_nearest() {
        let documents = documents(&Config::default());
        for name in ["stage-change", "purchase-event", "asyncapi", "openapi"] {
            assert!(find(&documents, name).is_ok(), "{name}");
        }
        let error = find(&documents, "stage-chnage").unwrap_err();
        assert!(error.what.contains("did you mean `stage-change`?"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
