//! The contract of [`Coordinator`], checked on the one inside the process and on ZooKeeper.

use std::time::{Duration, Instant};

use alluvium::coordination::local::LocalCoordinator;
use alluvium::coordination::{Coordinator, Lease, MOST_AGREED};

const RESOURCES: usize = 40;

/// How long something may take on the most loaded of machines.
const PATIENCE: Duration = Duration::from_secs(30);

fn resources() -> Vec<String> {
    (0..RESOURCES).map(|n| format!("ships/{n}")).collect()
}

/// What a sweeper does: gives up what it should not hold any more, asks for everything else.
async fn step(of: &dyn Coordinator, held: &mut Vec<(String, Box<dyn Lease>)>) {
    let (keep, lose): (Vec<_>, Vec<_>) = held.drain(..).partition(|(_, lease)| lease.is_held());
    *held = keep;
    for (_, lease) in lose {
        lease.release().await;
    }
    for resource in resources() {
        // An error is a service that is down: asked again at the next step.
        if let Ok(Some(lease)) = of.acquire(&resource).await {
            held.push((resource, lease));
        }
    }
}

async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_members(of: &dyn Coordinator, want: &[&str]) {
    until(&format!("members {want:?}"), PATIENCE, async || of.members().await.is_ok_and(|m| m == want)).await;
}

/// One instance holds everything, a second takes its share, and gets the rest when the first has gone.
async fn leases_spread_and_move<C: Coordinator>(a: C, join: impl FnOnce() -> C) {
    until_members(&a, &["a"]).await;
    let (mut held_a, mut held_b) = (Vec::new(), Vec::new());
    step(&a, &mut held_a).await;
    assert_eq!(held_a.len(), RESOURCES, "the only instance holds all");
    assert!(a.acquire("ships/0").await.unwrap().is_none(), "a lease is exclusive within its holder too");

    let b = join();
    until_members(&b, &["a", "b"]).await;
    until_members(&a, &["a", "b"]).await;
    step(&b, &mut held_b).await;
    assert!(held_b.is_empty(), "what is held is not given twice");
    let moved = held_a.iter().filter(|(_, lease)| !lease.is_held()).count();
    step(&a, &mut held_a).await;
    step(&b, &mut held_b).await;
    assert_eq!((held_a.len(), held_b.len()), (RESOURCES - moved, moved));
    assert!((RESOURCES / 4..=RESOURCES * 3 / 4).contains(&moved), "{moved} of {RESOURCES} moved");

    let (resource, lease) = held_b.pop().unwrap();
    lease.release().await;
    assert!(a.acquire(&resource).await.unwrap().is_none(), "it is the other's by its fair share");
    let lease = b.acquire(&resource).await.unwrap().expect("released, so it is free");
    drop(lease);
    until("a dropped lease is free", PATIENCE, async || b.acquire(&resource).await.unwrap().is_some()).await;

    drop(a);
    assert!(held_a.iter().all(|(_, lease)| !lease.is_held()), "leases end with their instance");
    until("the other instance holds all", PATIENCE, async || {
        step(&b, &mut held_b).await;
        held_b.len() == RESOURCES
    })
    .await;
    drop(held_a);
    assert!(held_b.iter().all(|(_, lease)| lease.is_held()), "a dead lease takes nothing from its successor");
}

/// What one agrees on the other learns; nobody is asked in vain, and what was agreed on stays.
async fn instances_agree<C: Coordinator>(a: C, join: impl Fn(&str) -> C) {
    until_members(&a, &["a"]).await;
    let first = a.unconfirmed_agreement().await;
    assert!(first.text.is_empty() && !a.is_consulted());
    a.confirm(first.version).await.unwrap();
    assert!(a.is_consulted());
    assert_eq!(a.unconfirmed_by(first.version).await.unwrap(), [""; 0]);

    let b = join("b");
    until_members(&a, &["a", "b"]).await;
    until_members(&b, &["a", "b"]).await;
    assert_eq!(a.unconfirmed_by(first.version).await.unwrap(), ["b"], "who comes must confirm what is agreed on");
    assert_eq!(b.unconfirmed_agreement().await, first);
    b.confirm(first.version).await.unwrap();

    let second = a.agree(first.version, "two".into()).await.unwrap().expect("nobody else has changed it");
    assert!(second > first.version);
    assert_eq!(b.agree(first.version, "other".into()).await.unwrap(), None, "on what has changed since");
    let (told_a, told_b) = tokio::join!(a.unconfirmed_agreement(), b.unconfirmed_agreement());
    assert_eq!((told_a.version, &*told_a.text, &told_b), (second, &b"two"[..], &told_a));
    assert_eq!(b.agreement().await.unwrap(), told_a);
    assert_eq!(a.unconfirmed_by(second).await.unwrap(), ["a", "b"]);
    b.confirm(second).await.unwrap();
    assert_eq!(b.unconfirmed_by(second).await.unwrap(), ["a"]);
    a.confirm(second).await.unwrap();
    assert_eq!(a.unconfirmed_by(second).await.unwrap(), [""; 0]);

    // Many at once: each change is on top of another.
    let add = async |of: &C| {
        for _ in 0..10 {
            while let now = of.agreement().await.unwrap()
                && of.agree(now.version, [&now.text[..], b"+"].concat().into()).await.unwrap().is_none()
            {}
        }
    };
    tokio::join!(add(&a), add(&b));
    let sum = a.agreement().await.unwrap();
    assert_eq!(sum.text.len(), 3 + 20);
    a.agree(sum.version, vec![b'x'; MOST_AGREED].into()).await.unwrap().expect("nobody else changes it");
    let last = b.agreement().await.unwrap();
    assert_eq!(last.text.len(), MOST_AGREED);
    b.confirm(last.version).await.unwrap();
    drop(a);
    until("who has gone is not asked", PATIENCE, async || b.unconfirmed_by(last.version).await.unwrap().is_empty())
        .await;
    let c = join("c");
    assert_eq!(c.unconfirmed_agreement().await, last, "it outlives who agreed on it");
}

#[tokio::test]
async fn local_instances_agree() {
    let door = LocalCoordinator::new("door");
    door.leave();
    instances_agree(door.join("a"), |name| door.join(name)).await;
}

#[tokio::test]
async fn local_leases_spread_and_move() {
    let a = LocalCoordinator::new("a");
    // `a` is moved into the suite, so the group is kept open by another handle that has left it.
    let door = a.join("door");
    door.leave();
    leases_spread_and_move(a, || door.join("b")).await;
}

#[tokio::test]
async fn local_instance_that_left_gets_nothing() {
    let a = LocalCoordinator::new("a");
    let lease = a.acquire("ships/0").await.unwrap().unwrap();
    let again = a.join("a");
    assert!(!lease.is_held());
    assert!(a.acquire("ships/0").await.is_err());
    let lease_again = again.acquire("ships/0").await.unwrap().unwrap();
    drop((lease, a));
    assert!(lease_again.is_held());
    assert_eq!(again.members().await.unwrap(), ["a"]);
}

#[cfg(feature = "cluster")]
mod zookeeper {
    use std::path::Path;
    use std::process::Command;

    use alluvium::coordination::zookeeper::{ZooKeeper, ZooKeeperSettings};

    use super::*;
    use crate::real::server;

    /// Long enough that no load makes a living instance lose its own.
    const SESSION: Duration = Duration::from_secs(6);

    fn settings(servers: &str) -> ZooKeeperSettings {
        // A root of its own for each test.
        let root = format!("/alluvium-test-{}", alluvium::model::new_id());
        ZooKeeperSettings { servers: servers.into(), root, session_timeout: SESSION, auth: None }
    }

    #[tokio::test]
    async fn zookeeper_leases_spread_and_move() {
        let Some(servers) = server("ALLUVIUM_ZOOKEEPER") else { return };
        let settings = settings(&servers);
        let start = |name| ZooKeeper::start(settings.clone(), name).unwrap();
        leases_spread_and_move(start("a"), || start("b")).await;
    }

    #[tokio::test]
    async fn zookeeper_instances_agree() {
        let Some(servers) = server("ALLUVIUM_ZOOKEEPER") else { return };
        let settings = settings(&servers);
        let start = |name: &str| ZooKeeper::start(settings.clone(), name).unwrap();
        instances_agree(start("a"), start).await;
    }

    #[tokio::test]
    async fn zookeeper_makes_the_path_that_the_servers_end_in() {
        let Some(servers) = server("ALLUVIUM_ZOOKEEPER") else { return };
        let below = settings(&servers);
        let inside = settings(&format!("{servers}{}/x/", below.root));
        let a = ZooKeeper::start(inside.clone(), "a").unwrap();
        until_members(&a, &["a"]).await;
        let root = format!("{}/x{}", below.root, inside.root);
        let b = ZooKeeper::start(ZooKeeperSettings { root, ..below }, "b").unwrap();
        until_members(&b, &["a", "b"]).await;
    }

    #[tokio::test]
    async fn zookeeper_knows_its_user() {
        let Some(servers) = server("ALLUVIUM_ZOOKEEPER") else { return };
        let ours = ZooKeeperSettings { auth: Some(("digest".into(), "ships:sea".into())), ..settings(&servers) };
        let a = ZooKeeper::start(ours.clone(), "a").unwrap();
        until_members(&a, &["a"]).await;
        assert!(a.acquire("ships/0").await.unwrap().is_some());
        let stranger = ZooKeeper::start(ZooKeeperSettings { auth: None, ..ours }, "stranger").unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(stranger.members().await.is_err());
        assert_eq!(a.members().await.unwrap(), ["a"]);
    }

    /// The process dies: its runtime stops in the middle, nothing is closed or released.
    #[test]
    fn zookeeper_leases_of_the_dead_are_free_within_the_session() {
        let Some(servers) = server("ALLUVIUM_ZOOKEEPER") else { return };
        let settings = settings(&servers);
        let [doomed, survivor] = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
        let enter = |rt: &tokio::runtime::Runtime, name: &str| {
            let _in = rt.enter();
            ZooKeeper::start(settings.clone(), name).unwrap()
        };
        let (a, b) = (enter(&doomed, "a"), enter(&survivor, "b"));
        let (mut held_a, mut held_b) = (Vec::new(), Vec::new());
        doomed.block_on(async {
            until_members(&a, &["a", "b"]).await;
            step(&a, &mut held_a).await;
        });
        survivor.block_on(until_members(&b, &["a", "b"]));
        doomed.shutdown_background();
        survivor.block_on(async {
            step(&b, &mut held_b).await;
            assert_eq!(held_a.len() + held_b.len(), RESOURCES);
            assert!(!held_a.is_empty() && held_a.iter().all(|(_, lease)| lease.is_held()), "no news is good news");
            until("all leases move", PATIENCE, async || {
                step(&b, &mut held_b).await;
                if held_a.iter().any(|(_, lease)| lease.is_held()) {
                    assert_eq!(held_a.len() + held_b.len(), RESOURCES, "held by both at once");
                }
                held_b.len() == RESOURCES
            })
            .await;
        });
    }

    /// `tests/stack/zookeeper`, on a server of this test's own.
    struct Server {
        directory: tempfile::TempDir,
        port: u16,
    }

    impl Server {
        fn start() -> Server {
            let directory = tempfile::tempdir().unwrap();
            // Below those that the system gives to connections: it must be free at each start.
            let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
            let port = (25_000..25_900).find(free).unwrap();
            let server = Server { directory, port };
            server.run("start");
            server
        }

        fn run(&self, verb: &str) {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/zookeeper");
            let status = Command::new(script)
                .arg(verb)
                .env("STACK_DIR", self.directory.path())
                // ZooKeeper listens on the third port of a stack's block.
                .env("STACK_PORT_BASE", (self.port - 2).to_string())
                .status();
            assert!(status.unwrap().success(), "zookeeper {verb}");
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.run("kill");
        }
    }

    #[tokio::test]
    async fn zookeeper_comes_back_after_the_server() {
        if server("ALLUVIUM_ZOOKEEPER").is_none() {
            return;
        }
        let server = Server::start();
        let a = ZooKeeper::start(settings(&format!("127.0.0.1:{}", server.port)), "a").unwrap();
        until_members(&a, &["a"]).await;
        let mut held = Vec::new();
        step(&a, &mut held).await;
        assert_eq!(held.len(), RESOURCES);

        // Something is agreed on.
        let agreed = a.unconfirmed_agreement().await;
        let version = a.agree(agreed.version, "kept".into()).await.unwrap().unwrap();
        a.confirm(version).await.unwrap();

        // A short pause: the session goes on.
        server.run("restart");
        until("leases after a restart", PATIENCE, async || {
            step(&a, &mut held).await;
            held.len() == RESOURCES
        })
        .await;

        // A long one: nothing is held, nothing can be had, and then everything again.
        server.run("kill");
        let since = Instant::now();
        until("doubt", PATIENCE, async || held.iter().all(|(_, lease)| !lease.is_held())).await;
        assert!(a.acquire("other").await.is_err() && a.members().await.is_err());
        assert!(!a.is_consulted() && a.agreement().await.is_err() && a.agree(version, "lost".into()).await.is_err());
        tokio::time::sleep((SESSION * 2).saturating_sub(since.elapsed())).await;
        server.run("start");
        until("leases after a failure", PATIENCE, async || {
            step(&a, &mut held).await;
            held.len() == RESOURCES
        })
        .await;
        assert!(!a.is_consulted(), "in the new session nothing is confirmed yet");
        let agreed = a.unconfirmed_agreement().await;
        assert_eq!((agreed.version, &*agreed.text), (version, &b"kept"[..]));
        a.confirm(version).await.unwrap();
        assert!(a.is_consulted());
        let task = a.tasks().remove(0);
        assert!(task.restarts > 0 && !task.backing_off && task.last_error.is_some(), "{task:?}");
    }

    #[tokio::test]
    async fn zookeeper_that_is_away_is_asked_again_and_shown() {
        let a = ZooKeeper::start(settings("127.0.0.1:1"), "a").unwrap();
        let failed_again = async || {
            let tasks = a.tasks();
            tasks.len() == 1 && tasks[0].restarts >= 2 && tasks[0].last_error.is_some()
        };
        until("a second attempt", PATIENCE, failed_again).await;
        assert!(a.members().await.is_err() && a.acquire("ships/0").await.is_err());
    }

    #[tokio::test]
    async fn zookeeper_settings_are_checked() {
        for root in ["alluvium", "/", "/a/", "/a//b", ""] {
            let settings = ZooKeeperSettings { root: root.into(), ..ZooKeeperSettings::default() };
            assert!(ZooKeeper::start(settings, "a").is_err(), "{root}");
        }
    }
}
