//! Versions of a model side by side, and the file that says what each is for: which one serves (the champion),
//! which one scores in its shadow (the challenger), and which served before.
//!
//! A folder of models has its aliases in `aliases.toml`; a `.toml` file of any name does as well. Changing the file
//! changes what is served: a running service looks at it ([`crate::reload`]). It is only ever replaced as a whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Model;

/// The file of aliases in a folder of models.
pub const ALIASES: &str = "aliases.toml";
/// Champions of before that are remembered.
const PREVIOUS_MOST: usize = 20;
/// Fewer characters of a version could name another one tomorrow.
const VERSION_CHARACTERS_LEAST: usize = 4;

/// What models are for. Paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    pub champion: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<PathBuf>,
    /// Champions of before, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PathBuf>,
}

impl Aliases {
    pub fn read(file: &Path) -> Result<Aliases> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::user(format!("the aliases {} cannot be read: {error}", file.display()))
                .hint("`stagecast models promote MODEL` writes them")
        })?;
        toml::from_str(&text).map_err(|e| {
            let what = format!("{}: not an alias of a model: {}", file.display(), e.message());
            Error::user(what).hint("write one line, such as champion = \"churn-2026-03.json\"")
        })
    }

    /// Writes under a temporary name and renames, so that a running instance never reads half of it.
    fn write(&self, file: &Path) -> Result<()> {
        let text = toml::to_string(self)
            .map_err(|e| Error::world(format!("the aliases {} cannot be written: {e}", file.display())))?;
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let partial = file.with_file_name(name);
        let text = format!("# Written by `stagecast models`; a running service follows it.\n{text}");
        std::fs::write(&partial, text).map_err(|e| Error::io("write", &partial, &e))?;
        std::fs::rename(&partial, file).map_err(|e| Error::io("write", file, &e))
    }
}

/// The file of aliases that a path stands for; `None` where the path is a model's own.
fn aliases_of(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join(ALIASES));
    }
    path.extension().is_some_and(|extension| extension == "toml").then(|| path.to_owned())
}

/// The files that a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub champion: PathBuf,
    pub challenger: Option<PathBuf>,
    /// The file of aliases, where there is one.
    pub aliases: Option<PathBuf>,
}

/// Follows a path (a model, a file of aliases, or a folder with one) to the models it stands for.
pub fn resolve(path: &Path) -> Result<Serving> {
    let Some(file) = aliases_of(path) else {
        return Ok(Serving { champion: path.to_owned(), challenger: None, aliases: None });
    };
    let aliases = Aliases::read(&file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    Ok(Serving {
        champion: folder.join(aliases.champion),
        challenger: aliases.challenger.map(|challenger| folder.join(challenger)),
        aliases: Some(file),
    })
}

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Registry {
    file: PathBuf,
    folder: PathBuf,
}

/// A model in the folder.
#[derive(Clone, Debug)]
pub struct Listed {
    pub file: PathBuf,
    pub model: Model,
}

impl Registry {
    /// The registry that a path stands for: a folder, or a file of aliases in one.
    pub fn at(path: &Path) -> Result<Registry> {
        let file = aliases_of(path).ok_or_else(|| {
            let what = format!("{} is neither a folder of models nor a file of aliases", path.display());
            Error::user(what)
                .hint("let model.path name the folder that the versions are in, or name it with --folder")
        })?;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Registry { file, folder })
    }

    /// What models are for; `None` before the first promotion.
    pub fn aliases(&self) -> Result<Option<Aliases>> {
        if self.file.exists() { Aliases::read(&self.file).map(Some) } else { Ok(None) }
    }

    /// The models in the folder, in the order of their files, and the names of `.json` files that are none.
    pub fn models(&self) -> Result<(Vec<Listed>, Vec<PathBuf>)> {
        let entries = std::fs::read_dir(&self.folder).map_err(|e| Error::io("read", &self.folder, &e))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())))
            .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        let (mut models, mut others) = (Vec::new(), Vec::new());
        for file in files {
            match Model::read(&self.folder.join(&file)) {
                Ok(model) => models.push(Listed { file, model }),
                Err(_) => others.push(file),
            }
        }
        Ok((models, others))
    }

    /// The model of this file name, or of this version or the beginning of it.
    pub fn find(&self, named: &str) -> Result<Listed> {
        let path = self.folder.join(named);
        if path.is_file() {
            return Ok(Listed { file: named.into(), model: Model::read(&path)? });
        }
        let (models, _) = self.models()?;
        let is_meant = |listed: &&Listed| {
            listed.file.file_stem().is_some_and(|stem| stem == named)
                || listed.model.version == named
                || (named.len() >= VERSION_CHARACTERS_LEAST && listed.model.version.starts_with(named))
        };
        let mut meant = models.iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(listed), None) => Ok(listed.clone()),
            (Some(one), Some(other)) => Err(Error::user(format!(
                "`{named}` is {} as well as {}",
                one.file.display(),
                other.file.display()
            ))
            .hint("name the file")),
            _ => Err(Error::user(format!("{} has no model `{named}`", self.folder.display()))
                .hint("`stagecast models list` says which there are; name a file or a version")),
        }
    }

    /// Makes a model the champion; without a name, the challenger. The old champion is remembered. `check` is
    /// asked before anything is written. Returns the new champion.
    pub fn promote(&self, named: Option<&str>, check: impl Fn(&Model) -> Result<()>) -> Result<Listed> {
        let aliases = self.aliases()?;
        let challenger = aliases.as_ref().and_then(|aliases| aliases.challenger.as_ref());
        let chosen = match (named, challenger) {
            (Some(named), _) => self.find(named)?,
            (None, Some(file)) => self.read(file)?,
            (None, None) => {
                return Err(
                    Error::user("there is no challenger to promote").hint("name the model to promote")
                );
            }
        };
        check(&chosen.model)?;
        let mut next =
            Aliases { champion: chosen.file.clone(), challenger: challenger.cloned(), previous: Vec::new() };
        if let Some(old) = aliases {
            if old.champion == chosen.file {
                let what = format!("{} is the champion already", chosen.file.display());
                return Err(Error::user(what).hint("`stagecast models list` says what each model is for"));
            }
            next.previous = old.previous;
            next.previous.push(old.champion);
            let surplus = next.previous.len().saturating_sub(PREVIOUS_MOST);
            next.previous.drain(..surplus);
        }
        next.challenger = next.challenger.filter(|file| *file != chosen.file);
        next.write(&self.file)?;
        Ok(chosen)
    }

    /// Makes a model the challenger, or nobody.
    pub fn challenge(
        &self,
        named: Option<&str>,
        check: impl Fn(&Model, &Model) -> Result<()>,
    ) -> Result<Option<Listed>> {
        let aliases = self.aliases()?.ok_or_else(|| {
            Error::user("there is no champion to challenge")
                .hint("promote one first: `stagecast models promote MODEL`")
        })?;
        let chosen = named.map(|named| self.find(named)).transpose()?;
        if let Some(chosen) = &chosen {
            if chosen.file == aliases.champion {
                return Err(Error::user(format!("{} is the champion itself", chosen.file.display()))
                    .hint("name another model"));
            }
            check(&self.read(&aliases.champion)?.model, &chosen.model)?;
        }
        Aliases { challenger: chosen.as_ref().map(|c| c.file.clone()), ..aliases }.write(&self.file)?;
        Ok(chosen)
    }

    /// Makes the champion of before the champion again. Returns it, and who was.
    pub fn rollback(&self, check: impl Fn(&Model) -> Result<()>) -> Result<(Listed, PathBuf)> {
        let mut aliases = self.aliases()?.ok_or_else(|| Error::user("nothing was promoted here yet"))?;
        let Some(before) = aliases.previous.pop() else {
            return Err(Error::user("no champion of before is known").hint("promote the model by its name"));
        };
        let listed = self.read(&before)?;
        check(&listed.model)?;
        let was = std::mem::replace(&mut aliases.champion, before);
        aliases.challenger = aliases.challenger.filter(|file| *file != aliases.champion);
        aliases.write(&self.file)?;
        Ok((listed, was))
    }

    fn read(&self, file: &Path) -> Result<Listed> {
        Ok(Listed { file: file.to_owned(), model: Model::read(&self.folder.join(file))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::SHIPPED_MODEL;

    /// A folder with models of these versions, each in a file named after it.
    fn folder(versions: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for version in versions {
            let mut model = Model::from_json(SHIPPED_MODEL, "shipped").unwrap();
            model.version = (*version).into();
            model.write(&dir.path().join(format!("churn-{}.json", &version[..1]))).unwrap();
        }
        dir
    }

    fn any(_: &Model) -> Result<()> {
        Ok(())
    }

    #[test]
    fn a_promotion_remembers_who_served_before_and_a_rollback_takes_it_back() {
        let dir = folder(&["aaaa11", "bbbb22", "cccc33"]);
        let registry = Registry::at(dir.path()).unwrap();
        assert_eq!(registry.aliases().unwrap(), None);
        assert!(resolve(dir.path()).unwrap_err().hint.unwrap().contains("models promote"));
        assert_eq!(registry.promote(Some("churn-a.json"), any).unwrap().model.version, "aaaa11");
        assert_eq!(registry.promote(Some("bbbb"), any).unwrap().file, PathBuf::from("churn-b.json"));
        registry.challenge(Some("churn-c"), |_, _| Ok(())).unwrap();
        let serving = resolve(dir.path()).unwrap();
        assert_eq!(serving.champion, dir.path().join("churn-b.json"));
        assert_eq!(serving.challenger, Some(dir.path().join("churn-c.json")));
        assert_eq!(resolve(&dir.path().join(ALIASES)).unwrap(), serving);

        assert_eq!(registry.promote(None, any).unwrap().model.version, "cccc33");
        let aliases = registry.aliases().unwrap().unwrap();
        assert_eq!((aliases.challenger, aliases.previous.len()), (None, 2), "it serves now");
        let (again, was) = registry.rollback(any).unwrap();
        assert_eq!((again.model.version.as_str(), was), ("bbbb22", PathBuf::from("churn-c.json")));
        assert_eq!(registry.rollback(any).unwrap().0.model.version, "aaaa11");
        assert!(registry.rollback(any).unwrap_err().what.contains("no champion of before"));
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 4, "nothing temporary stays");
    }

    #[test]
    fn what_cannot_serve_is_not_promoted() {
        let dir = folder(&["aaaa11", "aaaa22"]);
        std::fs::write(dir.path().join("report.json"), "{}").unwrap();
        let registry = Registry::at(dir.path()).unwrap();
        let says = |refused: Result<Listed>, what: &str| {
            let error = refused.unwrap_err();
            assert!(error.what.contains(what), "{error}");
        };
        // Both were written to one file, so that there is one model.
        assert_eq!(registry.models().unwrap().0.len(), 1);
        assert_eq!(registry.models().unwrap().1, [PathBuf::from("report.json")]);
        says(registry.promote(None, any), "no challenger");
        says(registry.promote(Some("churn-z"), any), "has no model `churn-z`");
        says(registry.promote(Some("aaa"), any), "has no model `aaa`");
        says(registry.promote(Some("report.json"), any), "not a churn model");
        says(registry.promote(Some("aaaa"), |_| Err(Error::user("unfit"))), "unfit");
        assert_eq!(registry.aliases().unwrap(), None, "nothing was written");
        registry.promote(Some("churn-a"), any).unwrap();
        says(registry.promote(Some("churn-a"), any), "the champion already");
        let itself = registry.challenge(Some("churn-a"), |_, _| Ok(())).unwrap_err();
        assert!(itself.what.contains("the champion itself"), "{itself}");
        assert!(Registry::at(&dir.path().join("churn-a.json")).is_err());
    }

    #[test]
    fn an_alias_says_which_model_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let alias = dir.path().join("model.toml");
        std::fs::write(&alias, "champion = \"churn-7.json\"\n").unwrap();
        assert_eq!(resolve(&alias).unwrap().champion, dir.path().join("churn-7.json"));
        std::fs::write(&alias, "champoin = \"x.json\"\n").unwrap();
        let wrong = resolve(&alias).unwrap_err();
        assert!(wrong.what.contains("not an alias") && wrong.exit_code() == 2, "{wrong}");
    }
}
