//! How a feature type may change while it is used: so that every record of its log and every row of its table that was written
//! before reads as it did, and no instance has to stop.
//!
//! Invariant: a property keeps its id, its name and every value that it has had.

use super::{FeatureType, Property, SchemaError};

/// The keys of a declaration that may change.
const MAY_CHANGE: &[&str] =
    &["title", "description", "expiry", "max_dirty", "default_limit", "max_limit", "decimals", "properties"];

impl FeatureType {
    /// The next version of this type, as `declared`; this one where there is no difference. Properties are told by their names,
    /// in any order: new ones, which must be nullable, go to the end; one that is there may become nullable, wider (int32 to int64
    /// or number), indexed or not, and have another title. The error names the property or setting that may not change so.
    pub fn changed_to(&self, declared: &FeatureType) -> Result<FeatureType, SchemaError> {
        self.check_fixed(declared)?;
        let mut next = FeatureType { properties: self.properties.clone(), ..declared.clone() };
        for old in &mut next.properties {
            let Some((_, new)) = declared.property(&old.name) else {
                let what = format!("property '{}' cannot be removed: features have values for it", old.name);
                return Err(SchemaError::new(format!("properties.{}", old.name), what));
            };
            old.check_change(new)?;
            *old = new.clone();
        }
        for new in declared.properties.iter().filter(|p| self.property(&p.name).is_none()) {
            if !new.nullable {
                let what =
                    format!("property '{}' must be nullable: the features that are there have no value", new.name);
                return Err(SchemaError::new(format!("properties.{}.nullable", new.name), what));
            }
            next.properties.push(new.clone());
        }
        if next != *self {
            next.schema_version += 1;
            next.check_declaration()?;
        }
        Ok(next)
    }

    /// This declaration with what `known` has come to since it was written: properties that were added, made wider or nullable.
    /// What is in use does not become less because a file is old.
    pub fn caught_up_with(mut self, known: &FeatureType) -> FeatureType {
        (self.incarnation, self.schema_version) = (known.incarnation.clone(), known.schema_version);
        for property in &known.properties {
            match self.properties.iter_mut().find(|p| p.name == property.name) {
                None => self.properties.push(property.clone()),
                Some(declared) => {
                    declared.nullable |= property.nullable;
                    if declared.kind.widens_to(property.kind) {
                        declared.kind = property.kind;
                    }
                }
            }
        }
        self
    }

    fn check_fixed(&self, declared: &FeatureType) -> Result<(), SchemaError> {
        let json = |t: &FeatureType| serde_json::to_value(t).map_err(|e| SchemaError::new("name", e.to_string()));
        let (known, declared) = (json(self)?, json(declared)?);
        let keys = |json: &serde_json::Value| json.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
        let keys = keys(&known).into_iter().chain(keys(&declared)).flatten();
        match keys.into_iter().find(|key| !MAY_CHANGE.contains(&key.as_str()) && known.get(key) != declared.get(key)) {
            None => Ok(()),
            Some(key) => {
                let show = |v: Option<&serde_json::Value>| v.map_or_else(|| "not set".to_owned(), ToString::to_string);
                let (is, asked) = (show(known.get(&key)), show(declared.get(&key)));
                let what = format!("{key} of feature type '{}' is {is} and cannot become {asked}", self.name);
                Err(SchemaError::new(key, what))
            }
        }
    }
}

impl Property {
    fn check_change(&self, new: &Property) -> Result<(), SchemaError> {
        let name = &self.name;
        if self.kind != new.kind && !self.kind.widens_to(new.kind) {
            let (is, asked) = (self.kind.name(), new.kind.name());
            let what = format!(
                "property '{name}' is of type {is} and cannot become {asked}: int32 can become int64 or number"
            );
            return Err(SchemaError::new(format!("properties.{name}.type"), what));
        }
        if self.nullable && !new.nullable {
            let what = format!("property '{name}' cannot cease to be nullable: there may be nulls");
            return Err(SchemaError::new(format!("properties.{name}.nullable"), what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::PropertyType;

    fn ships() -> FeatureType {
        serde_json::from_value(json!({
            "name": "ships", "geometry": {"type": "Point"}, "incarnation": "i", "schema_version": 4,
            "properties": [{"name": "n", "type": "int32", "nullable": false}, {"name": "name", "type": "string"}],
        }))
        .unwrap()
    }

    /// The ships' declaration with `value` at `pointer`.
    fn with(pointer: &str, value: Value) -> FeatureType {
        let mut json = serde_json::to_value(ships()).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match json.pointer_mut(parent).unwrap() {
            Value::Array(list) => list.insert(key.parse().unwrap(), value),
            parent => parent[key] = value,
        }
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_may_change_does() {
        assert_eq!(ships().changed_to(&ships()), Ok(ships()));
        for (pointer, value) in [
            ("/title", json!("Ships")),
            ("/expiry", json!("never")),
            ("/max_dirty", json!(5)),
            ("/decimals", json!(7)),
            ("/default_limit", json!(7)),
            ("/max_limit", json!(7)),
            ("/properties/0/type", json!("int64")),
            ("/properties/0/type", json!("number")),
            ("/properties/0/nullable", json!(true)),
            ("/properties/1/index", json!(true)),
            ("/properties/1/title", json!("Name")),
        ] {
            let declared = with(pointer, value);
            let expected = FeatureType { schema_version: 5, ..declared.clone() };
            assert_eq!(ships().changed_to(&declared), Ok(expected), "{pointer}");
        }
        // Wherever it is declared, a new property goes to the end: the ids of the others stay.
        let next = ships().changed_to(&with("/properties/0", json!({"name": "draught", "type": "number"}))).unwrap();
        assert_eq!(next.properties.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["n", "name", "draught"]);
    }

    #[test]
    fn what_may_not_is_named() {
        let mut less = ships();
        less.properties.pop();
        let refused = |declared: &FeatureType, locator: &str| {
            let error = ships().changed_to(declared).unwrap_err();
            assert_eq!(error.locator, locator, "{error}");
        };
        refused(&less, "properties.name");
        refused(
            &with("/properties/2", json!({"name": "d", "type": "date", "nullable": false})),
            "properties.d.nullable",
        );
        refused(&with("/properties/1/nullable", json!(false)), "properties.name.nullable");
        refused(&with("/properties/2", json!({"name": "NAME", "type": "date"})), "properties.2.name");
        for wrong in ["string", "boolean", "date-time", "json"] {
            refused(&with("/properties/0/type", json!(wrong)), "properties.n.type");
        }
        refused(&with("/properties/1/type", json!("int32")), "properties.name.type");
        refused(&with("/geometry/type", json!("LineString")), "geometry");
        refused(&with("/geometry/epsg", json!(3857)), "geometry");
        refused(&with("/partitions", json!(2)), "partitions");
        refused(&with("/persist", json!(false)), "persist");
        refused(&with("/name", json!("boats")), "name");
        refused(&with("/schema_version", json!(9)), "schema_version");
        refused(&with("/max_dirty", json!(0)), "max_dirty");
    }

    #[test]
    fn an_old_declaration_takes_nothing_away() {
        let mut known = ships().changed_to(&with("/properties/2", json!({"name": "d", "type": "date"}))).unwrap();
        known.properties[0] = Property { kind: PropertyType::Number, nullable: true, ..known.properties[0].clone() };
        let old = FeatureType { incarnation: String::new(), schema_version: 0, ..ships() };
        assert_eq!(known.changed_to(&old.clone().caught_up_with(&known)), Ok(known.clone()));
        let newer = FeatureType { title: "New".into(), ..old };
        assert_eq!(known.changed_to(&newer.caught_up_with(&known)).unwrap().title, "New");
    }
}
