//! How far the emulated users of a container are held to their permissions. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::word::Word;

/// The annotation of a container in config.json.
pub(crate) const ANNOTATION: &str = "io.subuidless.permissions";

/// Which permissions are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Permissions {
    /// Those that the kernel checks
    #[default]
    Full,
    /// Those to change owners, modes and times, to create and execute files, and to signal
    /// processes: looking up, opening, renaming and removing files takes none
    Owner,
}

impl Permissions {
    /// What the annotation of a config.json says; `None`: it has none. `Err` is the reason.
    pub(crate) fn of_config(config: &Map<String, Value>) -> Result<Option<Self>, String> {
        let Some(value) = config
            .get("annotations")
            .and_then(|all| all.get(ANNOTATION))
        else {
            return Ok(None);
        };
        let known = value.as_str().and_then(Self::from_word);
        known.map(Some).ok_or_else(|| {
            format!("its annotation {ANNOTATION} is {value}, and neither \"full\" nor \"owner\"")
        })
    }

    /// Sets the annotation.
    pub(crate) fn annotate(self, config: &mut Map<String, Value>) {
        let annotations = config
            .entry("annotations")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ANNOTATION.to_owned(), self.word().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_annotation_is_read_back_and_wrong_ones_are_errors() {
        for &level in Permissions::value_variants() {
            let mut config = Map::new();
            assert_eq!(Permissions::of_config(&config), Ok(None));
            level.annotate(&mut config);
            assert_eq!(Permissions::of_config(&config), Ok(Some(level)));
        }
        for wrong in [json!("none"), json!(1), json!(null)] {
            let config = json!({"annotations": {ANNOTATION: wrong}});
            assert!(Permissions::of_config(config.as_object().unwrap()).is_err());
        }
    }
}
