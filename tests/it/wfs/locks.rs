//! LockFeature, GetFeatureWithLock and transactions under a lock, in every version; and what a lock is to OGC API.

use super::*;

const FES: &str = "xmlns:fes=\"http://www.opengis.net/fes/2.0\"";

fn query(ids: &[&str]) -> String {
    let ids: String = ids.iter().map(|id| format!("<fes:ResourceId rid=\"ships.{id}\"/>")).collect();
    format!("<wfs:Query typeNames=\"app:ships\"><fes:Filter>{ids}</fes:Filter></wfs:Query>")
}

fn delete(id: &str) -> String {
    format!("<wfs:Delete typeName=\"ships\"><fes:Filter><fes:ResourceId rid=\"ships.{id}\"/></fes:Filter></wfs:Delete>")
}

fn move_to(id: &str, sog: u32) -> String {
    format!(
        "<wfs:Update typeName=\"ships\"><wfs:Property><wfs:ValueReference>sog</wfs:ValueReference><wfs:Value>{sog}</wfs:Value>\
         </wfs:Property><fes:Filter><fes:ResourceId rid=\"ships.{id}\"/></fes:Filter></wfs:Update>"
    )
}

impl Server {
    /// A request of 2.0 under `name`.
    async fn locking(&self, name: &str, attributes: &str, content: &str) -> Answer {
        let ns = "xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" xmlns:app=\"urn:alluvium:app\"";
        let open = format!("<wfs:{name} service=\"WFS\" version=\"2.0.0\" {ns} {FES} {attributes}>");
        self.post(&format!("{open}{content}</wfs:{name}>")).await
    }

    async fn under(&self, lock: &str, attributes: &str, actions: &str) -> Answer {
        let attributes = format!("lockId=\"{lock}\" {attributes} xmlns:gml=\"http://www.opengis.net/gml/3.2\"");
        self.locking("Transaction", &attributes, actions).await
    }
}

#[track_caller]
fn lock_id(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let root = answer.xml();
    let id = root.attribute("lockId").map(str::to_owned).or_else(|| root.child("LockId").map(|id| id.text.clone()));
    id.unwrap_or_else(|| panic!("{}", answer.text))
}

/// The ids in a list of an answer to LockFeature.
fn listed(answer: &Answer, list: &str) -> Vec<String> {
    let root = answer.xml();
    let ids = root.child(list).into_iter().flat_map(|list| &list.children);
    ids.map(|id| id.attribute("rid").or(id.attribute("fid")).unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_changes_under_its_lock_alone() {
    let server = Server::with_ships().await;
    let answer = server.locking("LockFeature", "expiry=\"600\"", &query(&["s1", "s2", "s3"])).await;
    validate(&answer.text, WFS_20, None);
    let lock = lock_id(&answer);
    assert_eq!(listed(&answer, "FeaturesLocked"), ["ships.s1", "ships.s2", "ships.s3"]);

    exception(&server.transaction(&delete("s1")).await, 400, "MissingParameterValue", "lockId");
    exception(&server.under("nobody's", "", &delete("s1")).await, 400, "InvalidLockId", "lockId");
    let other = lock_id(&server.locking("LockFeature", "", &query(&["s5"])).await);
    exception(&server.under(&other, "", &delete("s1")).await, 400, "InvalidLockId", "lockId");
    exception(&server.under(&lock, "releaseAction=\"NONE\"", "").await, 400, "InvalidParameterValue", "releaseAction");

    // OGC API says it in its own way, of every way to write.
    let items = "/collections/ships/items";
    let feature = r#"{"type":"Feature","id":"s1","geometry":null,"properties":{}}"#;
    let json = [("content-type", "application/geo+json")];
    let locked = [
        server.0.send("PUT", &format!("{items}/s1"), &json, feature).await,
        server.0.send("PUT", &format!("{items}/s1"), &[json[0], ("if-match", "*")], feature).await,
        server.0.send("PATCH", &format!("{items}/s1"), &[], r#"{"properties":{"sog":0}}"#).await,
        server.0.send("DELETE", &format!("{items}/s1"), &[], "").await,
        server.0.send("POST", items, &json, feature).await,
    ];
    for answer in locked {
        let problem = answer.expect(423);
        assert_eq!(problem.header("content-type"), "application/problem+json");
        assert!(problem.json()["detail"].as_str().unwrap().contains("'s1'"), "{}", problem.text());
    }
    let lines = server.0.send("POST", items, &[("content-type", "application/x-ndjson")], feature).await.expect(200);
    assert_eq!((lines.json()["accepted"].as_u64(), lines.json()["rejected"].as_u64()), (Some(0), Some(1)));

    // One is released by its change, the others stay locked; then all are.
    let some = server.under(&lock, "releaseAction=\"SOME\"", &move_to("s1", 9)).await;
    assert!(some.text.contains("<wfs:totalUpdated>1</wfs:totalUpdated>"), "{}", some.text);
    assert_eq!(server.transaction(&move_to("s1", 8)).await.status, 200);
    exception(&server.transaction(&move_to("s2", 8)).await, 400, "MissingParameterValue", "lockId");
    assert_eq!(server.under(&lock, "", &move_to("s2", 9)).await.status, 200);
    assert_eq!(server.transaction(&move_to("s3", 8)).await.status, 200);
    exception(&server.under(&lock, "", &move_to("s3", 9)).await, 403, "LockHasExpired", "lockId");
    // A transaction of nothing ends a lock.
    exception(&server.transaction(&move_to("s5", 8)).await, 400, "MissingParameterValue", "lockId");
    assert_eq!(server.under(&other, "", "").await.status, 200);
    assert_eq!(server.transaction(&move_to("s5", 8)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_locked_or_some() {
    let server = Server::with_ships().await;
    let first = lock_id(&server.get("request=LockFeature&typeNames=ships&resourceId=ships.s2,ships.s4").await);
    let all = server.locking("LockFeature", "lockAction=\"ALL\"", &query(&["s1", "s2"])).await;
    exception_without_locator(&all, "CannotLockAllFeatures");
    assert_eq!(server.transaction(&move_to("s1", 1)).await.status, 200, "nothing was locked");

    let some = server.get("request=LockFeature&typeNames=ships&lockAction=SOME&expiry=60").await;
    validate(&some.text, WFS_20, None);
    assert_eq!(listed(&some, "FeaturesLocked"), ["ships.s1", "ships.s3", "ships.s5"]);
    assert_eq!(listed(&some, "FeaturesNotLocked"), ["ships.s2", "ships.s4"]);
    assert_ne!(lock_id(&some), first);
    // Of nothing too there is a lock.
    let none = server.get("request=LockFeature&typeNames=ships&resourceId=ships.none").await;
    validate(&none.text, WFS_20, None);
    assert!(listed(&none, "FeaturesLocked").is_empty());

    // To name the lock alone renews it.
    let renewed = server.get(&format!("request=LockFeature&lockId={first}&expiry=900")).await;
    validate(&renewed.text, WFS_20, None);
    assert_eq!((lock_id(&renewed), listed(&renewed, "FeaturesLocked").len()), (first.clone(), 2));
    let renewed = server.locking("LockFeature", &format!("lockId=\"{first}\""), "").await;
    assert_eq!(lock_id(&renewed), first);
    exception(&server.get("request=LockFeature&lockId=none").await, 403, "LockHasExpired", "lockId");
    // The schema demands a query beside it, which locks nothing more.
    let both = server.locking("LockFeature", &format!("lockId=\"{first}\""), &query(&["s1"])).await;
    assert_eq!(listed(&both, "FeaturesLocked"), ["ships.s2", "ships.s4"]);

    for (query, code, locator) in [
        ("typeNames=ships&expiry=0", "InvalidParameterValue", "expiry"),
        ("typeNames=ships&expiry=soon", "InvalidParameterValue", "expiry"),
        ("typeNames=ships&lockAction=FEW", "InvalidParameterValue", "lockAction"),
        ("typeNames=planes", "InvalidParameterValue", "typeName"),
        ("expiry=60", "MissingParameterValue", "typeNames"),
    ] {
        exception(&server.get(&format!("request=LockFeature&{query}")).await, 400, code, locator);
    }
}

/// The exception of a request as a whole.
#[track_caller]
fn exception_without_locator(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 400, "{}", answer.text);
    validate(&answer.text, OWS_11, None);
    assert_eq!(answer.xml().child("Exception").unwrap().attribute("exceptionCode"), Some(code), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn features_come_with_their_lock() {
    let server = Server::with_ships().await;
    let schema = server.get("request=DescribeFeatureType").await.text;
    let answer = server.locking("GetFeatureWithLock", "expiry=\"300\" count=\"2\"", &query(&["s1", "s2", "s3"])).await;
    validate(&answer.text, WFS_20, Some(&schema));
    let (lock, root) = (lock_id(&answer), answer.xml());
    assert_eq!((root.attribute("numberReturned"), root.attribute("next")), (Some("2"), None), "{}", answer.text);
    exception(&server.transaction(&delete("s2")).await, 400, "MissingParameterValue", "lockId");
    assert_eq!(server.transaction(&move_to("s3", 1)).await.status, 200, "what was not given is not locked");

    // Of some that are locked the others are given.
    let some = server.get("request=GetFeatureWithLock&typeNames=ships&lockAction=SOME").await;
    validate(&some.text, WFS_20, Some(&schema));
    let ids: Vec<String> = some.xml().children.iter().map(|m| m.children[0].attribute("id").unwrap().into()).collect();
    assert_eq!(ids, ["ships.s3", "ships.s4", "ships.s5"]);
    exception_without_locator(&server.get("request=GetFeatureWithLock&typeNames=ships").await, "CannotLockAllFeatures");
    assert_eq!(server.under(&lock, "", &delete("s2")).await.status, 200);

    for (query, locator) in
        [("resultType=hits", "resultType"), ("outputFormat=application/json", "outputFormat"), ("expiry=-1", "expiry")]
    {
        let answer = server.get(&format!("request=GetFeatureWithLock&typeNames=ships&{query}")).await;
        exception(&answer, 400, "InvalidParameterValue", locator);
    }
    // Nobody was told of a lock, so nothing is locked: an answer that fails ends what it had locked.
    let wrong = "request=GetFeatureWithLock&typeNames=ships&resourceId=ships.s1&srsName=EPSG:3857";
    let pole = "<wfs:Update typeName=\"ships\"><wfs:Property><wfs:ValueReference>geom</wfs:ValueReference><wfs:Value><gml:Point>\
                <gml:pos>90 7</gml:pos></gml:Point></wfs:Value></wfs:Property><fes:Filter><fes:ResourceId rid=\"ships.s1\"/>\
                </fes:Filter></wfs:Update>";
    assert_eq!(server.transaction(pole).await.status, 200);
    exception(&server.get(wrong).await, 400, "InvalidParameterValue", "srsName");
    until(async || server.transaction(&move_to("s1", 3)).await.status == 200).await;
}

async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !reached().await {
        assert!(std::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_by_itself_and_not_with_the_server() {
    let server = Server::with_ships().await;
    let long = lock_id(&server.locking("LockFeature", "expiry=\"3600\"", &query(&["s2"])).await);
    let short = lock_id(&server.locking("LockFeature", "expiry=\"1\"", &query(&["s1"])).await);
    until(async || server.transaction(&move_to("s1", 1)).await.status == 200).await;
    exception(&server.under(&short, "", &move_to("s1", 2)).await, 403, "LockHasExpired", "lockId");
    exception(&server.get(&format!("request=LockFeature&lockId={short}")).await, 403, "LockHasExpired", "lockId");

    let server = Server(server.0.restart(SETTINGS).await);
    app::wait_until_ready(&server.0).await;
    exception(&server.transaction(&move_to("s2", 1)).await, 400, "MissingParameterValue", "lockId");
    assert_eq!(server.under(&long, "", &move_to("s2", 1)).await.status, 200);
    assert_eq!(server.transaction(&move_to("s2", 2)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_versions_before_lock_in_their_own_words() {
    for (version, schema, collection) in [("1.1.0", WFS_11, WFS_11), ("1.0.0", WFS_10, WFS_10)] {
        let server = Server::with_ships().await;
        let described = server.ask(version, "request=DescribeFeatureType").await.text;
        let ns = "xmlns=\"http://www.opengis.net/wfs\" xmlns:ogc=\"http://www.opengis.net/ogc\"";
        let request = |name: &str, attributes: &str, content: &str| {
            format!("<{name} service=\"WFS\" version=\"{version}\" {ns} {attributes}>{content}</{name}>")
        };
        let filter = |id: &str| format!("<ogc:Filter><ogc:FeatureId fid=\"ships.{id}\"/></ogc:Filter>");
        let locks = format!("<Lock typeName=\"ships\" handle=\"h\">{}</Lock>", filter("s1"));
        let answer = server.post(&request("LockFeature", "expiry=\"5\" lockAction=\"SOME\"", &locks)).await;
        validate(&answer.text, schema, None);
        assert_eq!(listed(&answer, "FeaturesLocked"), ["ships.s1"]);
        let lock = lock_id(&answer);
        let again = server.ask(version, "request=LockFeature&typeName=ships&lockAction=SOME").await;
        validate(&again.text, schema, None);
        assert_eq!(listed(&again, "FeaturesNotLocked"), ["ships.s1"]);
        let other = lock_id(&again);

        let change = format!(
            "<Update typeName=\"ships\"><Property><Name>sog</Name><Value>3</Value></Property>{}</Update>",
            filter("s1")
        );
        let refused = server.post(&request("Transaction", "", &change)).await;
        assert!(refused.text.contains("MissingParameterValue"), "{}", refused.text);
        let wrong = server.post(&request("Transaction", "", &format!("<LockId>{other}</LockId>{change}"))).await;
        assert!(wrong.text.contains("InvalidLockId"), "{}", wrong.text);
        let done = server.post(&request("Transaction", "", &format!("<LockId>{lock}</LockId>{change}"))).await;
        validate(&done.text, schema, None);
        assert!(done.text.contains("TransactionResponse"), "{}", done.text);

        let query = format!("<Query typeName=\"ships\">{}</Query>", filter("s1"));
        let answer = server.post(&request("GetFeatureWithLock", "expiry=\"5\"", &query)).await;
        validate(&answer.text, collection, Some(&described));
        assert!(!lock_id(&answer).is_empty() && answer.text.contains("ships.s1"));
        let taken = server.ask(version, "request=GetFeatureWithLock&typeName=ships&featureId=ships.s1").await;
        assert!(taken.text.contains("CannotLockAllFeatures"), "{}", taken.text);
        assert_eq!(server.post(&request("Transaction", "", &format!("<LockId>{other}</LockId>"))).await.status, 200);
    }
}
