//! Tables that others refer to by their name.

use std::collections::HashMap;

use super::fault::{Report, wrong};
use super::model::POOLS_MAX;
use super::reader::{Located, Section, name};
use super::sections::duplicate;

/// Things that others refer to by name. One that is wrong keeps its name, so that whoever refers to it is not blamed.
#[derive(Debug)]
pub(super) struct Named<T> {
    all: HashMap<String, Option<T>>,
    /// Whether the name of each is known.
    is_whole: bool,
}

impl<T> Named<T> {
    /// Reads every table of the array `key`.
    pub(super) fn read(
        report: &mut Report,
        root: &mut Section<'_>,
        key: &'static str,
        mut read: impl FnMut(&mut Report, &mut Section<'_>, Option<&str>) -> Option<T>,
    ) -> Self {
        let mut all = HashMap::new();
        let faults = report.count();
        let sections = root.sections(report, key, POOLS_MAX);
        let mut is_whole = report.count() == faults;
        for mut section in sections {
            let name = section.required(report, "name", "\"web\"", name);
            is_whole &= name.is_some();
            let value = read(report, &mut section, name.as_ref().map(|name| name.value.as_str()));
            if let Some(name) = name
                && all.insert(name.value.clone(), value).is_some()
            {
                report.fault(name.line, section.key("name"), duplicate(&name.value));
            }
            section.finish(report);
        }
        Self { all, is_whole }
    }

    /// What `name` refers to; notes a fault at `key` when nothing has that name.
    pub(super) fn find(&self, report: &mut Report, key: String, name: &Located<String>) -> Option<&T> {
        let found = self.all.get(&name.value);
        if found.is_none() && self.is_whole {
            let mut names: Vec<_> = self.all.keys().map(String::as_str).collect();
            names.sort_unstable();
            let remedy = if names.is_empty() {
                "there is none: add one".to_owned()
            } else {
                format!("choose from {}", names.join(", "))
            };
            report.fault(name.line, key, wrong(format!("refers to {:?}, which does not exist", name.value), remedy));
        }
        found?.as_ref()
    }

    /// All that are right.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.all.values().flatten()
    }

    /// The same, for good.
    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.all.into_values().flatten()
    }
}
