//! Locks: what one instance gives holds on all, until it is released or its time is over.

use alluvium::model::FeatureId;
use alluvium::store::{LockAction, LockError, LockedFeatures, NoLock, Release, UnderLock};

use super::*;

on_each_stack! {
    a_lock_holds_on_every_instance,
    a_lock_outlives_the_instance_that_took_it,
    a_lock_ends_by_itself,
    of_two_that_lock_at_once_one_has_a_feature,
    what_was_begun_before_a_lock_is_seen_under_it,
}

const LONG: Duration = Duration::from_secs(3600);

/// Two instances with a type of ships, a to d.
async fn fleet(world: &World) -> (Arc<Store>, Arc<Store>, Arc<FeatureType>) {
    let (one, two) = (world.instance("one").await, world.instance("two").await);
    let ft = one.create_feature_type(ships(3600.0)).await.unwrap();
    let written =
        write(&one, vec![insert(&ft, ["a", "b", "c", "d"].map(|id| ship(id, 1.0, id)).to_vec(), Existing::Replace)]);
    let position = written.await.unwrap().position;
    until("known", || async { two.feature_type(&ft.name).is_some() }).await;
    until("seen", || async { two.get(&ft.name, "d", &position).await.is_ok_and(|found| found.is_some()) }).await;
    (one, two, ft)
}

fn named(ft: &FeatureType, ids: &[&str]) -> Vec<(String, FeatureId)> {
    ids.iter().map(|id| (ft.name.clone(), (*id).into())).collect()
}

async fn lock(store: &Store, ft: &FeatureType, ids: &[&str], expiry: Duration) -> LockedFeatures {
    store.lock(named(ft, ids), expiry, LockAction::All).await.unwrap()
}

/// What is answered by an instance that has a session: on a machine that is too busy it may lose its own for a while.
async fn answered<F: Future<Output = Result<Written, WriteError>>>(ask: impl Fn() -> F) -> Result<Written, WriteError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(WriteError::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

async fn move_under(
    store: &Store,
    ft: &FeatureType,
    id: &str,
    lock: &str,
    release: Release,
) -> Result<Written, WriteError> {
    let transaction = Transaction { actions: vec![set_speed(ft, by_id(id), 7.0)], ..Transaction::default() };
    let under = UnderLock { id: lock.to_owned(), release };
    answered(|| store.write_under(transaction.clone(), &under)).await
}

async fn moved(store: &Store, ft: &FeatureType, id: &str) -> Result<Written, WriteError> {
    answered(|| write(store, vec![set_speed(ft, by_id(id), 5.0)])).await
}

fn is_locked(outcome: &Result<Written, WriteError>, by: &str) -> bool {
    matches!(outcome, Err(WriteError::Locked { id, .. }) if &**id == by)
}

async fn a_lock_holds_on_every_instance(world: World) {
    let (one, two, ft) = fleet(&world).await;
    let taken = lock(&one, &ft, &["a", "b"], LONG).await;
    assert_eq!((taken.features.len(), taken.others.len()), (2, 0));
    for store in [&one, &two] {
        assert!(is_locked(&moved(store, &ft, "a").await, "a"));
        assert!(is_locked(&write(store, vec![delete(&ft, Filter::All)]).await, "a"), "of many, one is locked");
        assert!(is_locked(&write(store, vec![insert(&ft, vec![ship("b", 2.0, "")], Existing::Replace)]).await, "b"));
        let put = Change::Put(Arc::new(ship("b", 2.0, "")));
        assert!(is_locked(&store.write_if(&ft.name, Expected::Present, put).await, "b"));
        assert!(moved(store, &ft, "c").await.is_ok());
    }
    let all = two.lock(named(&ft, &["c", "b"]), LONG, LockAction::All).await;
    assert!(matches!(all, Err(LockError::Taken { id, feature_type }) if &*id == "b" && feature_type == ft.name));
    let some = two.lock(named(&ft, &["c", "b"]), LONG, LockAction::Some).await.unwrap();
    assert_eq!((some.features, some.others), (named(&ft, &["c"]), named(&ft, &["b"])));
    assert!(is_locked(&moved(&one, &ft, "c").await, "c"));
    assert!(is_locked(&move_under(&one, &ft, "a", &some.id, Release::All).await, "a"), "of another lock");
    let unknown = move_under(&one, &ft, "a", "x", Release::All).await;
    assert!(matches!(unknown, Err(WriteError::NoLock(NoLock::Unknown(_)))));

    // Through the other instance than took it: one feature, then the rest.
    move_under(&two, &ft, "a", &taken.id, Release::Touched).await.unwrap();
    assert!(moved(&one, &ft, "a").await.is_ok() && is_locked(&moved(&one, &ft, "b").await, "b"));
    move_under(&two, &ft, "b", &taken.id, Release::All).await.unwrap();
    assert!(moved(&one, &ft, "b").await.is_ok() && moved(&two, &ft, "b").await.is_ok());
    let over = move_under(&two, &ft, "b", &taken.id, Release::All).await;
    assert!(matches!(over, Err(WriteError::NoLock(NoLock::Over(_)))));

    // A transaction of nothing releases; what it does not touch too.
    let nothing = UnderLock { id: some.id, release: Release::All };
    one.write_under(Transaction::default(), &nothing).await.unwrap();
    assert!(moved(&two, &ft, "c").await.is_ok());
}

async fn a_lock_outlives_the_instance_that_took_it(world: World) {
    let (one, two, ft) = fleet(&world).await;
    let taken = lock(&one, &ft, &["a"], LONG).await;
    one.abort();
    drop(one);
    assert!(is_locked(&moved(&two, &ft, "a").await, "a"));
    let three = world.instance("three").await;
    until("known", || async { is_locked(&moved(&three, &ft, "a").await, "a") }).await;
    move_under(&three, &ft, "a", &taken.id, Release::All).await.unwrap();
    until("released", || async { moved(&two, &ft, "a").await.is_ok() }).await;
}

async fn a_lock_ends_by_itself(world: World) {
    let (one, two, ft) = fleet(&world).await;
    let short = lock(&one, &ft, &["a"], Duration::from_millis(500)).await;
    let long = lock(&two, &ft, &["b"], LONG).await;
    for store in [&one, &two] {
        until("over", || async { moved(store, &ft, "a").await.is_ok() }).await;
        assert!(is_locked(&moved(store, &ft, "b").await, "b"));
        let over = move_under(store, &ft, "a", &short.id, Release::All).await;
        assert!(matches!(over, Err(WriteError::NoLock(NoLock::Over(_)))));
        let renewed = store.renew_lock(&short.id, LONG).await;
        assert!(matches!(renewed, Err(LockError::NoLock(NoLock::Over(_)))));
    }
    // A renewal sets another time, on every instance.
    let renewed = one.renew_lock(&long.id, Duration::from_millis(500)).await.unwrap();
    assert_eq!(renewed.features, named(&ft, &["b"]));
    until("over", || async { moved(&one, &ft, "b").await.is_ok() && moved(&two, &ft, "b").await.is_ok() }).await;
}

async fn of_two_that_lock_at_once_one_has_a_feature(world: World) {
    let (one, two, ft) = fleet(&world).await;
    for _ in 0..20 {
        let (a, b) = tokio::join!(
            one.lock(named(&ft, &["a", "b", "c"]), LONG, LockAction::All),
            two.lock(named(&ft, &["d", "c", "b"]), LONG, LockAction::All),
        );
        let given: Vec<LockedFeatures> = [a, b].into_iter().flatten().collect();
        assert_eq!(given.len(), 1, "one of the two and not both");
        let release = UnderLock { id: given[0].id.clone(), release: Release::All };
        two.write_under(Transaction::default(), &release).await.unwrap();
    }
}

/// One instance writes as fast as it can while the other locks: what was acknowledged without the lock is in what is read
/// under it, and nothing comes after it.
async fn what_was_begun_before_a_lock_is_seen_under_it(world: World) {
    let (one, two, ft) = fleet(&world).await;
    for round in 0..10 {
        let writer = async {
            let mut last = 0.0;
            for n in 1.. {
                let speed = f64::from(round * 100_000 + n);
                match write(&two, vec![set_speed(&ft, by_id("a"), speed)]).await {
                    Ok(_) => last = speed,
                    Err(e) => {
                        assert!(matches!(e, WriteError::Locked { .. }), "{e}");
                        break;
                    }
                }
            }
            last
        };
        let locker = async {
            let taken = lock(&one, &ft, &["a"], LONG).await;
            let (item, _) = one.get(&ft.name, "a", &taken.position).await.unwrap().unwrap();
            (taken, item.feature.value(1).clone())
        };
        let (last, (taken, seen)) = tokio::join!(writer, locker);
        let (item, _) = one.get(&ft.name, "a", &taken.position).await.unwrap().unwrap();
        assert_eq!(item.feature.value(1), &seen, "nothing came after it");
        if last > 0.0 {
            assert_eq!(seen, Value::Number(last));
        }
        let release = UnderLock { id: taken.id, release: Release::All };
        one.write_under(Transaction::default(), &release).await.unwrap();
    }
}
