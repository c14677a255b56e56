//! Widening: the entries follow their type to a later version of its schema, where they are.
//!
//! A property that was added needs nothing, since what a feature has no value for is null. So it costs a look at each entry only
//! when values change their form, or when a property is to be indexed from now on.

use std::sync::Arc;

use super::TransientIndex;
use super::by_value::ByValue;
use crate::model::FeatureType;

impl TransientIndex {
    /// Makes what is here, of a type that was `from`, suit its later version `to`. Versions, places and positions stay.
    pub fn widen(&mut self, from: &FeatureType, to: &FeatureType) {
        let is_wider = |slot: &usize| from.properties[*slot].kind != to.properties[*slot].kind;
        let wider: Vec<usize> = (0..from.properties.len()).filter(is_wider).collect();
        if !wider.is_empty() {
            for entry in self.slots.iter_mut().flatten() {
                let before = entry.heap_bytes();
                let Some(base) = &mut entry.base else { continue };
                if let Some(tail) = &mut entry.tail {
                    tail.take_whole(base);
                }
                let feature = Arc::make_mut(base);
                for slot in &wider {
                    if let Some(value) = feature.properties.get_mut(*slot) {
                        *value = std::mem::take(value).widened(to.properties[*slot].kind);
                    }
                }
                self.bytes = self.bytes + entry.heap_bytes() - before;
            }
        }
        self.widen_kept(&|slot, value| {
            if wider.contains(&slot) {
                *value = std::mem::take(value).widened(to.properties[slot].kind);
            }
        });
        let mut kept = std::mem::take(&mut self.by_value);
        kept.retain(|(slot, _)| !wider.contains(slot));
        for slot in (0..to.properties.len()).filter(|slot| to.properties[*slot].index) {
            let index = match kept.iter().position(|(s, _)| *s == slot) {
                Some(at) => kept.swap_remove(at).1,
                None => self.index_of(slot),
            };
            self.by_value.push((slot, index));
        }
    }

    /// The index of a property, of all that is here.
    fn index_of(&self, property: usize) -> ByValue {
        let mut index = ByValue::default();
        for (slot, entry) in (0..).zip(&self.slots) {
            if let Some(feature) = entry.as_ref().and_then(|e| e.base.as_deref()) {
                index.replace(None, Some(feature.value(property)), slot);
            }
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxHashMap;

    use super::*;
    use crate::model::geometry::Coord;
    use crate::model::{Append, Change, Feature, Patch, Persisted, Property, PropertyType, Value};
    use crate::query::{CompareOp, Filter, Operand};
    use crate::transient::{Known, Step};

    #[test]
    fn entries_follow_their_type() {
        let from: FeatureType = serde_json::from_str(
            r#"{"name":"t","schema_version":1,"track":{},"geometry":{"type":"LineString","dimension":"XYM"},
                "properties":[{"name":"n","type":"int32","index":true},{"name":"m","type":"int32"}]}"#,
        )
        .unwrap();
        let mut index = TransientIndex::new(&from, &[0]);
        let step = |offset| Step { partition: 0, offset, since: offset, time_ms: 0 };
        let fix = |m| Coord { x: 1.0, y: 2.0, z: 0.0, m };
        let append = |m, n| Change::Append(Append { id: "a".into(), fixes: vec![fix(m)], properties: vec![(0, n)] });
        index.apply(step(0), &[append(1.0, Value::Int(4))], &FxHashMap::default());
        index.apply(step(1), &[append(2.0, Value::Int(5)), Change::Delete("gone".into())], &FxHashMap::default());
        let b = Feature { id: "b".into(), geometry: None, properties: vec![Value::Int(5)] };
        index.apply(step(2), &[Change::Put(Arc::new(b))], &FxHashMap::default());
        let kept = Patch { id: "c".into(), geometry: None, properties: vec![(0, Value::Int(6))] };
        let away = FxHashMap::from_iter([("c".into(), Known::Away)]);
        index.apply(step(3), &[Change::Patch(kept)], &away);
        // Put together for a reader, and kept.
        let before = index.get("a").unwrap().feature().unwrap();

        let mut to = from.clone();
        to.properties[0].kind = PropertyType::Number;
        to.properties[1].index = true;
        to.properties.push(Property { name: "new".into(), ..to.properties[1].clone() });
        index.widen(&from, &to);

        let a = index.get("a").unwrap().feature().unwrap();
        assert_eq!((a.value(0), before.value(0)), (&Value::Number(5.0), &Value::Int(5)));
        assert_eq!(a.geometry, before.geometry);
        assert_eq!(index.get("a").unwrap().version, 1);
        let found = |property, v: Value| {
            let (left, right) = (Operand::Property(property), Operand::Literal(v));
            let filter = Filter::Compare { op: CompareOp::Equal, left, right, match_case: true };
            assert!(index.equality(&filter).is_some(), "property {property} is indexed");
            index.select(&filter).len()
        };
        assert_eq!((found(0, Value::Number(5.0)), found(1, Value::Int(5)), found(2, Value::Int(5))), (2, 0, 0));
        assert_eq!(index.by_value[1].1.equal_to(&Value::Null).count(), 2);
        let c = Feature { id: "c".into(), geometry: None, properties: vec![Value::Number(1.0)] };
        let known = FxHashMap::from_iter([("c".into(), Known::Row(Arc::new(c), None, 0))]);
        index.resolve(&index.unresolved(1), &known);
        assert_eq!(index.get("c").unwrap().feature().unwrap().value(0), &Value::Number(6.0));
        index.apply_persisted(0, 4, &Persisted { durable_through: 4, evict_through: 4, except: Vec::new() });
        assert!(index.is_empty() && index.bytes() < 1_000, "{} bytes", index.bytes());
        assert!(index.by_value.iter().all(|(_, values)| values.equal_to(&Value::Null).count() == 0));
    }
}
