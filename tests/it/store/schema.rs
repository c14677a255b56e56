//! Feature types that change while they are used, and programs of two versions side by side.

use std::ops::Range;

use alluvium::coordination::fair_owner;
use alluvium::delegate::Base;
use alluvium::format::record::{self, RecordError};
use alluvium::log::{Batch, LogError, LogTail};
use alluvium::model::geometry::Coord;
use alluvium::model::{Append, FeatureId, PartitionId, Property, PropertyType, SchemaError};
use alluvium::store::ReadError;
use async_trait::async_trait;

use super::*;

on_each_stack! {
    a_type_changes_while_it_is_used,
    an_instance_that_lags_behind_a_change_loses_nothing,
    a_table_follows_what_its_type_became,
    an_older_program_stops_where_it_cannot_read,
    what_is_derived_is_of_its_records_version,
}

/// Ships with a number of 32 bits.
fn counted(expiry: f64) -> FeatureType {
    let mut ft = ships(expiry);
    ft.properties[1] =
        Property { name: "n".into(), kind: PropertyType::Int32, index: true, ..ft.properties[1].clone() };
    ft
}

fn counted_ship(id: &str, n: Value) -> Feature {
    Feature { properties: vec![Value::String(id.into()), n], ..ship(id, 1.0, "") }
}

/// The number becomes wider, and there is one more property.
fn wider(ft: &FeatureType) -> Result<FeatureType, SchemaError> {
    let mut next = ft.clone();
    next.properties[1].kind = PropertyType::Number;
    let draught = Property { name: "draught".into(), kind: PropertyType::Int64, ..ft.properties[1].clone() };
    next.properties.push(draught);
    Ok(next)
}

fn set(ft: &FeatureType, id: &str, slot: usize, value: Value) -> Action {
    let changes = FeatureChanges { geometry: None, properties: vec![(slot, value)] };
    Action { feature_type: ft.name.clone(), kind: ActionKind::Update { filter: by_id(id), changes } }
}

/// Id, number and draught of all, from a position on.
async fn told(store: &Store, ft: &FeatureType, at_least: Position) -> Result<Vec<(String, Value, Value)>, ReadError> {
    let items = store.read(Query { at_least, ..query(ft, Filter::All) }).await?.all().await?;
    let tell = |i: Item| (i.feature.id.to_string(), i.feature.value(1).clone(), i.feature.value(2).clone());
    Ok(items.into_iter().map(tell).collect())
}

async fn a_type_changes_while_it_is_used(world: World) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(counted(0.3)).await.unwrap();
    until("known", || async { two.feature_type(&ft.name).is_some() }).await;
    let old = ["a", "b"].map(|id| counted_ship(id, Value::Int(7))).to_vec();
    write(&one, vec![insert(&ft, old, Existing::Replace)]).await.unwrap();
    all_aged(&one, &ft).await;
    // In the log of the old schema, and young.
    let written = write(&two, vec![set(&ft, "b", 1, Value::Int(8))]).await.unwrap();
    let ends = std::sync::atomic::AtomicBool::new(false);
    let reading = async |store: &Store| {
        let mut reads = 0;
        while !ends.load(std::sync::atomic::Ordering::Relaxed) {
            let seen = told(store, &ft, Position::default()).await.expect("reads go on");
            assert_eq!(seen.iter().map(|s| &s.0[..]).collect::<Vec<_>>()[..2], ["a", "b"]);
            assert!(seen[0].1.compare(&Value::Int(7)).is_some_and(|o| o.is_eq()), "{seen:?}");
            reads += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        reads
    };
    let changing = async {
        told(&one, &ft, written.position.clone()).await.unwrap();
        let next = one.change_feature_type(&ft.name, wider).await.unwrap();
        assert_eq!((next.schema_version, next.properties.len()), (2, 3));
        // At once on this instance, and soon on the other, whose writes meanwhile are of the old schema.
        let new =
            Feature { properties: vec![Value::Null, Value::Number(0.5), Value::Int(1 << 40)], ..ship("c", 1.0, "") };
        let on_one = write(&one, vec![insert(&ft, vec![new], Existing::Replace)]).await.unwrap();
        let on_two = write(&two, vec![insert(&ft, vec![counted_ship("d", Value::Int(9))], Existing::Replace)]).await;
        let mut position = on_two.as_ref().map_or_else(|e| panic!("{e}"), |w| w.position.clone());
        position.merge(&on_one.position);
        let number = Value::Number;
        let expected = [
            ("a".into(), number(7.0), Value::Null),
            ("b".into(), number(8.0), Value::Null),
            ("c".into(), number(0.5), Value::Int(1 << 40)),
            ("d".into(), number(9.0), Value::Null),
        ];
        for store in [&one, &two] {
            assert_eq!(told(store, &ft, position.clone()).await.unwrap(), expected);
            assert_eq!(store.feature_type(&ft.name).unwrap(), next);
            assert_eq!(ids(store, query(&ft, speed_is(8.0))).await, ["b"]);
        }
        // One that starts now reads both kinds of records, and rows; and all of it ages.
        let three = world.instance("three").await;
        assert_eq!(told(&three, &ft, position.clone()).await.unwrap(), expected);
        all_aged(&three, &ft).await;
        for store in [&one, &two, &three] {
            assert_eq!(told(store, &ft, position.clone()).await.unwrap(), expected);
        }
        let patched = write(&two, vec![set(&ft, "a", 2, Value::Int(3))]).await.unwrap();
        assert_eq!(told(&three, &ft, patched.position).await.unwrap()[0], ("a".into(), number(7.0), Value::Int(3)));
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (on_one, on_two, ()) = tokio::join!(reading(&one), reading(&two), changing);
    assert!(on_one > 1 && on_two > 1, "{on_one} and {on_two} reads");
    // Once is enough, and what may not be changed is not.
    assert_eq!(one.change_feature_type(&ft.name, |known| Ok(known.clone())).await.unwrap().schema_version, 2);
    let narrower = |known: &FeatureType| {
        let mut narrower = known.clone();
        narrower.properties[1].kind = PropertyType::Int32;
        Ok(narrower)
    };
    let narrow = one.change_feature_type(&ft.name, narrower).await;
    assert!(matches!(narrow, Err(CatalogueError::Invalid(e)) if e.locator == "properties.n.type"));
}

/// It sees the catalogue when it makes a type, and else not.
async fn blind(world: &World) -> Arc<Store> {
    let settings = Settings {
        sweep_interval: Duration::from_millis(50),
        catalogue_interval: Duration::from_secs(3600),
        apply_wait: Duration::from_millis(200),
        read_wait: Duration::from_millis(200),
        ..Settings::default()
    };
    let store = Store::start(world.parts("blind").await, settings, Vec::new()).await.unwrap();
    until("ready", || async { store.is_ready() }).await;
    store
}

async fn an_instance_that_lags_behind_a_change_loses_nothing(world: World) {
    let one = world.instance("one").await;
    let members = ["blind", "one"].map(String::from);
    let ft = loop {
        let ft = one.create_feature_type(counted(0.2)).await.unwrap();
        // The one that sweeps is not the one that lags.
        if fair_owner(&members, &format!("{}.0", ft.log_name())) == Some("one") {
            break ft;
        }
    };
    let blind = blind(&world).await;
    write(&one, vec![insert(&ft, vec![counted_ship("a", Value::Int(1))], Existing::Replace)]).await.unwrap();
    until("followed", || async { told(&blind, &ft, Position::default()).await.is_ok_and(|t| t.len() == 1) }).await;

    let next = one.change_feature_type(&ft.name, wider).await.unwrap();
    let written = write(&one, vec![set(&ft, "a", 2, Value::Int(5))]).await.unwrap();
    all_aged(&one, &ft).await;
    // What the delegate shows now it cannot tell right from wrong.
    assert!(matches!(told(&blind, &ft, Position::default()).await, Err(ReadError::Unavailable(_))));
    let put = vec![counted_ship("b", Value::Int(2))];
    let late = write(&blind, vec![insert(&ft, put, Existing::Replace)]).await.unwrap();
    assert!(!late.applied, "a record behind one that it cannot read");
    assert_eq!(told(&one, &ft, late.position.clone()).await.unwrap()[1], ("b".into(), Value::Number(2.0), Value::Null));
    // It sweeps alone, and gets nowhere.
    one.shutdown().await;
    drop(one);
    until("the owner", || async { blind.status().iter().any(|p| p.feature_type == ft.name && p.owner) }).await;
    let failed = || blind.status().iter().map(|p| p.last_error.clone().unwrap_or_default()).collect::<String>();
    until("told", || async { failed().contains("schema version 2") }).await;
    let delegate = world.parts("nobody").await.delegate;
    let rows = async || delegate.load(&next, &["a".into(), "b".into()]).await.unwrap().bases;
    let draught = |base: &Option<Base>| match base {
        Some(Base::Row(row)) => row.feature.value(2).clone(),
        _ => Value::Null,
    };
    assert_eq!(draught(&rows().await[0]), Value::Int(5));

    blind.create_feature_type(counted(1.0)).await.unwrap();
    let expected = [("a", Value::Number(1.0), Value::Int(5)), ("b", Value::Number(2.0), Value::Null)];
    let expected = expected.map(|(id, n, draught)| (id.to_owned(), n, draught));
    let reached = || async { told(&blind, &ft, late.position.clone()).await.is_ok_and(|seen| seen == expected) };
    until("seen", reached).await;
    all_aged(&blind, &ft).await;
    assert_eq!(told(&blind, &ft, written.position).await.unwrap(), expected);
    let rows = rows().await;
    assert!(matches!(&rows[1], Some(Base::Row(_))) && draught(&rows[0]) == Value::Int(5), "{rows:?}");
}

async fn a_table_follows_what_its_type_became(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(counted(0.2)).await.unwrap();
    store.change_feature_type(&ft.name, wider).await.unwrap();
    let full = Feature { properties: vec![Value::Null, Value::Number(0.5), Value::Int(4)], ..ship("a", 1.0, "") };
    write(&store, vec![insert(&ft, vec![full.clone()], Existing::Replace)]).await.unwrap();
    all_aged(&store, &ft).await;
    store.shutdown().await;
    drop(store);
    // The file of settings may be older than the catalogue, or newer.
    let declared = |declared: FeatureType| async {
        let name = declared.name.clone();
        let store = Store::start(world.parts("two").await, Settings::default(), vec![declared]).await?;
        until("ready", || async { store.is_ready() }).await;
        let (ft, items) = (store.feature_type(&name).unwrap(), items(&store, query(&ft, Filter::All)).await);
        store.shutdown().await;
        Ok::<_, CatalogueError>(((*ft).clone(), items))
    };
    let old = FeatureType { name: ft.name.clone(), ..counted(7.0) };
    let (known, items) = declared(old.clone()).await.unwrap();
    assert_eq!((known.properties.len(), known.expiry, &*items[0].feature), (3, old.expiry, &full));
    let mut newer = old.clone();
    newer
        .properties
        .insert(0, Property { name: "flag".into(), kind: PropertyType::String, ..old.properties[0].clone() });
    let (known, items) = declared(newer).await.unwrap();
    let names: Vec<&str> = known.properties.iter().map(|p| p.name.as_str()).collect();
    assert_eq!((&names[..], items[0].feature.value(2)), (&["name", "n", "draught", "flag"][..], &Value::Int(4)));
    let other = declared(FeatureType { partitions: 2, ..old }).await.unwrap_err();
    assert!(other.to_string().contains("partitions"), "{other}");
}

/// The log as a program reads it that was made before records of the second format were: of a version that it does not know.
struct BeforeVersion2(Arc<dyn FeatureLog>);

#[async_trait]
impl FeatureLog for BeforeVersion2 {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        self.0.create(name, partitions).await
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        self.0.remove(name).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        self.0.append(records).await
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.0.range(name, partition).await
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        Ok(Box::new(TailBeforeVersion2(self.0.tail(name, partition, from).await?)))
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        self.0.cut(name, partition, before).await
    }

    fn max_value_bytes(&self) -> usize {
        self.0.max_value_bytes()
    }
}

struct TailBeforeVersion2(Box<dyn LogTail>);

#[async_trait]
impl LogTail for TailBeforeVersion2 {
    async fn next(&mut self) -> Result<Batch, LogError> {
        let mut batch = self.0.next().await?;
        for value in batch.records.iter_mut().filter_map(|r| r.value.as_mut()) {
            if let [magic @ 0xa1, 2, rest @ ..] = &value[..] {
                *value = [&[*magic, u8::MAX][..], rest].concat().into();
            }
        }
        Ok(batch)
    }
}

async fn an_older_program_stops_where_it_cannot_read(world: World) {
    let new = world.instance("new").await;
    let ft = new.create_feature_type(ships(0.2)).await.unwrap();
    let parts = world.parts("old").await;
    let parts = Parts { log: Arc::new(BeforeVersion2(parts.log)), ..parts };
    let short = Duration::from_millis(200);
    let settings = Settings { sweep_interval: short / 4, apply_wait: short, read_wait: short, ..Settings::default() };
    let old = Store::start(parts, settings, Vec::new()).await.unwrap();
    until("ready", || async { old.is_ready() }).await;
    write(&old, vec![insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Replace)]).await.unwrap();
    all_aged(&new, &ft).await;
    // A conditional change is of the second format.
    let put = Change::Put(Arc::new(ship("b", 2.0, "Bob")));
    new.write_if(&ft.name, Expected::Absent, put).await.unwrap();
    new.abort();
    drop(new);
    let stopped = |p: &alluvium::store::PartitionStatus| p.last_error.as_ref().is_some_and(|e| e.contains("upgrade"));
    until("told", || async { old.status().iter().any(stopped) }).await;
    let here = old.status()[0].applied;
    let late = write(&old, vec![insert(&ft, vec![ship("c", 3.0, "Cem")], Existing::Replace)]).await.unwrap();
    assert!(!late.applied, "a record behind one that it cannot read");
    until("the owner", || async { old.status()[0].owner }).await;
    for _ in 0..20 {
        let status = &old.status()[0];
        assert!(status.applied == here && status.durable_through <= here, "{status:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    old.shutdown().await;
    drop(old);
    let upgraded = world.instance("upgraded").await;
    let names: [FeatureId; 3] = ["a", "b", "c"].map(Into::into);
    assert_eq!(ids(&upgraded, query(&ft, Filter::All)).await, names.each_ref().map(|id| id.to_string()));
    all_aged(&upgraded, &ft).await;
    let rows = world.parts("nobody").await.delegate.load(&ft, &names).await.unwrap().bases;
    assert!(rows.iter().all(|row| matches!(row, Some(Base::Row(_)))), "{rows:?}");
}

/// A transaction that began before tracks and their points got a property writes the tracks all under the version that it had.
async fn what_is_derived_is_of_its_records_version(world: World) {
    let one = world.instance("one").await;
    let (name, n) = (ships(0.0).name, "properties = [{ name = 'n', type = 'int64' }]");
    // A transaction takes up its types in the order of their names.
    let points = format!("name = '{name}_points'\ngeometry = {{ type = 'Point' }}\n{n}");
    let tracks = format!(
        "name = '{name}_lines'\ntrack = {{}}\ntrack_of = '{name}_points'\n\
         geometry = {{ type = 'LineString', dimension = 'XYM' }}\n{n}"
    );
    let points = one.create_feature_type(toml::from_str(&points).unwrap()).await.unwrap();
    let tracks = one.create_feature_type(toml::from_str(&tracks).unwrap()).await.unwrap();
    let with_more = |ft: &FeatureType| {
        let more = Property { name: "more".into(), ..ft.properties[0].clone() };
        Ok(FeatureType { properties: vec![ft.properties[0].clone(), more], ..ft.clone() })
    };
    let at = |m: f64| Coord { x: 1.0, y: 1.0, z: 0.0, m };
    let fix = |id: &str| {
        let appends = vec![Append { id: id.into(), fixes: vec![at(1.0)], properties: vec![] }];
        Action { feature_type: tracks.name.clone(), kind: ActionKind::Append { appends } }
    };
    let first = write(&one, vec![fix("a")]).await.unwrap().position;
    // It waits for what is written when both have changed.
    let mut at_least = Position::default();
    let next = first.offsets(&tracks.name, &tracks.incarnation).unwrap().unwrap()[0] + 1;
    at_least.raise(&tracks.name, &tracks.incarnation, &[next]);
    let ship = Feature { properties: vec![Value::Int(1), Value::Int(2)], ..ship("a", 1.0, "") };
    let actions = vec![delete(&tracks, by_id("nobody")), insert(&points, vec![ship], Existing::Replace)];
    let writing = one.write(Transaction { actions, at_least });
    let changing = async {
        for ft in [&tracks, &points] {
            one.change_feature_type(&ft.name, with_more).await.unwrap();
        }
        write(&one, vec![fix("b")]).await.unwrap();
    };
    let (written, ()) = tokio::join!(writing, changing);
    written.unwrap();
    // An instance that has not heard of the change reads what says that it is of the version before.
    let log = world.parts("another program").await.log;
    let mut tail = log.tail(&tracks.log_name(), 0, 0).await.unwrap();
    let mut read = 0;
    while read < 3 {
        for r in tail.next().await.unwrap().records {
            read += 1;
            match record::decode(r.key.as_deref(), r.value.as_deref(), &tracks) {
                Ok(_) | Err(RecordError::NewerSchema { .. }) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
    }
    one.shutdown().await;
}
