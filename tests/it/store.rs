//! The store on each stack, from the first write to the merged read: every function of the suite is a test of each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium::clock::SystemClock;
use alluvium::coordination::local::LocalCoordinator;
use alluvium::delegate::embedded::GeoPackage;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::delegate::{Delegate, PersistBatch, PersistEntry, Persisting};
use alluvium::format::record;
use alluvium::log::embedded::EmbeddedLog;
use alluvium::log::memory::MemoryLog;
use alluvium::log::{FeatureLog, NewRecord};
use alluvium::model::{
    Change, Expected, Expiry, Feature, FeatureType, Geometry, Offset, Position, Record, Rect, Run, Value, Watermark,
};
use alluvium::query::{CompareOp, Cursor, Filter, Operand, Query, SortKey, TierChoice};
use alluvium::store::{
    Action, ActionKind, CatalogueError, Existing, FeatureChanges, Item, MemoryLimits, PartitionStatus, Parts, Settings,
    Store, Tier, Transaction, WriteError, Written,
};
use serde_json::json;
#[cfg(feature = "cluster")]
use {
    crate::postgres::{Database, database},
    crate::real::server,
    alluvium::coordination::zookeeper::{ZooKeeper, ZooKeeperSettings},
    alluvium::delegate::postgis::{PostGis, PostGisSettings},
    alluvium::log::kafka::{KafkaLog, KafkaSettings},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes one test of each function of the suite for each stack.
macro_rules! on_each_stack {
    ($($test:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::World::in_memory()).await;
            })*
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(super::World::embedded(dir.path())).await;
            })*
        }
        #[cfg(feature = "cluster")]
        mod clustered {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(world) = super::World::clustered().await {
                    super::$test(world).await;
                }
            })*
        }
    };
}

mod locks;
mod schema;

on_each_stack! {
    a_feature_lives_in_one_tier_after_the_other,
    what_moved_or_was_deleted_does_not_come_back,
    patches_build_on_what_was_persisted,
    an_action_sees_those_before_it,
    a_transaction_is_all_or_nothing,
    pages_in_any_order_give_each_feature_once,
    a_reading_counts_what_it_gives,
    another_instance_reads_what_was_written,
    a_restart_loses_nothing,
    types_come_and_go_on_every_instance,
    stored_queries_come_and_go_on_every_instance,
    a_large_transaction_is_one,
    large_transactions_that_mingle_are_each_whole,
    what_the_delegate_refuses_stays_in_the_index,
    what_stands_refused_stops_nobody,
    a_load_larger_than_memory_goes_through,
    the_log_decides_conditional_changes,
    a_delegate_of_an_earlier_state_gets_what_the_log_still_has,
    what_other_programs_put_grows_tracks,
    a_late_report_never_moves_a_ship_back,
}

/// What the instances of a test share.
enum World {
    /// Clones of parts that live in this process.
    Local { log: Arc<dyn FeatureLog>, delegate: Arc<dyn Delegate>, group: LocalCoordinator },
    #[cfg(feature = "cluster")]
    Clustered { kafka: KafkaSettings, zookeeper: ZooKeeperSettings, database: Database },
}

impl World {
    fn local(log: impl FeatureLog, delegate: impl Delegate) -> World {
        let group = LocalCoordinator::new("nobody");
        group.leave();
        World::Local { log: Arc::new(log), delegate: Arc::new(delegate), group }
    }

    fn in_memory() -> World {
        World::local(MemoryLog::new(Arc::new(SystemClock)), MemoryDelegate::default())
    }

    fn embedded(dir: &Path) -> World {
        let log = EmbeddedLog::open(&dir.join("log"), Arc::new(SystemClock)).unwrap();
        World::local(log, GeoPackage::open(&dir.join("features.gpkg")).unwrap())
    }

    /// `None`, with a word on why, where there are no servers.
    #[cfg(feature = "cluster")]
    async fn clustered() -> Option<World> {
        let kafka = KafkaSettings {
            brokers: server("ALLUVIUM_KAFKA")?,
            topic_prefix: "alluvium_test.".into(),
            ..KafkaSettings::default()
        };
        let zookeeper = ZooKeeperSettings {
            servers: server("ALLUVIUM_ZOOKEEPER")?,
            root: format!("/alluvium-test-{}", alluvium::model::new_id()),
            ..ZooKeeperSettings::default()
        };
        Some(World::Clustered { kafka, zookeeper, database: database().await? })
    }

    /// What an instance is made of.
    async fn parts(&self, instance: &str) -> Parts {
        let clock = Arc::new(SystemClock);
        match self {
            World::Local { log, delegate, group } => {
                let coordinator = Arc::new(group.join(instance));
                Parts { log: log.clone(), delegate: delegate.clone(), coordinator, clock }
            }
            #[cfg(feature = "cluster")]
            World::Clustered { kafka, zookeeper, database } => {
                let postgis = PostGisSettings { url: database.url.clone(), max_connections: 8, ..Default::default() };
                Parts {
                    log: Arc::new(KafkaLog::connect(kafka.clone()).await.unwrap()),
                    delegate: Arc::new(PostGis::connect(postgis).await.unwrap()),
                    coordinator: Arc::new(ZooKeeper::start(zookeeper.clone(), instance).unwrap()),
                    clock,
                }
            }
        }
    }

    async fn start(&self, name: &str) -> Arc<Store> {
        let settings = Settings {
            sweep_interval: Duration::from_millis(50),
            catalogue_interval: Duration::from_millis(100),
            apply_wait: PATIENCE,
            read_wait: PATIENCE,
            ..Settings::default()
        };
        Store::start(self.parts(name).await, settings, Vec::new()).await.unwrap()
    }

    async fn instance(&self, name: &str) -> Arc<Store> {
        let store = self.start(name).await;
        until("ready", || async { store.is_ready() }).await;
        store
    }
}

async fn until<F: Future<Output = bool>>(what: &str, reached: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached().await {
        assert!(tokio::time::Instant::now() < deadline, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A type of a name that is used once. `expiry` in seconds.
fn ships(expiry: f64) -> FeatureType {
    let name = format!("ships_{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
    toml::from_str(&format!(
        "name = '{name}'\nexpiry = {expiry}\ngeometry = {{ type = 'Point' }}\n\
         properties = [{{ name = 'name', type = 'string' }}, {{ name = 'speed', type = 'number' }}]"
    ))
    .unwrap()
}

fn ship(id: &str, x: f64, name: &str) -> Feature {
    Feature {
        id: id.into(),
        geometry: Geometry::point(x, 50.0).ok(),
        properties: vec![Value::String(name.into()), Value::Number(x)],
    }
}

fn insert(ft: &FeatureType, features: Vec<Feature>, existing: Existing) -> Action {
    Action { feature_type: ft.name.clone(), kind: ActionKind::Insert { features, existing } }
}

fn delete(ft: &FeatureType, filter: Filter) -> Action {
    Action { feature_type: ft.name.clone(), kind: ActionKind::Delete { filter } }
}

fn set_speed(ft: &FeatureType, filter: Filter, speed: f64) -> Action {
    let changes = FeatureChanges { geometry: None, properties: vec![(1, Value::Number(speed))] };
    Action { feature_type: ft.name.clone(), kind: ActionKind::Update { filter, changes } }
}

fn set_name(ft: &FeatureType, filter: Filter, name: &str) -> Action {
    let changes = FeatureChanges { geometry: None, properties: vec![(0, Value::String(name.into()))] };
    Action { feature_type: ft.name.clone(), kind: ActionKind::Update { filter, changes } }
}

fn by_id(id: &str) -> Filter {
    Filter::ids([id.into()])
}

fn near(x: f64) -> Filter {
    Filter::Bbox(Rect { min_x: x - 0.1, min_y: 49.0, max_x: x + 0.1, max_y: 51.0 })
}

fn speed_is(speed: f64) -> Filter {
    Filter::Compare {
        op: CompareOp::Equal,
        left: Operand::Property(1),
        right: Operand::Literal(Value::Number(speed)),
        match_case: true,
    }
}

async fn write(store: &Store, actions: Vec<Action>) -> Result<Written, WriteError> {
    store.write(Transaction { actions, ..Transaction::default() }).await
}

fn query(ft: &FeatureType, filter: Filter) -> Query {
    Query { feature_type: ft.name.clone(), filter, ..Query::default() }
}

async fn items(store: &Store, query: Query) -> Vec<Item> {
    store.read(query).await.unwrap().all().await.unwrap()
}

async fn ids(store: &Store, query: Query) -> Vec<String> {
    items(store, query).await.iter().map(|i| i.feature.id.to_string()).collect()
}

async fn count(store: &Store, ft: &FeatureType, filter: Filter, tier: TierChoice) -> u64 {
    store.count(&Query { tier, ..query(ft, filter) }, None).await.unwrap().unwrap()
}

async fn all_aged(store: &Store, ft: &FeatureType) {
    until("aged", || async { count(store, ft, Filter::All, TierChoice::Transient).await == 0 }).await;
}

/// From now on.
async fn expire(store: &Store, ft: &FeatureType, seconds: u64) {
    let expiry = Expiry::After(Duration::from_secs(seconds));
    let change = |known: &FeatureType| Ok(FeatureType { expiry, ..known.clone() });
    store.change_feature_type(&ft.name, change).await.unwrap();
}

async fn a_feature_lives_in_one_tier_after_the_other(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(3600.0)).await.unwrap();
    let written = write(&store, vec![insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Replace)]).await.unwrap();
    assert!(written.applied);
    let first = items(&store, query(&ft, Filter::All)).await;
    assert_eq!((first.len(), first[0].tier), (1, Tier::Transient));
    expire(&store, &ft, 0).await;
    until("persisted", || async { items(&store, query(&ft, Filter::All)).await[0].tier == Tier::Persistent }).await;
    let later = items(&store, query(&ft, Filter::All)).await;
    assert_eq!((&later[0].feature, later[0].version), (&first[0].feature, first[0].version));
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Transient).await, 0);
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Persistent).await, 1);
}

async fn what_moved_or_was_deleted_does_not_come_back(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.3)).await.unwrap();
    let two = vec![ship("a", 1.0, "Ada"), ship("b", 1.0, "Bob")];
    write(&store, vec![insert(&ft, two, Existing::Replace)]).await.unwrap();
    all_aged(&store, &ft).await;
    assert_eq!(ids(&store, query(&ft, near(1.0))).await, ["a", "b"]);
    write(&store, vec![insert(&ft, vec![ship("a", 9.0, "Ada")], Existing::Replace), delete(&ft, by_id("b"))])
        .await
        .unwrap();
    // In the index, on their way, and persisted again: the answers stay the same.
    for _ in 0..40 {
        assert!(ids(&store, query(&ft, near(1.0))).await.is_empty());
        assert_eq!(ids(&store, query(&ft, near(9.0))).await, ["a"]);
        let tiers = [TierChoice::Merged, TierChoice::Transient, TierChoice::Persistent];
        assert_eq!(count(&store, &ft, Filter::All, tiers[0]).await, 1);
        assert_eq!(count(&store, &ft, near(1.0), tiers[0]).await, 0);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    all_aged(&store, &ft).await;
    assert_eq!(ids(&store, query(&ft, Filter::All)).await, ["a"]);
}

async fn patches_build_on_what_was_persisted(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.2)).await.unwrap();
    write(&store, vec![insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Replace)]).await.unwrap();
    all_aged(&store, &ft).await;
    let updated = write(&store, vec![set_speed(&ft, by_id("a"), 7.0)]).await.unwrap();
    assert_eq!(updated.ids.concat().len(), 1);
    let now = items(&store, query(&ft, speed_is(7.0))).await;
    assert_eq!(now[0].feature.properties, [Value::String("Ada".into()), Value::Number(7.0)]);
    assert!(write(&store, vec![set_speed(&ft, by_id("nobody"), 7.0)]).await.unwrap().ids.concat().is_empty());
    all_aged(&store, &ft).await;
    assert_eq!(items(&store, query(&ft, speed_is(7.0))).await[0].feature, now[0].feature);
}

async fn an_action_sees_those_before_it(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(60.0)).await.unwrap();
    let actions = vec![
        insert(&ft, vec![ship("a", 1.0, "Ada"), ship("b", 2.0, "Bob")], Existing::Refuse),
        set_speed(&ft, near(1.0), 5.0),
        delete(&ft, speed_is(5.0)),
        set_speed(&ft, by_id("b"), 3.0),
        set_speed(&ft, by_id("a"), 3.0),
        insert(&ft, vec![ship("a", 4.0, "Eve")], Existing::Refuse),
    ];
    let matched: Vec<usize> = write(&store, actions).await.unwrap().ids.iter().map(Vec::len).collect();
    assert_eq!(matched, [2, 1, 1, 1, 0, 1]);
    let all = items(&store, query(&ft, Filter::All)).await;
    let told: Vec<_> = all.iter().map(|i| (&*i.feature.id, i.feature.properties[1].clone())).collect();
    assert_eq!(told, [("a", Value::Number(4.0)), ("b", Value::Number(3.0))]);
}

async fn a_transaction_is_all_or_nothing(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(60.0)).await.unwrap();
    write(&store, vec![insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Refuse)]).await.unwrap();
    let taken = vec![insert(&ft, vec![ship("b", 1.0, "Bob"), ship("a", 1.0, "Eve")], Existing::Refuse)];
    assert!(matches!(write(&store, taken).await, Err(WriteError::Exists { id, .. }) if &*id == "a"));
    let twice = vec![insert(&ft, vec![ship("b", 1.0, "Bob"), ship("b", 1.0, "Eve")], Existing::Refuse)];
    assert!(matches!(write(&store, twice).await, Err(WriteError::Exists { id, .. }) if &*id == "b"));
    let mut wrong = ship("c", 1.0, "Eve");
    wrong.properties[1] = Value::String("fast".into());
    let wrong =
        vec![insert(&ft, vec![ship("b", 1.0, "Bob")], Existing::Replace), insert(&ft, vec![wrong], Existing::Replace)];
    let refused = write(&store, wrong).await;
    assert!(matches!(refused, Err(WriteError::Invalid { action: 1, error }) if error.locator == "speed"));
    assert_eq!(ids(&store, query(&ft, Filter::All)).await, ["a"]);
}

async fn pages_in_any_order_give_each_feature_once(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.2)).await.unwrap();
    let some =
        |from: usize| (from..from + 50).map(|n| ship(&format!("s{n:03}"), (n % 7) as f64, "x")).collect::<Vec<_>>();
    write(&store, vec![insert(&ft, some(0), Existing::Replace)]).await.unwrap();
    all_aged(&store, &ft).await;
    write(&store, vec![insert(&ft, some(30), Existing::Replace)]).await.unwrap();
    let sort = vec![SortKey { property: 1, descending: true }];
    let (mut after, mut seen): (Option<Cursor>, Vec<String>) = (None, Vec::new());
    loop {
        let page = Query { sort: sort.clone(), limit: Some(7), after: after.clone(), ..query(&ft, Filter::All) };
        let page = items(&store, page).await;
        let Some(last) = page.last() else { break };
        after = Some(Cursor::of(&last.feature, &sort));
        seen.extend(page.iter().map(|i| i.feature.id.to_string()));
    }
    let whole = ids(&store, Query { sort, ..query(&ft, Filter::All) }).await;
    assert_eq!((seen.len(), &seen), (80, &whole));
    let by_start = ids(&store, Query { start: 70, limit: Some(20), ..query(&ft, Filter::All) }).await;
    assert_eq!(by_start.len(), 10);
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Merged).await, 80);
}

async fn a_reading_counts_what_it_gives(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.0)).await.unwrap();
    let some = |range: std::ops::Range<usize>| range.map(|n| ship(&format!("s{n:03}"), 1.0, "x")).collect::<Vec<_>>();
    write(&store, vec![insert(&ft, some(0..50), Existing::Replace)]).await.unwrap();
    all_aged(&store, &ft).await;
    expire(&store, &ft, 3600).await;
    write(&store, vec![insert(&ft, some(30..70), Existing::Replace), delete(&ft, by_id("s007"))]).await.unwrap();
    let mut readings = Vec::new();
    for (tier, any_order) in [
        (TierChoice::Merged, false),
        (TierChoice::Merged, true),
        (TierChoice::Transient, false),
        (TierChoice::Persistent, true),
    ] {
        readings.push(store.read(Query { tier, any_order, ..query(&ft, near(1.0)) }).await.unwrap());
    }
    // Whatever happens between the first feature and the last one, or the count.
    let gone = vec![delete(&ft, Filter::All), insert(&ft, vec![ship("new", 1.0, "x")], Existing::Replace)];
    write(&store, gone).await.unwrap();
    expire(&store, &ft, 0).await;
    all_aged(&store, &ft).await;
    for mut reading in readings {
        let before = reading.count(None).await.unwrap();
        let first = reading.next().await.unwrap().unwrap();
        assert_eq!(reading.count(None).await.unwrap(), before);
        let all = reading.all().await.unwrap();
        assert_eq!(all[0].feature.id, first.feature.id, "it begins anew");
        assert_eq!(Some(all.len() as u64), before);
        assert!(all.iter().all(|item| &*item.feature.id != "new"));
    }
    let mut page = store.read(query(&ft, Filter::All)).await.unwrap();
    page.page(0, 0);
    assert_eq!(page.count(None).await.unwrap(), Some(1), "whatever the page");
    assert!(page.next().await.is_none());
}

async fn another_instance_reads_what_was_written(world: World) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(ships(0.5)).await.unwrap();
    until("known", || async { two.feature_type(&ft.name).is_some() }).await;
    for n in 0..20 {
        let written =
            write(&one, vec![insert(&ft, vec![ship("a", f64::from(n), "Ada")], Existing::Replace)]).await.unwrap();
        let there = Query { at_least: written.position, ..query(&ft, Filter::All) };
        let there = items(&two, there).await;
        assert_eq!(there[0].feature.properties[1], Value::Number(f64::from(n)));
    }
    all_aged(&one, &ft).await;
    all_aged(&two, &ft).await;
    assert_eq!(items(&one, query(&ft, Filter::All)).await, items(&two, query(&ft, Filter::All)).await);
}

async fn a_restart_loses_nothing(world: World) {
    let first = world.instance("one").await;
    let ft = first.create_feature_type(ships(0.3)).await.unwrap();
    let twenty = |x: f64| (0..20).map(move |n| ship(&format!("s{n}"), x, "x")).collect::<Vec<_>>();
    write(&first, vec![insert(&ft, twenty(1.0), Existing::Replace)]).await.unwrap();
    all_aged(&first, &ft).await;
    write(&first, vec![insert(&ft, twenty(2.0), Existing::Replace), delete(&ft, by_id("s7"))]).await.unwrap();
    let before = items(&first, query(&ft, Filter::All)).await;
    first.abort();
    drop(first);
    let second = world.instance("one").await;
    let after = items(&second, query(&ft, Filter::All)).await;
    let told = |items: &[Item]| items.iter().map(|i| (i.feature.clone(), i.version)).collect::<Vec<_>>();
    assert_eq!((after.len(), told(&after)), (19, told(&before)));
    all_aged(&second, &ft).await;
    assert_eq!(told(&items(&second, query(&ft, Filter::All)).await), told(&before));
}

async fn types_come_and_go_on_every_instance(world: World) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(ships(0.2)).await.unwrap();
    assert!(matches!(one.create_feature_type((*ft).clone()).await, Err(CatalogueError::Exists(_))));
    until("known", || async { two.feature_type(&ft.name).is_some() }).await;
    let written = write(&two, vec![insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Replace)]).await.unwrap();
    all_aged(&one, &ft).await;
    one.remove_feature_type(&ft.name, true).await.unwrap();
    until("gone", || async { two.feature_type(&ft.name).is_none() }).await;
    let again = one.create_feature_type(FeatureType { incarnation: String::new(), ..(*ft).clone() }).await.unwrap();
    assert!(ids(&one, query(&again, Filter::All)).await.is_empty());
    let stale = Query { at_least: written.position, ..query(&again, Filter::All) };
    assert!(one.read(stale).await.is_err(), "a position of the type that is gone");
}

async fn stored_queries_come_and_go_on_every_instance(world: World) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let query = ("q".to_owned(), "text".to_owned());
    assert_eq!(one.keep_stored_queries(std::slice::from_ref(&query)).await.unwrap(), None);
    // Asked for by its id it is there at once.
    assert_eq!(two.stored_query("q").await.unwrap().as_deref(), Some("text"));
    let three = world.instance("three").await;
    assert_eq!(three.stored_queries().get("q"), Some(&query.1));
    assert_eq!(two.keep_stored_queries(&[query]).await.unwrap().as_deref(), Some("q"));
    assert!(two.drop_stored_query("q").await.unwrap() && two.stored_query("q").await.unwrap().is_none());
    until("gone", || async { one.stored_queries().is_empty() && three.stored_queries().is_empty() }).await;
}

async fn a_large_transaction_is_one(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(60.0)).await.unwrap();
    let long_name = "n".repeat(2_000);
    let many = (0..20_000).map(|n| ship(&format!("s{n}"), f64::from(n % 180), &long_name)).collect();
    let written = write(&store, vec![insert(&ft, many, Existing::Replace)]).await.unwrap();
    assert!(written.applied);
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Merged).await, 20_000);
    assert_ne!(written.position, Position::default());
}

/// Appends to the first partition what another instance might have.
async fn append(world: &World, ft: &FeatureType, records: &[Record]) -> Vec<Offset> {
    let record = |r| NewRecord {
        log: ft.log_name().into(),
        partition: 0,
        key: Default::default(),
        value: record::encode(r, ft.schema_version),
    };
    world.parts("another").await.log.append(records.iter().map(record).collect()).await.unwrap()
}

fn run(id: u64, features: Vec<Feature>) -> Vec<Record> {
    let puts = features.into_iter().map(|f| Change::Put(Arc::new(f))).collect();
    record::split(puts, 200, || id).unwrap()
}

async fn large_transactions_that_mingle_are_each_whole(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.3)).await.unwrap();
    let run = |id, names: [&str; 3]| run(id, names.iter().map(|n| ship(n, 1.0, &n.repeat(30))).collect());
    let (a, b) = (run(1, ["a1", "a2", "x"]), run(2, ["b1", "x", "b2"]));
    assert_eq!((a.len(), b.len()), (3, 3));
    let between = run(3, ["c"; 3])[..1].to_vec();
    let between = match &between[0] {
        Record::Changes { changes, .. } => Record::Changes { run: Run::WHOLE, changes: changes.clone() },
        marker => marker.clone(),
    };
    let (one, two, three) = (a[0].clone(), a[1].clone(), a[2].clone());
    let first = [one, b[0].clone(), between, two, b[1].clone(), three];
    let seen = append(&world, &ft, &first).await[5] + 1;
    until("read", || async { store.status()[0].end >= seen }).await;
    assert!(ids(&store, query(&ft, Filter::All)).await.is_empty(), "a transaction shows before it is whole");
    let last = append(&world, &ft, &b[2..]).await[0];
    let all = ["a1", "a2", "b1", "b2", "c", "x"];
    until("whole", || async { ids(&store, query(&ft, Filter::All)).await == all }).await;
    let x = &items(&store, query(&ft, by_id("x"))).await[0];
    assert_eq!(x.version, Some(last), "the one that ends last wins");
    let late = world.instance("late").await;
    assert_eq!(ids(&late, query(&ft, Filter::All)).await, all);
    all_aged(&late, &ft).await;
    assert_eq!(ids(&late, query(&ft, Filter::All)).await, all);
}

async fn what_the_delegate_refuses_stays_in_the_index(world: World) {
    let strict = |expiry| {
        let mut ft = ships(expiry);
        ft.properties[0].nullable = false;
        ft
    };
    let nameless = Feature { properties: vec![Value::Null, Value::Number(7.0)], ..ship("nameless", 1.0, "") };
    let both = [vec![nameless.clone()], vec![ship("fine", 2.0, "Ada")]].map(|f| run(0, f).remove(0));
    let store = world.instance("one").await;
    let ft = store.create_feature_type(strict(0.3)).await.unwrap();
    append(&world, &ft, &both).await;
    until("persisted", || async { count(&store, &ft, Filter::All, TierChoice::Persistent).await == 1 }).await;
    let late = world.instance("late").await;
    for store in [&store, &late] {
        let refused = items(store, query(&ft, by_id("nameless"))).await;
        assert_eq!((&*refused[0].feature, refused[0].tier), (&nameless, Tier::Transient));
        assert_eq!(count(store, &ft, Filter::All, TierChoice::Merged).await, 2);
    }
    late.shutdown().await;
    drop(late);

    // A sweep that ended between the delegate's commit and the marker.
    let ft = store.create_feature_type(strict(60.0)).await.unwrap();
    append(&world, &ft, &both).await;
    until("applied", || async { count(&store, &ft, Filter::All, TierChoice::Transient).await == 2 }).await;
    let position = store.read(query(&ft, Filter::All)).await.unwrap().position;
    let through = position.offsets(&ft.name, &ft.incarnation).unwrap().unwrap()[0];
    let entries = items(&store, query(&ft, Filter::All)).await.into_iter();
    let batch = PersistBatch {
        partition: 0,
        expected: Watermark::default(),
        next: Watermark { durable_through: through, evict_through: through, as_of: through },
        entries: entries
            .map(|i| PersistEntry {
                id: i.feature.id.clone(),
                feature: Some(i.feature),
                version: i.version.unwrap(),
                event_time: None,
            })
            .collect(),
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    let persisting = world.parts("another").await.delegate.persist(&ft, batch).await.unwrap();
    assert!(matches!(persisting, Persisting::Committed { refused } if refused.len() == 1));
    until("mended", || async { count(&store, &ft, Filter::All, TierChoice::Transient).await == 1 }).await;
    assert_eq!(ids(&store, query(&ft, Filter::All)).await, ["fine", "nameless"]);
}

async fn what_stands_refused_stops_nobody(world: World) {
    let settings = Settings {
        sweep_interval: Duration::from_millis(50),
        sweep_batch: 2,
        refused_interval: Duration::from_millis(50),
        ..Settings::default()
    };
    let parts = world.parts("one").await;
    let store = Store::start(parts.clone(), settings, Vec::new()).await.unwrap();
    let mut strict = ships(0.0);
    strict.properties[0].nullable = false;
    let ft = store.create_feature_type(strict).await.unwrap();
    let nameless = |id: &str| Feature { properties: vec![Value::Null, Value::Number(7.0)], ..ship(id, 1.0, "") };
    let each_by_itself = ["n1", "n2", "n3", "n4", "n5"].map(|id| run(0, vec![nameless(id)]).remove(0));
    append(&world, &ft, &each_by_itself).await;
    for id in ["a", "b"] {
        write(&store, vec![insert(&ft, vec![ship(id, 1.0, "Ada")], Existing::Replace)]).await.unwrap();
        let index_has = || count(&store, &ft, Filter::All, TierChoice::Transient);
        until("persisted behind what is refused", || async { index_has().await == 5 }).await;
    }
    // They are tried again and again, but where nothing changes the log has nothing to tell. The other type shows that time
    // goes on.
    let other = store.create_feature_type(ships(0.0)).await.unwrap();
    let mut ends = Vec::new();
    for _ in 0..4 {
        write(&store, vec![insert(&other, vec![ship("a", 1.0, "Ada")], Existing::Replace)]).await.unwrap();
        all_aged(&store, &other).await;
        ends.push(parts.log.range(&ft.log_name(), 0).await.unwrap().end);
    }
    assert!(ends[1..].iter().all(|end| *end == ends[1]), "{ends:?}");
    let mended = vec![set_name(&ft, by_id("n4"), "Eve")];
    write(&store, mended).await.unwrap();
    until("mended", || async { count(&store, &ft, Filter::All, TierChoice::Transient).await == 4 }).await;
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Merged).await, 7);
}

async fn a_load_larger_than_memory_goes_through(world: World) {
    let memory = MemoryLimits { soft: 100_000, hard: 200_000 };
    let settings = Settings { memory, sweep_batch: 50, ..Settings::default() };
    let store = Store::start(world.parts("one").await, settings, Vec::new()).await.unwrap();
    let keeping = |expiry| FeatureType { expiry, max_dirty: Duration::from_secs(3_600), ..ships(0.0) };
    let ft = store.create_feature_type(keeping(Expiry::Never)).await.unwrap();
    let transient = store.create_feature_type(FeatureType { persist: false, ..keeping(Expiry::Never) }).await.unwrap();
    let mut largest = 0;
    for n in 0..40 {
        for ft in [&ft, &transient] {
            let ids: Vec<String> = (0..50).map(|i| format!("{n}-{i}")).collect();
            let features = ids.iter().map(|id| ship(id, f64::from(n), id)).collect();
            assert!(store.room(PATIENCE).await, "no room was made");
            write(&store, vec![insert(ft, features, Existing::Replace)]).await.unwrap();
            largest = largest.max(store.memory().used);
        }
    }
    assert!(largest > memory.soft, "nothing was too large");
    until("below the soft limit", || async { store.memory().used <= memory.soft }).await;
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Merged).await, 2_000);
    let here = count(&store, &ft, Filter::All, TierChoice::Transient).await;
    assert!(here < 1_000, "{here} of 2,000 have not left");
    assert!(count(&store, &transient, Filter::All, TierChoice::Merged).await < 1_000, "kept by nobody");
}

#[tokio::test]
async fn memory_that_nothing_leaves_refuses_writes() {
    let world = World::in_memory();
    let memory = MemoryLimits { soft: 10_000, hard: 20_000 };
    let store = Store::start(world.parts("one").await, Settings { memory, ..Settings::default() }, Vec::new()).await;
    let store = store.unwrap();
    let mut strict = ships(0.0);
    strict.properties[0].nullable = false;
    let ft = store.create_feature_type(strict).await.unwrap();
    let refused = (0..100).map(|n| Feature { properties: vec![Value::Null], ..ship(&format!("n{n}"), 1.0, "") });
    append(&world, &ft, &run(0, refused.collect())).await;
    until("full", || async { !store.room(Duration::ZERO).await }).await;
    let speed = set_speed(&ft, by_id("n1"), 1.0);
    for action in [insert(&ft, vec![ship("a", 1.0, "Ada")], Existing::Replace), delete(&ft, by_id("n1")), speed] {
        let answer = write(&store, vec![action]).await;
        assert!(matches!(&answer, Err(WriteError::Unavailable(what)) if what.contains("memory")), "{answer:?}");
    }
    let absent = store.write_if(&ft.name, Expected::Absent, Change::Put(Arc::new(ship("a", 1.0, "Ada")))).await;
    assert!(matches!(absent, Err(WriteError::Unavailable(_))));
    assert_eq!(count(&store, &ft, Filter::All, TierChoice::Merged).await, 100);
}

async fn the_log_decides_conditional_changes(world: World) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(ships(0.3)).await.unwrap();
    until("known", || async { two.feature_type(&ft.name).is_some() }).await;
    let put = |id: &str, speed| {
        let properties = vec![Value::String("Ada".into()), Value::Number(speed)];
        Change::Put(Arc::new(Feature { properties, ..ship(id, 1.0, "") }))
    };
    let write_if = |store: &Arc<Store>, expected, change| {
        let (store, name) = (store.clone(), ft.name.clone());
        async move { store.write_if(&name, expected, change).await }
    };
    let held = |outcome: Result<Written, WriteError>| match outcome {
        Ok(_) => true,
        Err(WriteError::NotAsExpected { .. }) => false,
        Err(e) => panic!("{e}"),
    };
    for n in 0..20 {
        let id = format!("s{n}");
        let (a, b) = tokio::join!(
            write_if(&one, Expected::Absent, put(&id, 1.0)),
            write_if(&two, Expected::Absent, put(&id, 2.0))
        );
        let (a, b) = (held(a), held(b));
        assert!(a != b, "one of two creates it: {a} {b}");
        let now = one.get(&ft.name, &id, &Position::default()).await.unwrap();
        assert!(b || now.unwrap().0.feature.properties[1] == Value::Number(1.0));
    }
    // Two writers count together, in and out of the index, and none takes the other's step back.
    let count_up = |store: Arc<Store>| {
        let (name, write_if) = (ft.name.clone(), &write_if);
        async move {
            let mut done = 0;
            while done < 25 {
                let (item, _) = store.get(&name, "s0", &Position::default()).await.unwrap().unwrap();
                let Value::Number(speed) = item.feature.properties[1] else { panic!() };
                let next = put("s0", speed + 1.0);
                done +=
                    u32::from(held(write_if(&store, Expected::OneOf(item.version.into_iter().collect()), next).await));
                tokio::time::sleep(Duration::from_millis(if done % 10 == 0 { 600 } else { 1 })).await;
            }
        }
    };
    let first = items(&one, query(&ft, by_id("s0"))).await.remove(0);
    tokio::join!(count_up(one.clone()), count_up(two.clone()));
    all_aged(&one, &ft).await;
    let last = items(&one, query(&ft, by_id("s0"))).await.remove(0);
    let (Value::Number(from), Value::Number(to)) = (&first.feature.properties[1], &last.feature.properties[1]) else {
        panic!()
    };
    assert_eq!(to - from, 50.0);
    // A version is the same after the sweep.
    assert_eq!(last.tier, Tier::Persistent);
    assert!(!held(write_if(&two, Expected::OneOf(first.version.into_iter().collect()), put("s0", 0.0)).await));
    assert_eq!(
        items(&one, query(&ft, by_id("s0"))).await,
        std::slice::from_ref(&last),
        "what does not hold does nothing"
    );
    assert!(held(
        write_if(
            &two,
            Expected::OneOf([first.version, last.version].into_iter().flatten().collect()),
            Change::Delete("s0".into())
        )
        .await
    ));
    assert!(!held(write_if(&one, Expected::Present, put("s0", 0.0)).await));
    assert!(held(write_if(&one, Expected::Absent, put("s0", 0.0)).await));
}

async fn a_delegate_of_an_earlier_state_gets_what_the_log_still_has(world: World) {
    let store = world.instance("one").await;
    let ft = store.create_feature_type(ships(0.3)).await.unwrap();
    let all: Vec<String> = (0..20).map(|n| format!("s{n:02}")).collect();
    for id in &all {
        write(&store, vec![insert(&ft, vec![ship(id, 1.0, "Ada")], Existing::Replace)]).await.unwrap();
    }
    all_aged(&store, &ft).await;
    store.shutdown().await;
    drop(store);
    // As if it had been restored to when the feature type was made.
    let delegate = Arc::new(MemoryDelegate::default());
    delegate.create(&ft).await.unwrap();
    let parts = Parts { delegate: delegate.clone(), ..world.parts("two").await };
    let settings = Settings { sweep_interval: Duration::from_millis(50), ..Settings::default() };
    let store = Store::start(parts, settings, Vec::new()).await.unwrap();
    until("ready", || async { store.is_ready() }).await;
    for _ in 0..20 {
        assert_eq!(ids(&store, query(&ft, Filter::All)).await, all);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all_aged(&store, &ft).await;
    assert_eq!(ids(&store, query(&ft, Filter::All)).await, all);
}

async fn a_late_report_never_moves_a_ship_back(world: World) {
    let (a, b) = (world.instance("a").await, world.instance("b").await);
    let declaration = format!(
        "name = '{}'\nexpiry = 0.2\nproperties = [{{ name = 'seen', type = 'date-time' }}]\n\
         event_time = {{ property = 'seen' }}",
        ships(0.0).name
    );
    let ft = a.create_feature_type(toml::from_str(&declaration).unwrap()).await.unwrap();
    until("the other instance has the type", || async { b.feature_type(&ft.name).is_some() }).await;
    let report = async |store: &Arc<Store>, seconds: i64| {
        let properties = vec![Value::DateTime(seconds * 1_000_000)];
        let feature = Feature { id: "s".into(), geometry: None, properties };
        let written = write(store, vec![insert(&ft, vec![feature], Existing::Replace)]).await.unwrap();
        assert!(written.applied);
    };
    let now = async |store: &Arc<Store>| {
        let item = store.get(&ft.name, "s", &Position::default()).await.unwrap();
        item.map(|(item, _)| item.feature.properties[0].clone())
    };
    let at = |seconds: i64| Some(Value::DateTime(seconds * 1_000_000));
    report(&a, 10).await;
    report(&a, 9).await;
    assert_eq!(now(&a).await, at(10));
    all_aged(&a, &ft).await;
    // And when it has left the index, on the instance that has never held it either.
    let late = world.instance("c").await;
    for store in [&a, &b, &late] {
        report(store, 9).await;
        assert_eq!(now(store).await, at(10));
    }
    report(&late, 11).await;
    assert_eq!(now(&late).await, at(11));
    write(&a, vec![delete(&ft, by_id("s"))]).await.unwrap();
    all_aged(&a, &ft).await;
    report(&late, 10).await;
    assert_eq!(now(&late).await, None, "a deleted one does not come back by what is late");
    report(&late, 12).await;
    assert_eq!(now(&late).await, at(12));
}

async fn what_other_programs_put_grows_tracks(world: World) {
    let (a, b) = (world.instance("a").await, world.instance("b").await);
    let seen = "properties = [{ name = 'seen', type = 'date-time' }]";
    let name = ships(0.0).name;
    let points = format!("name = '{name}'\nexpiry = 0.2\ngeometry = {{ type = 'Point' }}\n{seen}");
    let points = a.create_feature_type(toml::from_str(&points).unwrap()).await.unwrap();
    let tracks = format!(
        "name = '{name}_tracks'\nexpiry = 3600\ntrack = {{}}\ntrack_of = '{name}'\n\
         geometry = {{ type = 'LineString', dimension = 'XYM' }}\n{seen}"
    );
    let tracks = a.create_feature_type(toml::from_str(&tracks).unwrap()).await.unwrap();
    let log = world.parts("another program").await.log;
    let seen_at = |n: u32| Value::DateTime(i64::from(n) * 1_000_000);
    let put = |n: u32| NewRecord {
        log: points.log_name().into(),
        partition: 0,
        key: "s".into(),
        value: json!({
            "type": "Feature",
            "geometry": { "type": "Point", "coordinates": [f64::from(n) / 100.0, 50] },
            "properties": { "seen": format!("1970-01-01T00:{:02}:{:02}Z", n / 60, n % 60) },
        })
        .to_string()
        .into(),
    };
    for fixes in [1..2000_u32, 2000..2003] {
        let last = fixes.end - 1;
        log.append(fixes.map(put).collect()).await.unwrap();
        until("the ship itself has aged", || async {
            let aged = items(&a, Query { tier: TierChoice::Persistent, ..query(&points, by_id("s")) }).await;
            aged.first().is_some_and(|s| s.feature.properties[0] == seen_at(last))
        })
        .await;
        // By then its track has been appended to, and the instances come to know it.
        for store in [&a, &b] {
            until("the track is whole", || async {
                let track = items(store, query(&tracks, by_id("s"))).await;
                let mut vertices = 0;
                if let Some(line) = track.first().and_then(|t| t.feature.geometry.as_ref()) {
                    line.reader().each_coord(&mut |_| vertices += 1);
                }
                vertices == last && track[0].feature.properties[0] == seen_at(last)
            })
            .await;
        }
    }
    a.shutdown().await;
    b.shutdown().await;
}

/// The delegate goes back to an earlier state under two instances; with `cut` the log does not have all that came since.
async fn put_back_under_running_instances(cut: bool) {
    let (log, delegate) = (MemoryLog::new(Arc::new(SystemClock)), MemoryDelegate::default());
    let world = World::local(log.clone(), delegate.clone());
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(ships(0.1)).await.unwrap();
    let other = one.create_feature_type(ships(3600.0)).await.unwrap();
    until("known to the other", || async { two.feature_type(&other.name).is_some() }).await;
    let put = async |id: &str| write(&one, vec![insert(&ft, vec![ship(id, 1.0, "Ada")], Existing::Replace)]).await;
    let mut all = vec!["a".to_owned()];
    put("a").await.unwrap();
    all_aged(&one, &ft).await;
    let early = delegate.dump();
    for n in 0..20 {
        all.push(format!("s{n:02}"));
        put(&all[n + 1]).await.unwrap();
    }
    all_aged(&one, &ft).await;
    all_aged(&two, &ft).await;
    let late = delegate.dump();
    if cut {
        let durable_through = late.watermarks(&ft).await.unwrap()[0].durable_through;
        log.cut(&ft.log_name(), 0, durable_through).await.unwrap();
    }

    delegate.put_back(&early);
    if cut {
        for store in [&one, &two] {
            let lost = || async {
                let refused = store.read(query(&ft, Filter::All)).await.is_err();
                let stopped = |p: &PartitionStatus| {
                    p.feature_type == ft.name && !p.ready && p.last_error.as_ref().is_some_and(|e| e.contains("LOSS"))
                };
                assert!(refused, "an answer without what is lost");
                store.status().iter().any(stopped)
            };
            until("stopped", lost).await;
            assert!(!store.is_ready());
            // The others go on.
            assert!(write(store, vec![insert(&other, vec![ship("b", 1.0, "Bea")], Existing::Replace)]).await.is_ok());
            assert_eq!(ids(store, query(&other, Filter::All)).await, ["b"]);
        }
        assert!(matches!(put("c").await, Err(WriteError::Unavailable(why)) if why.contains("LOSS")));
        // An instance that starts says it too, and serves the others.
        let three = world.start("three").await;
        assert!(!three.is_ready() && three.read(query(&ft, Filter::All)).await.is_err());
        until("served", || async { three.read(query(&other, Filter::All)).await.is_ok() }).await;
        assert_eq!(ids(&three, query(&other, Filter::All)).await, ["b"]);
        // Mended, all go on by themselves.
        delegate.put_back(&late);
        until("mended", || async { one.is_ready() && two.is_ready() && three.is_ready() }).await;
    }
    for store in [&one, &two] {
        let all_there = || async {
            let Ok(reading) = store.read(query(&ft, Filter::All)).await else { return false };
            let Ok(items) = reading.all().await else { return false };
            assert_eq!(items.iter().map(|i| i.feature.id.to_string()).collect::<Vec<_>>(), all);
            true
        };
        until("answered", all_there).await;
    }
    all_aged(&one, &ft).await;
    assert_eq!(count(&one, &ft, Filter::All, TierChoice::Persistent).await, all.len() as u64);
    put("c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_put_back_under_running_instances_gets_what_the_log_still_has() {
    put_back_under_running_instances(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_which_something_is_lost_stops_and_says_so() {
    put_back_under_running_instances(true).await;
}
