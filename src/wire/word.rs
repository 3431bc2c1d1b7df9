//! Words for the values of an enum, as in options, in command lines of our processes and in JSON.
//! Pure.

use clap::ValueEnum;

/// An enum whose values have the words by which clap knows them.
pub(crate) trait Word: ValueEnum {
    fn word(&self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::from_str(word, false).ok()
    }
}

impl<T: ValueEnum> Word for T {}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::json;

    use super::*;
    use crate::wire::fast::FastPath;
    use crate::wire::others::Others;
    use crate::wire::permissions::Permissions;

    #[track_caller]
    fn has_one_word_everywhere<T: Word + Serialize>() {
        for value in T::value_variants() {
            assert_eq!(json!(value), json!(value.word()));
            let read = T::from_word(&value.word()).unwrap();
            assert_eq!(read.word(), value.word());
        }
        assert!(T::from_word("perhaps").is_none());
    }

    #[test]
    fn words_are_those_of_json_and_are_read_back() {
        has_one_word_everywhere::<FastPath>();
        has_one_word_everywhere::<Others>();
        has_one_word_everywhere::<Permissions>();
    }
}
