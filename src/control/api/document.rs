//! The configuration as a document that the API changes: comments, order and form stay, but for what is changed itself.
//!
//! Nothing is proven here. What comes out goes the way of a file that is read, through [`config::parse`](crate::control::config::parse).

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// The JSON of a table.
pub(super) type Body = Map<String, Json>;

/// Servers are tables with names within a pool's.
const SERVERS: &str = "server";

/// A table of the configuration that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In one of the document's arrays of tables, such as `pool`.
    Named(&'static str, String),
    /// `[[pool.server]]`
    Server {
        /// The pool's name.
        pool: String,
        /// The server's.
        server: String,
    },
}

/// Why a document cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unchanged {
    #[error("there is no {0}")]
    Missing(Place),
    #[error("{0} has the name {1} in its body")]
    OtherName(Place, Json),
    #[error("{0}: null, which is no value here")]
    Null(String),
    #[error("{0}: a number that is out of range")]
    Number(String),
    #[error("{0} holds more tables in each other than anybody reads")]
    Deep(String),
    #[error("{0} is no table, or no list of tables")]
    Form(&'static str),
    #[error("the document is not TOML: {0}")]
    Syntax(String),
}

/// Whether a table was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    Replaced,
}

/// Most tables and lists in each other that a body has: the configuration has four.
const DEPTH_MAX: usize = 16;

/// The document.
#[derive(Debug)]
pub(super) struct Document(DocumentMut);

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self, Unchanged> {
        text.parse().map(Self).map_err(|error: toml_edit::TomlError| Unchanged::Syntax(error.message().to_owned()))
    }

    /// What is at this place.
    pub(super) fn find(&mut self, place: &Place) -> Result<Body, Unchanged> {
        let (mut tables, name) = self.tables(place)?;
        let table = tables.find(name).ok_or_else(|| Unchanged::Missing(place.clone()))?;
        Ok(body(table))
    }

    /// Every table of an array of the document.
    pub(super) fn all(&self, key: &str) -> Vec<Body> {
        match self.0.get(key).map(json) {
            Some(Json::Array(tables)) => tables
                .into_iter()
                .filter_map(|table| match table {
                    Json::Object(table) => Some(table),
                    Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Makes the table at this place what `new` says.
    pub(super) fn put(&mut self, place: &Place, new: Body) -> Result<Put, Unchanged> {
        let new = named(place, new)?;
        let (mut tables, name) = self.tables(place)?;
        if let Some(table) = tables.find(name) {
            replace(table, new, 0)?;
            return Ok(Put::Replaced);
        }
        tables.push(new)?;
        Ok(Put::Created)
    }

    /// Changes the keys of a table that `patch` has; `null` takes one out (RFC 7396).
    pub(super) fn patch(&mut self, place: &Place, patch: Body) -> Result<(), Unchanged> {
        let patch = named(place, patch)?;
        let (mut tables, name) = self.tables(place)?;
        let table = tables.find(name).ok_or_else(|| Unchanged::Missing(place.clone()))?;
        merge(table, patch, 0)
    }

    /// Takes a table out.
    pub(super) fn remove(&mut self, place: &Place) -> Result<(), Unchanged> {
        let (mut tables, name) = self.tables(place)?;
        if tables.remove(name) { Ok(()) } else { Err(Unchanged::Missing(place.clone())) }
    }

    /// The tables that a place is among, and its name there. Where there are none yet, there are after.
    fn tables<'d, 'p>(&'d mut self, place: &'p Place) -> Result<(Tables<'d>, &'p str), Unchanged> {
        let root: &mut dyn TableLike = self.0.as_table_mut();
        match place {
            Place::Named(key, name) => Ok((Tables::of(root, key)?, name)),
            Place::Server { pool, server } => {
                let missing = || Unchanged::Missing(Place::Named("pool", pool.clone()));
                let pool = Tables::of(root, "pool")?.into_found(pool).ok_or_else(missing)?;
                Ok((Tables::of(pool, SERVERS)?, server))
            }
        }
    }
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(key, name) => write!(f, "{} {name:?}", key.replace('_', " ")),
            Self::Server { pool, server } => write!(f, "server {server:?} of pool {pool:?}"),
        }
    }
}

/// Tables in either form that TOML has for a list of them.
enum Tables<'d> {
    /// `[[pool]]`
    Headed(&'d mut ArrayOfTables),
    /// `pool = [{ … }]`
    Inline(&'d mut Array),
}

impl<'d> Tables<'d> {
    fn of(parent: &'d mut dyn TableLike, key: &'static str) -> Result<Self, Unchanged> {
        match parent.entry(key).or_insert(Item::ArrayOfTables(ArrayOfTables::new())) {
            Item::ArrayOfTables(tables) => Ok(Self::Headed(tables)),
            Item::Value(Value::Array(tables)) => Ok(Self::Inline(tables)),
            Item::None | Item::Value(_) | Item::Table(_) => Err(Unchanged::Form(key)),
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut dyn TableLike> {
        match self {
            Self::Headed(tables) => tables.iter_mut().find(|table| has_name(*table, name)).map(|table| table as _),
            Self::Inline(tables) => inline_tables(tables).find(|table| has_name(*table, name)).map(|table| table as _),
        }
    }

    fn into_found(self, name: &str) -> Option<&'d mut dyn TableLike> {
        match self {
            Self::Headed(tables) => tables.iter_mut().find(|table| has_name(*table, name)).map(|table| table as _),
            Self::Inline(tables) => inline_tables(tables).find(|table| has_name(*table, name)).map(|table| table as _),
        }
    }

    fn push(&mut self, new: Body) -> Result<(), Unchanged> {
        match self {
            Self::Headed(tables) => tables.push(headed(new)?),
            Self::Inline(tables) => tables.push(inline(new, 0)?),
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> bool {
        let before = self.len();
        match self {
            Self::Headed(tables) => tables.retain(|table| !has_name(table, name)),
            Self::Inline(tables) => {
                tables.retain(|value| value.as_inline_table().is_none_or(|table| !has_name(table, name)));
            }
        }
        self.len() < before
    }

    fn names(&self) -> BTreeSet<String> {
        let name = |table: &dyn TableLike| table.get("name").and_then(Item::as_str).map(str::to_owned);
        match self {
            Self::Headed(tables) => tables.iter().filter_map(|table| name(table)).collect(),
            Self::Inline(tables) => {
                tables.iter().filter_map(Value::as_inline_table).filter_map(|table| name(table)).collect()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Headed(tables) => tables.len(),
            Self::Inline(tables) => tables.len(),
        }
    }

    /// Makes these tables what `all` says, each that is there and has a name among them in its place.
    fn replace(&mut self, all: Vec<Body>, depth: usize) -> Result<(), Unchanged> {
        // A name that comes twice is for the configuration's proof to blame: both must be there.
        let is_once = |name: &Json| all.iter().filter(|new| new.get("name") == Some(name)).count() == 1;
        let is_kept = |table: &dyn TableLike| is_once(&json_name(table));
        match self {
            Self::Headed(tables) => tables.retain(|table| is_kept(table)),
            Self::Inline(tables) => {
                tables.retain(|value| value.as_inline_table().is_some_and(|table| is_kept(table)));
            }
        }
        let mut names = self.names();
        for new in all {
            let name = new.get("name").and_then(Json::as_str).filter(|name| names.remove(*name)).map(str::to_owned);
            match name.and_then(|name| self.find(&name)) {
                Some(table) => replace(table, new, depth)?,
                None => self.push(new)?,
            }
        }
        Ok(())
    }
}

fn inline_tables(tables: &mut Array) -> impl Iterator<Item = &mut InlineTable> {
    tables.iter_mut().filter_map(Value::as_inline_table_mut)
}

fn has_name(table: &dyn TableLike, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn json_name(table: &dyn TableLike) -> Json {
    table.get("name").map_or(Json::Null, json)
}

/// The body with its name in it, which is the place's.
fn named(place: &Place, mut body: Body) -> Result<Body, Unchanged> {
    let (Place::Named(_, name) | Place::Server { server: name, .. }) = place;
    match body.insert("name".to_owned(), Json::String(name.clone())) {
        None => Ok(body),
        Some(Json::String(other)) if other == *name => Ok(body),
        Some(other) => Err(Unchanged::OtherName(place.clone(), other)),
    }
}

fn replace(table: &mut dyn TableLike, mut new: Body, depth: usize) -> Result<(), Unchanged> {
    let gone: Vec<_> = table.iter().map(|(key, _)| key.to_owned()).filter(|key| !new.contains_key(key)).collect();
    for key in gone {
        table.remove(&key);
    }
    // Whoever reads a new table looks for its name first.
    let name = new.remove_entry("name");
    for (key, value) in name.into_iter().chain(new) {
        set(table, &key, value, depth, replace)?;
    }
    Ok(())
}

fn merge(table: &mut dyn TableLike, patch: Body, depth: usize) -> Result<(), Unchanged> {
    for (key, value) in patch {
        if value.is_null() {
            table.remove(&key);
        } else {
            set(table, &key, value, depth, merge)?;
        }
    }
    Ok(())
}

/// Sets one key. What says the same already stays as it is, with its comment.
fn set(
    table: &mut dyn TableLike,
    key: &str,
    value: Json,
    depth: usize,
    into: fn(&mut dyn TableLike, Body, usize) -> Result<(), Unchanged>,
) -> Result<(), Unchanged> {
    let depth = deeper(key, depth)?;
    let Some(item) = table.get_mut(key) else {
        if let (SERVERS, Some(servers)) = (key, bodies(&value)) {
            let servers = servers.into_iter().map(headed).collect::<Result<ArrayOfTables, _>>()?;
            table.insert(key, Item::ArrayOfTables(servers));
        } else {
            table.insert(key, Item::Value(toml(key, value, depth)?));
        }
        return Ok(());
    };
    if json(item) == value {
        return Ok(());
    }
    match (value, item) {
        (Json::Object(new), item) if item.is_table_like() => match item.as_table_like_mut() {
            Some(inner) => into(inner, new, depth),
            None => Ok(()),
        },
        (value, Item::ArrayOfTables(tables)) => match bodies(&value) {
            Some(all) => Tables::Headed(tables).replace(all, depth),
            None => {
                table.insert(key, Item::Value(toml(key, value, depth)?));
                Ok(())
            }
        },
        (value, Item::Value(old)) => {
            let mut new = toml(key, value, depth)?;
            *new.decor_mut() = old.decor().clone();
            *old = new;
            Ok(())
        }
        (value, item @ (Item::None | Item::Table(_))) => {
            *item = Item::Value(toml(key, value, depth)?);
            Ok(())
        }
    }
}

fn deeper(key: &str, depth: usize) -> Result<usize, Unchanged> {
    if depth >= DEPTH_MAX { Err(Unchanged::Deep(key.to_owned())) } else { Ok(depth + 1) }
}

/// The tables of a list that has nothing else.
fn bodies(value: &Json) -> Option<Vec<Body>> {
    value.as_array()?.iter().map(|value| value.as_object().cloned()).collect()
}

/// A table below a header of its own, an empty line above it.
fn headed(new: Body) -> Result<Table, Unchanged> {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    replace(&mut table, new, 0)?;
    Ok(table)
}

fn inline(new: Body, depth: usize) -> Result<InlineTable, Unchanged> {
    let mut table = InlineTable::new();
    for (key, value) in new {
        let value = toml(&key, value, deeper(&key, depth)?)?;
        table.insert(key, value);
    }
    Ok(table)
}

fn toml(key: &str, value: Json, depth: usize) -> Result<Value, Unchanged> {
    let depth = deeper(key, depth)?;
    match value {
        Json::Null => Err(Unchanged::Null(key.to_owned())),
        Json::Bool(value) => Ok(value.into()),
        Json::String(value) => Ok(value.into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(whole.into()),
            (None, Some(broken)) if number.is_f64() => Ok(broken.into()),
            (None, _) => Err(Unchanged::Number(key.to_owned())),
        },
        Json::Array(values) => {
            let values = values.into_iter().map(|value| toml(key, value, depth));
            values.collect::<Result<Array, _>>().map(Value::Array)
        }
        Json::Object(table) => inline(table, depth).map(Value::InlineTable),
    }
}

fn body(table: &dyn TableLike) -> Body {
    table.iter().map(|(key, item)| (key.to_owned(), json(item))).collect()
}

/// An item as JSON. Dates, of which the configuration has none, become strings, and numbers that JSON has not become null.
fn json(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => json_of_value(value),
        Item::Table(table) => Json::Object(body(table)),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| Json::Object(body(table))).collect(),
    }
}

fn json_of_value(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::String(text.value().clone()),
        Value::Integer(number) => Json::from(*number.value()),
        Value::Float(number) => Json::from(*number.value()),
        Value::Boolean(value) => Json::Bool(*value.value()),
        Value::Datetime(time) => Json::String(time.value().to_string()),
        Value::Array(values) => values.iter().map(json_of_value).collect(),
        Value::InlineTable(table) => Json::Object(body(table)),
    }
}

#[cfg(test)]
mod tests;
