//! What objects exist and what they depend on, with OIDs that are never used twice.
//!
//! A [`Catalog`] is a value: a reader clones an `Arc` of it and sees one moment; only the epoch loop replaces it.

mod object;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use object::{CheckDef, ColumnDef, IndexDef, Kind, Name, Object, SourceDef, TableDef, ViewDef};
use tidewire_types::{ObjectId, Result, SqlError, SqlState, closest};

/// The schema that unqualified names are created in.
pub const PUBLIC: &str = "public";
/// The schema of Tidewire's own tables: `tidewire.sources`, `tidewire.dead_letters`, ..
pub const SYSTEM: &str = "tidewire";
/// The first OID of a user's object, as in PostgreSQL.
pub const FIRST_USER_OID: u32 = 16384;

/// All objects of one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    objects: BTreeMap<ObjectId, Arc<Object>>,
    by_name: BTreeMap<Name, ObjectId>,
    last_oid: u32,
}

impl Catalog {
    /// An OID that was never used.
    pub fn allocate(&mut self) -> ObjectId {
        self.last_oid = self.last_oid.max(FIRST_USER_OID - 1) + 1;
        ObjectId(self.last_oid)
    }

    /// The last OID that was given out.
    pub fn last_oid(&self) -> u32 {
        self.last_oid
    }

    /// Gives out no OID up to this one: it was used before.
    pub fn reserve(&mut self, oid: u32) {
        self.last_oid = self.last_oid.max(oid);
    }

    /// Adds an object. Errors: `42P07` when the name is taken.
    pub fn insert(&mut self, object: Object) -> Result<Arc<Object>> {
        if let Some(present) = self.get(&object.name) {
            return Err(SqlError::new(
                SqlState::DuplicateTable,
                format!("{} \"{}\" already exists", present.kind(), present.name.name),
            ));
        }
        let object = Arc::new(object);
        self.last_oid = self.last_oid.max(object.id.0);
        self.by_name.insert(object.name.clone(), object.id);
        self.objects.insert(object.id, object.clone());
        Ok(object)
    }

    /// Takes an object out; its dependants must be out before.
    pub fn remove(&mut self, id: ObjectId) -> Option<Arc<Object>> {
        let object = self.objects.remove(&id)?;
        self.by_name.remove(&object.name);
        Some(object)
    }

    /// The object of that name.
    pub fn get(&self, name: &Name) -> Option<&Arc<Object>> {
        self.objects.get(self.by_name.get(name)?)
    }

    /// The object with that OID.
    pub fn by_id(&self, id: ObjectId) -> Option<&Arc<Object>> {
        self.objects.get(&id)
    }

    /// The object of that name. Errors: `42P01` with the closest name as hint.
    pub fn resolve(&self, name: &Name) -> Result<&Arc<Object>> {
        self.get(name).ok_or_else(|| {
            let error = SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"));
            let names = self.objects.values().filter(|o| o.name.schema == name.schema).map(|o| o.name.name.as_str());
            match closest(&name.name, names) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                None => error,
            }
        })
    }

    /// All objects, in the order of their creation: an object comes after what it depends on.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects that directly stand on `id`, in the order of their creation.
    pub fn dependants(&self, id: ObjectId) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().filter(move |o| o.depends_on().contains(&id))
    }

    /// The indexes of a relation, in the order of their creation.
    pub fn indexes(&self, relation: ObjectId) -> impl Iterator<Item = (&Arc<Object>, &IndexDef)> {
        self.objects.values().filter_map(move |object| match &object.def {
            Kind::Index(def) if def.relation == relation => Some((object, def)),
            _ => None,
        })
    }

    /// `id` and everything that stands on it, dependants first: the order to drop in.
    pub fn with_dependants(&self, id: ObjectId) -> Vec<ObjectId> {
        let mut found = vec![id];
        // Dependants have higher OIDs than what they stand on, so that one pass in order of creation finds them all.
        for object in self.objects.values() {
            if object.depends_on().iter().any(|d| found.contains(d)) && !found.contains(&object.id) {
                found.push(object.id);
            }
        }
        found.reverse();
        found
    }
}
