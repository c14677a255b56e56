//! From a Transaction document to actions on the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::Dialect;
use crate::format::gml::{Axes, PropertyValue, read_feature, read_property, resolve_rid};
use crate::format::xml::{Element, Reader};
use crate::model::feature::check_id;
use crate::model::{Dimension, Feature, FeatureId, FeatureType, Value, no_id};
use crate::query::fes::{self, Reference};
use crate::query::{Filter, Query};
use crate::store::api::{Action, ActionKind, Existing, FeatureChanges, Release, UnderLock};
use crate::web::access::Role;
use crate::web::wfs::exception::{Code, Exception, Result};
use crate::web::wfs::query::axes;
use crate::web::wfs::{Ask, Version};

/// Features that are read between two breaths: other requests get their turn.
const BREATH: usize = 256;

/// The actions of a document, in its order.
#[derive(Default)]
pub struct Parsed {
    pub actions: Vec<Action>,
    /// One of each action.
    pub labels: Vec<Label>,
    pub lock: Option<UnderLock>,
}

/// What the request says of an action besides what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    pub handle: Option<String>,
    /// Of an Insert.
    pub ids: IdGen,
}

/// Where the ids of inserted features come from: `idgen` (WFS 1.1, 12.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdGen {
    /// They are made here.
    #[default]
    GenerateNew,
    /// The features bring them, and none of them may be taken.
    UseExisting,
    /// Features that bring `{type}.{key}` keep it where it is free. This is how documents of 2.0 are taken, whose schema
    /// demands a `gml:id` of every feature: one of another form is there for the schema's sake.
    ReplaceDuplicate,
}

/// Reads the actions under `root`.
pub async fn read(ask: &Ask, root: &Element, reader: &mut Reader<'_>, dialect: Dialect) -> Result<Parsed> {
    let mut parser =
        Parser { ask, dialect, srs_name: srs_name(root), types: BTreeMap::new(), parsed: Parsed::default() };
    parser.lock(root.attribute("lockId").unwrap_or_default());
    let release = release(root.attribute("releaseAction"))?;
    let mut read = 0;
    while let Some(mut element) = reader.next_child()? {
        if &*element.local == "Insert" {
            let insert = parser.insert(&element)?;
            while let Some(mut feature) = reader.next_child()? {
                reader.finish(&mut feature)?;
                parser.inserted(&insert, &feature)?;
                breathe(&mut read).await;
            }
        } else {
            reader.finish(&mut element)?;
            parser.action(&element)?;
        }
        breathe(&mut read).await;
    }
    reader.end()?;
    let mut parsed = parser.parsed;
    parsed.lock.iter_mut().for_each(|lock| lock.release = release);
    replace_duplicates(ask, &mut parsed).await?;
    Ok(parsed)
}

/// New ids for the inserted features whose own are taken, where that is asked for.
async fn replace_duplicates(ask: &Ask, parsed: &mut Parsed) -> Result<()> {
    let mut brought: BTreeMap<String, Vec<&mut Feature>> = BTreeMap::new();
    for (action, label) in parsed.actions.iter_mut().zip(&parsed.labels) {
        if label.ids == IdGen::ReplaceDuplicate
            && let ActionKind::Insert { features, existing: Existing::Refuse } = &mut action.kind
        {
            brought.entry(action.feature_type.clone()).or_default().extend(features);
        }
    }
    for (feature_type, features) in brought {
        let filter = Filter::ids(features.iter().map(|f| f.id.clone()));
        let query = Query { feature_type, filter, any_order: true, at_least: ask.at_least.clone(), ..Query::default() };
        let found = ask.web.store.read(query).await?.all().await?;
        let mut taken: FxHashSet<_> = found.into_iter().map(|item| item.feature.id.clone()).collect();
        for feature in features {
            if !taken.insert(feature.id.clone()) {
                feature.id = no_id();
            }
        }
    }
    Ok(())
}

async fn breathe(read: &mut usize) {
    *read += 1;
    if read.is_multiple_of(BREATH) {
        tokio::task::yield_now().await;
    }
}

fn release(action: Option<&str>) -> Result<Release> {
    match action.map(str::trim) {
        None | Some("ALL") => Ok(Release::All),
        Some("SOME") => Ok(Release::Touched),
        Some(other) => {
            let text = format!("releaseAction: '{other}' is not one of ALL, SOME");
            Err(Exception::invalid("releaseAction", text))
        }
    }
}

fn srs_name(e: &Element) -> Option<String> {
    e.attribute("srsName").map(str::to_owned).filter(|s| !s.trim().is_empty())
}

struct Parser<'a> {
    ask: &'a Ask,
    dialect: Dialect,
    /// Of the whole document.
    srs_name: Option<String>,
    /// The types met, which the caller may write.
    types: BTreeMap<String, Arc<FeatureType>>,
    parsed: Parsed,
}

/// The attributes of an `Insert`.
struct Insert {
    handle: Option<String>,
    srs_name: Option<String>,
    ids: IdGen,
}

impl Parser<'_> {
    fn feature_type(&mut self, qname: &str) -> Result<Arc<FeatureType>> {
        if let Some(known) = self.types.get(qname) {
            return Ok(known.clone());
        }
        let ft = self.ask.feature_type(qname)?;
        self.ask.caller.may(Role::Editor, Some(&ft.name))?;
        self.types.insert(qname.to_owned(), ft.clone());
        Ok(ft)
    }

    fn lock(&mut self, id: &str) {
        if !id.trim().is_empty() {
            self.parsed.lock = Some(UnderLock { id: id.trim().to_owned(), release: Release::All });
        }
    }

    fn axes(&self, ft: &FeatureType, srs_name: Option<&String>) -> Result<Axes> {
        let mut axes = axes(ft, self.dialect.version);
        if let Some(name) = srs_name.or(self.srs_name.as_ref()) {
            axes.default = axes.parse(name).map_err(|e| Exception::invalid("srsName", e))?;
        }
        Ok(axes)
    }

    fn push(&mut self, e: &Element, ft: &FeatureType, kind: ActionKind) {
        self.parsed.actions.push(Action { feature_type: ft.name.clone(), kind });
        self.parsed.labels.push(Label { handle: e.attribute("handle").map(str::to_owned), ids: IdGen::default() });
    }

    fn insert(&self, e: &Element) -> Result<Insert> {
        let ids = match e.attribute("idgen") {
            None if self.dialect.version == Version::V2_0 => IdGen::ReplaceDuplicate,
            None | Some("GenerateNew") => IdGen::GenerateNew,
            Some("UseExisting") => IdGen::UseExisting,
            Some("ReplaceDuplicate") => IdGen::ReplaceDuplicate,
            Some(other) => {
                return Err(Exception::new(
                    Code::OptionNotSupported,
                    "idgen",
                    format!("idgen '{other}' is not supported"),
                ));
            }
        };
        Ok(Insert { handle: e.attribute("handle").map(str::to_owned), srs_name: srs_name(e), ids })
    }

    fn inserted(&mut self, insert: &Insert, e: &Element) -> Result<()> {
        // A type that is not known is a wrong value here, not a wrong parameter (WFS 2.0, table 3).
        let ft = self.feature_type(&e.local).map_err(|error| match error.code() {
            Code::InvalidParameterValue => Exception::new(Code::InvalidValue, &*e.local, error.text()),
            _ => error,
        })?;
        let axes = self.axes(&ft, insert.srs_name.as_ref())?;
        let (geometry, properties) = read_feature(e, &ft, &axes)?;
        let (id, existing) = match insert.ids {
            IdGen::GenerateNew => (no_id(), Existing::Replace),
            IdGen::UseExisting => (existing_id(e, &ft)?, Existing::Refuse),
            IdGen::ReplaceDuplicate if brings_id(e, &ft) => (existing_id(e, &ft)?, Existing::Refuse),
            IdGen::ReplaceDuplicate => (no_id(), Existing::Replace),
        };
        let feature = Feature { id, geometry, properties };
        let label = Label { handle: insert.handle.clone(), ids: insert.ids };
        // Many clients send an Insert for each feature: what can be one action becomes one.
        if let (Some(Action { feature_type, kind: ActionKind::Insert { features, existing: before } }), Some(last)) =
            (self.parsed.actions.last_mut(), self.parsed.labels.last())
            && (&*feature_type, *before, last) == (&ft.name, existing, &label)
        {
            features.push(feature);
            return Ok(());
        }
        let kind = ActionKind::Insert { features: vec![feature], existing };
        self.parsed.actions.push(Action { feature_type: ft.name.clone(), kind });
        self.parsed.labels.push(label);
        Ok(())
    }

    fn action(&mut self, e: &Element) -> Result<()> {
        match &*e.local {
            "Update" => self.update(e),
            "Delete" => self.delete(e),
            "Replace" => self.replace(e),
            // As before 2.0.
            "LockId" => {
                self.lock(e.trimmed());
                Ok(())
            }
            "Native" if e.attribute("safeToIgnore").is_some_and(|v| matches!(v.trim(), "true" | "1")) => Ok(()),
            "Native" => Err(Exception::invalid("Native", "this vendor's action is not known here")),
            other => Err(e.error(format!("'{other}' is not an action")).into()),
        }
    }

    /// The type that an Update or Delete names.
    fn named_type(&mut self, e: &Element) -> Result<Arc<FeatureType>> {
        let name = e.attribute("typeName").filter(|n| !n.trim().is_empty());
        self.feature_type(name.ok_or_else(|| Exception::missing("typeName"))?)
    }

    fn filter(&self, e: &Element, ft: &FeatureType) -> Result<Option<Filter>> {
        let Some(filter) = e.child("Filter") else { return Ok(None) };
        let axes = self.axes(ft, srs_name(e).as_ref())?;
        let is_type = |name: &str| self.ask.is_type(name);
        let context = fes::Context { ft, axes: &axes, is_type: &is_type };
        Ok(Some(fes::parse_filter(filter, &context)?))
    }

    fn delete(&mut self, e: &Element) -> Result<()> {
        let ft = self.named_type(e)?;
        let filter = self.filter(e, &ft)?.ok_or_else(|| Exception::missing("Filter"))?;
        self.push(e, &ft, ActionKind::Delete { filter });
        Ok(())
    }

    fn update(&mut self, e: &Element) -> Result<()> {
        let ft = self.named_type(e)?;
        let axes = self.axes(&ft, srs_name(e).as_ref())?;
        let filter = self.filter(e, &ft)?.unwrap_or(Filter::All);
        let mut changes = FeatureChanges::default();
        for property in e.children_named("Property") {
            self.changed(property, &ft, &axes, &mut changes)?;
        }
        if changes == FeatureChanges::default() {
            return Err(Exception::missing("Property"));
        }
        self.push(e, &ft, ActionKind::Update { filter, changes });
        Ok(())
    }

    fn changed(&self, property: &Element, ft: &FeatureType, axes: &Axes, changes: &mut FeatureChanges) -> Result<()> {
        let name = property.child("ValueReference").or(property.child("Name"));
        let name = name.ok_or_else(|| Exception::missing("ValueReference"))?;
        let slot = match fes::resolve_reference(name.trimmed(), ft)? {
            Reference::Property(slot) => Some(slot),
            Reference::Geometry => None,
            Reference::Id | Reference::BoundedBy => {
                let text = format!("'{}' cannot be updated", name.trimmed());
                return Err(Exception::new(Code::InvalidValue, name.trimmed(), text));
            }
            Reference::Standard => {
                let text = format!("feature type '{}' has no property to keep '{}' in", ft.name, name.trimmed());
                return Err(Exception::new(Code::InvalidValue, name.trimmed(), text));
            }
        };
        let removed = match name.attribute("action") {
            None | Some("replace") => false,
            Some("remove") => true,
            Some(other) => {
                let text = format!("the action '{other}' is not supported: a property has one value");
                return Err(Exception::new(Code::OptionNotSupported, "action", text));
            }
        };
        // No value and one without content are null, for text too: most clients can say null in no other way.
        let value = match property.child("Value").filter(|_| !removed) {
            Some(value) => read_property(value, ft, slot, axes, Value::Null)?,
            None => slot.map_or(PropertyValue::Geometry(None), |slot| PropertyValue::Property(slot, Value::Null)),
        };
        match value {
            PropertyValue::Geometry(None) if self.may_be_a_lost_geometry(ft) => Err(Exception::new(
                Code::InvalidValue,
                name.trimmed(),
                "the update has no geometry: QGIS cannot send one with Z or M; it was refused, lest it be wiped",
            )),
            PropertyValue::Geometry(geometry) => {
                changes.geometry = Some(geometry);
                Ok(())
            }
            PropertyValue::Property(slot, value) => {
                changes.properties.retain(|(earlier, _)| *earlier != slot);
                changes.properties.push((slot, value));
                Ok(())
            }
        }
    }

    /// QGIS writes nothing in place of a geometry with Z or M, in the dialects that it speaks.
    fn may_be_a_lost_geometry(&self, ft: &FeatureType) -> bool {
        self.dialect.version != Version::V2_0 && ft.geometry.is_some_and(|g| g.dimension != Dimension::XY)
    }

    fn replace(&mut self, e: &Element) -> Result<()> {
        let mut features = e.children.iter().filter(|c| &*c.local != "Filter");
        let (Some(feature), None) = (features.next(), features.next()) else {
            return Err(e.error("a Replace has one feature and a Filter").into());
        };
        let ft = self.feature_type(&feature.local)?;
        let axes = self.axes(&ft, srs_name(e).as_ref())?;
        let filter = self.filter(e, &ft)?.ok_or_else(|| Exception::missing("Filter"))?;
        let (geometry, properties) = read_feature(feature, &ft, &axes)?;
        // Its id is that of the feature it replaces.
        let feature = Feature { id: no_id(), geometry, properties };
        self.push(e, &ft, ActionKind::Replace { filter, feature });
        Ok(())
    }
}

fn own_id(e: &Element) -> Option<&str> {
    e.attribute("id").or(e.attribute("fid"))
}

fn brings_id(e: &Element, ft: &FeatureType) -> bool {
    own_id(e).and_then(|id| id.strip_prefix(&ft.name)).is_some_and(|rest| rest.starts_with('.'))
}

/// The id that a feature element brings.
fn existing_id(e: &Element, ft: &FeatureType) -> Result<FeatureId> {
    let wrong = |text: String| Exception::new(Code::InvalidValue, "gml:id", format!("line {}: {text}", e.line));
    let rid = own_id(e).ok_or_else(|| wrong("idgen is UseExisting and the feature has no id".into()))?;
    let id = resolve_rid(rid, &ft.name, |_| false).unwrap_or_else(|| rid.into());
    check_id(&id).map_err(|e| wrong(e.to_string()))
}
