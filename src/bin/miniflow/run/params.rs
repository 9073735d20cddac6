//! From a line of the params file to what a task is given.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One `--param KEY=VALUE`.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    key: String,
    value: Box<RawValue>,
}

impl Param {
    /// The value is JSON if it parses, and a string otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err("not KEY=VALUE".into());
        };
        let value = match serde_json::from_str::<Box<RawValue>>(value) {
            Ok(value) => value,
            Err(_) => serde_json::value::to_raw_value(value).map_err(|e| e.to_string())?,
        };
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

/// The members of an object, in their order, with values as they were written: numbers keep their
/// digits.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, as --param sets a member of it")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((member.0.0, member.1));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Self)
    }
}

/// A key, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Checks that a line is JSON and merges `extra` into it, which wins. The text of an error says what
/// is wrong with the line.
pub(crate) fn merge<'a>(line: &'a [u8], extra: &[Param]) -> Result<Cow<'a, [u8]>, String> {
    let line = line.trim_ascii();
    if extra.is_empty() {
        return match serde_json::from_slice::<&RawValue>(line) {
            Ok(_) => Ok(Cow::Borrowed(line)),
            Err(error) => Err(format!("not JSON: {}", describe(&error))),
        };
    }
    let Members(mut members) =
        serde_json::from_slice(line).map_err(|error| match error.is_data() {
            true => describe(&error),
            false => format!("not JSON: {}", describe(&error)),
        })?;
    for param in extra {
        members.retain(|(key, _)| *key != param.key);
        members.push((Cow::Borrowed(&param.key), &param.value));
    }
    let mut merged = Vec::with_capacity(line.len() + 64);
    for (index, (key, value)) in members.iter().enumerate() {
        merged.push(if index == 0 { b'{' } else { b',' });
        serde_json::to_writer(&mut merged, key).map_err(|e| e.to_string())?;
        merged.push(b':');
        merged.extend_from_slice(value.get().as_bytes());
    }
    merged.push(b'}');
    Ok(Cow::Owned(merged))
}

/// The text of an error, which is about one line: only the column says something.
fn describe(error: &serde_json::Error) -> String {
    error
        .to_string()
        .replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(line: &str, params: &[&str]) -> Result<String, String> {
        let extra: Vec<_> = params.iter().map(|p| Param::parse(p).unwrap()).collect();
        merge(line.as_bytes(), &extra).map(|m| String::from_utf8(m.into_owned()).unwrap())
    }

    #[test]
    fn a_value_is_json_if_it_parses_and_a_string_otherwise() {
        let line = |param| merged("{}", &[param]).unwrap();
        assert_eq!(line("k=12"), r#"{"k":12}"#);
        assert_eq!(line("k=[1, null]"), r#"{"k":[1, null]}"#);
        assert_eq!(line("k=twelve"), r#"{"k":"twelve"}"#);
        assert_eq!(line("k=a=b"), r#"{"k":"a=b"}"#);
        assert_eq!(line("k="), r#"{"k":""}"#);
        assert!(Param::parse("k").is_err());
        assert!(Param::parse("=1").is_err());
    }

    #[test]
    fn a_line_without_params_stays_as_it_is() {
        let line = r#" {"b": 1.10, "a": 12345678901234567890123, "b": 2} "#;
        assert_eq!(merged(line, &[]).unwrap(), line.trim());
        assert_eq!(merged("7", &[]).unwrap(), "7");
    }

    #[test]
    fn params_replace_members_and_keep_the_digits_of_the_others() {
        let line = r#"{"a": 12345678901234567890123, "k\n": 1.10, "z": 1}"#;
        assert_eq!(
            merged(line, &["z=2", "y=\"s\""]).unwrap(),
            r#"{"a":12345678901234567890123,"k\n":1.10,"z":2,"y":"s"}"#
        );
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let error = merged(r#"{"a": }"#, &[]).unwrap_err();
        assert_eq!(error, "not JSON: expected value at column 7");
        let error = merged(r#"{"a": }"#, &["k=1"]).unwrap_err();
        assert_eq!(error, "not JSON: expected value at column 7");
        let error = merged("[1]", &["k=1"]).unwrap_err();
        assert!(error.contains("expected an object"), "{error}");
        assert!(merged("{} {}", &["k=1"]).is_err());
        assert!(merge(b"\"\xff\"", &[]).is_err());
    }
}
