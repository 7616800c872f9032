//! A typed walk over the parsed TOML that collects every fault instead of stopping at the first.
//!
//! Owns [`Section`]: one table, read key by key against its list of known keys. What the values mean is decided by
//! the modules that read them.

use std::{ops::RangeInclusive, time::Duration};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Complaint;
use super::keys::{self, Key, Kind};
use super::nearest::nearest;
use super::report::{At, Report};

/// A string with its place.
#[derive(Clone, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) value: &'a str,
    pub(crate) at: At,
}

/// One table of the file, or the absence of one; read by key, faults go to the [`Report`].
#[derive(Debug)]
pub(crate) struct Section<'a> {
    report: &'a Report,
    at: At,
    table: Option<&'a DeTable<'a>>,
    keys: &'static [Key],
    /// There is a value, but no table: already reported, so nothing in it counts as missing.
    misshapen: bool,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(report: &'a Report, table: &'a DeTable<'a>) -> Self {
        let section =
            Self { report, at: report.whole(), table: Some(table), keys: keys::ROOT, misshapen: false };
        section.refuse_unknown_keys();
        section
    }

    fn open(&self, at: At, value: Option<&'a Spanned<DeValue<'a>>>, keys: &'static [Key]) -> Self {
        let table = value.and_then(|v| v.get_ref().as_table());
        let misshapen = value.is_some() && table.is_none();
        if misshapen {
            self.report.error(
                &at,
                Complaint::new(
                    "wrong_type",
                    format!("`{}` is not a table", at.key_path),
                    format!("write it as [{}] with its keys below", at.key_path),
                ),
            );
        }
        let section = Self { report: self.report, at, table, keys, misshapen };
        section.refuse_unknown_keys();
        section
    }

    pub(crate) fn report(&self) -> &'a Report {
        self.report
    }

    /// The place of the table itself.
    pub(crate) fn at(&self) -> &At {
        &self.at
    }

    /// The place of a key in it, given or not.
    pub(crate) fn at_key(&self, name: &str) -> At {
        let line = self.entry(name).map(|(key, _)| self.report.line_of(key.span().start)).or(self.at.line);
        At { key_path: self.path_of(name), line }
    }

    /// Whether the key is given, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// A table below this one.
    pub(crate) fn section(&self, name: &str, keys: &'static [Key]) -> Section<'a> {
        self.kind(name);
        self.open(self.at_key(name), self.value(name), keys)
    }

    /// The tables below `name`, each under a name of the user's choice, in the order of the file.
    pub(crate) fn named_sections(&self, name: &str, keys: &'static [Key]) -> Vec<(&'a str, Section<'a>)> {
        self.entries(name)
            .into_iter()
            .map(|(key, at, value)| (key, self.open(at, Some(value), keys)))
            .collect()
    }

    /// The tables of `[[name]]`, in the order of the file.
    pub(crate) fn listed_sections(&self, name: &str, keys: &'static [Key]) -> Vec<Section<'a>> {
        self.kind(name);
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(name, "a list of tables", &format!("write [[{name}]] above each entry"));
            return Vec::new();
        };
        array.iter().enumerate().map(|(i, v)| self.open(self.at_item(name, i, v), Some(v), keys)).collect()
    }

    /// The strings of a table whose keys are the user's choice.
    pub(crate) fn text_entries(&self, name: &str) -> Vec<(&'a str, Text<'a>)> {
        let mut texts = Vec::new();
        for (key, at, value) in self.entries(name) {
            match value.get_ref().as_str() {
                Some(value) => texts.push((key, Text { value, at })),
                None => self.report.error(&at, wrong_type(key, "a string", "put the value in quotes")),
            }
        }
        texts
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Option<Text<'a>> {
        self.kind(name);
        let value = self.value(name)?;
        match value.get_ref().as_str() {
            Some("") => {
                let what = format!("`{name}` is empty");
                self.report.error(
                    &self.at_key(name),
                    Complaint::new("empty_value", what, "give a value or leave the key out"),
                );
                None
            }
            Some(value) => Some(Text { value, at: self.at_key(name) }),
            None => {
                self.wrong_type(name, "a string", "put the value in quotes");
                None
            }
        }
    }

    /// A string that must be there.
    pub(crate) fn required_text(&self, name: &str, remedy: &str) -> Option<Text<'a>> {
        if !self.has(name) {
            self.missing(name, remedy);
        }
        self.text(name)
    }

    /// A list of strings; a string alone counts as a list of one.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<Text<'a>>> {
        self.kind(name);
        let value = self.value(name)?;
        if value.get_ref().is_str() {
            return self.text(name).map(|text| vec![text]);
        }
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(name, "a list of strings", "write it as [\"…\", \"…\"]");
            return None;
        };
        let mut texts = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let at = self.at_item(name, index, item);
            match item.get_ref().as_str() {
                Some(value) if !value.is_empty() => texts.push(Text { value, at }),
                Some(_) => {
                    self.report.error(&at, Complaint::new("empty_value", "an empty entry", "remove it"))
                }
                None => {
                    self.report.error(&at, wrong_type(name, "a list of strings", "put the entry in quotes"))
                }
            }
        }
        Some(texts)
    }

    /// A list of whole numbers in this range; `None` if it is not given or has faults.
    pub(crate) fn numbers(&self, name: &str, range: RangeInclusive<u64>) -> Option<Vec<(u64, At)>> {
        const REMEDY: &str = "write it as [1, 2], without quotes";
        self.kind(name);
        let Some(array) = self.value(name)?.get_ref().as_array() else {
            self.wrong_type(name, "a list of whole numbers", REMEDY);
            return None;
        };
        let mut numbers = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let at = self.at_item(name, index, item);
            let DeValue::Integer(integer) = item.get_ref() else {
                self.report.error(&at, wrong_type(name, "a list of whole numbers", REMEDY));
                continue;
            };
            match i128::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .and_then(|n| u64::try_from(n).ok())
            {
                Some(number) if range.contains(&number) => numbers.push((number, at)),
                _ => {
                    let (min, max) = (range.start(), range.end());
                    let what = format!("{integer} is not in {min} to {max}");
                    let remedy = format!("choose a value from {min} to {max}");
                    self.report.error(&at, Complaint::new("out_of_range", what, remedy));
                }
            }
        }
        (numbers.len() == array.len()).then_some(numbers)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.kind(name);
        let value = self.value(name)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(name, "true or false", "write true or false, without quotes");
        }
        boolean
    }

    /// Whether the value is `true` or `false`, for keys that take either a switch or a string.
    pub(crate) fn is_boolean(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v.get_ref().is_bool())
    }

    /// Whether the value is a list, for keys that take either a list or a string.
    pub(crate) fn is_list(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v.get_ref().is_array())
    }

    /// A whole number within the range of its key.
    pub(crate) fn whole(&self, name: &str) -> Option<u64> {
        let Kind::Whole { min, max, unit } = self.kind(name) else {
            debug_assert!(false, "`{name}` is not listed as a number");
            return None;
        };
        let value = self.value(name)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(
                name,
                "a whole number",
                &format!("write a number from {min} to {max}, without quotes"),
            );
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.and_then(|n| u64::try_from(n).ok()).filter(|n| (*min..=*max).contains(n));
        if fits.is_none() {
            let complaint = Complaint::new(
                "out_of_range",
                format!("`{name}` is {integer}, but may be {min} to {max}{}", spaced(unit)),
                format!("choose a value from {min} to {max}, or leave the key out for its default"),
            );
            self.report.error(&self.at_key(name), complaint);
        }
        fits
    }

    /// Overwrites `target` with the number, if it is given and right.
    pub(crate) fn set_whole<T: TryFrom<u64>>(&self, name: &str, target: &mut T) {
        // The ranges of `keys` fit the types of the model; a test reads every bound.
        if let Some(value) = self.whole(name).and_then(|n| T::try_from(n).ok()) {
            *target = value;
        }
    }

    /// Overwrites `target` with the time, in the unit of its key.
    pub(crate) fn set_duration(&self, name: &str, target: &mut Duration) {
        let seconds = matches!(self.kind(name), Kind::Whole { unit: "s", .. });
        if let Some(value) = self.whole(name) {
            *target = if seconds { Duration::from_secs(value) } else { Duration::from_millis(value) };
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = pick(&text, words);
        match found {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.report.error(&text.at, complaint);
                None
            }
        }
    }

    /// Reports a key that must be there.
    pub(crate) fn missing(&self, name: &str, remedy: &str) {
        if self.misshapen || self.report.is_broken() {
            return;
        }
        let what = format!("`{name}` is missing");
        self.report.error(&self.at_key(name), Complaint::new("missing_key", what, remedy));
    }

    fn path_of(&self, name: &str) -> String {
        if self.at.key_path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at.key_path) }
    }

    /// The place of an item of a list.
    fn at_item(&self, name: &str, index: usize, item: &Spanned<DeValue<'_>>) -> At {
        At {
            key_path: format!("{}[{index}]", self.path_of(name)),
            line: Some(self.report.line_of(item.span().start)),
        }
    }

    fn entry(
        &self,
        name: &str,
    ) -> Option<(&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
        self.table?.iter().find(|(key, _)| key.get_ref() == name)
    }

    fn value(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entry(name).map(|(_, value)| value)
    }

    fn entries(&self, name: &str) -> Vec<(&'a str, At, &'a Spanned<DeValue<'a>>)> {
        self.kind(name);
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(
                name,
                "a table",
                &format!("write [{}.NAME] or {{ NAME = … }}", self.path_of(name)),
            );
            return Vec::new();
        };
        let at = |key: &Spanned<std::borrow::Cow<'a, str>>| At {
            key_path: format!("{}.{}", self.path_of(name), key.get_ref()),
            line: Some(self.report.line_of(key.span().start)),
        };
        table.iter().map(|(key, value)| (key.get_ref().as_ref(), at(key), value)).collect()
    }

    fn kind(&self, name: &str) -> &'static Kind {
        // Only a slip in this crate can miss; the tests read every section.
        let key = self.keys.iter().find(|key| key.name == name);
        debug_assert!(key.is_some(), "`{name}` is not listed in `keys`");
        key.map_or(&Kind::Table, |key| &key.kind)
    }

    fn wrong_type(&self, name: &str, wanted: &str, remedy: &str) {
        self.report.error(&self.at_key(name), wrong_type(name, wanted, remedy));
    }

    fn refuse_unknown_keys(&self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if !self.keys.iter().any(|known| known.name == name) {
                self.report.error(&self.at_key(name), unknown_key(name, self.keys));
            }
        }
    }
}

/// Finds the word among those known.
pub(crate) fn pick<T: Copy>(text: &Text<'_>, words: &[(&str, T)]) -> Result<T, Complaint> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
        return Ok(*value);
    }
    let known = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let remedy = match nearest(text.value, words.iter().map(|(word, _)| *word)) {
        Some(word) => format!("the nearest known value is \"{word}\"; known are {known}"),
        None => format!("known are {known}"),
    };
    Err(Complaint::new("unknown_value", format!("\"{}\" is not known here", text.value), remedy))
}

fn wrong_type(name: &str, wanted: &str, remedy: &str) -> Complaint {
    Complaint::new("wrong_type", format!("`{name}` must be {wanted}"), remedy)
}

fn unknown_key(name: &str, keys: &'static [Key]) -> Complaint {
    if let Some((_, why)) = keys::NOT_YET.iter().find(|(key, _)| *key == name) {
        return Complaint::new(
            "unknown_key",
            format!("`{name}` is not supported in this version: {why}"),
            "remove it",
        );
    }
    let what = format!("unknown key `{name}`");
    if let Some(near) = nearest(name, keys.iter().map(|key| key.name)) {
        return Complaint::new("unknown_key", what, format!("the nearest known key is `{near}`"));
    }
    if let Some((heading, _)) = keys::SECTIONS.iter().find(|(_, keys)| keys.iter().any(|k| k.name == name)) {
        return Complaint::new("unknown_key", what, format!("`{name}` belongs in {heading}"));
    }
    let known = keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ");
    Complaint::new("unknown_key", what, format!("remove it; known here are {known}"))
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}
