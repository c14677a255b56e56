//! LockFeature and GetFeatureWithLock (WFS 2.0, 12 and 13; 1.1.0, 11 and 9; 1.0.0, 10 and 9).
//!
//! A lock is the store's, and holds for every protocol. Here it is asked for and told. 2.0 counts its time in seconds, what came
//! before in minutes.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use rustc_hash::FxHashSet;

use super::answer::{self, Members};
use super::exception::{Code, Exception, Result};
use super::format::Format;
use super::get_feature::{Asked, Request, by_id, read_kvp, read_xml};
use super::kvp::Kvp;
use super::query::{QueryRequest, longest_page};
use super::{Ask, OLD_WFS_NS, Version, WFS_NS, xml_response};
use crate::format::gml::gml_id;
use crate::format::xml::{self, Element};
use crate::model::FeatureId;
use crate::store::api::{LockAction, LockedFeatures};
use crate::web::access::Role;
use crate::web::request::whole_number;

/// Of a lock that is asked for without one.
const DEFAULT_EXPIRY: Duration = Duration::from_secs(300);
/// Nobody but its owner can end a lock before its time.
const LONGEST_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// More are not looked for: the store would not lock them.
const MOST_FEATURES: usize = 250_000;

/// How a lock is wanted.
struct Terms {
    expiry: Duration,
    action: LockAction,
}

impl Terms {
    fn read(version: Version, expiry: Option<&str>, action: Option<&str>) -> Result<Terms> {
        let (unit, name) = if version == Version::V2_0 { (1, "seconds") } else { (60, "minutes") };
        let wrong = |text: &str| {
            let most = LONGEST_EXPIRY.as_secs() / unit;
            Exception::invalid("expiry", format!("expiry: '{text}' is not a number of {name} from 1 to {most}"))
        };
        let seconds =
            |text: &str| whole_number(text.trim()).and_then(|n| n.checked_mul(unit)).ok_or_else(|| wrong(text));
        let expiry = match expiry {
            None => DEFAULT_EXPIRY,
            Some(text) => match Duration::from_secs(seconds(text)?) {
                expiry if expiry.is_zero() || expiry > LONGEST_EXPIRY => return Err(wrong(text)),
                expiry => expiry,
            },
        };
        let action = match action.map(str::trim) {
            None => LockAction::All,
            Some(text) if text.eq_ignore_ascii_case("ALL") => LockAction::All,
            Some(text) if text.eq_ignore_ascii_case("SOME") => LockAction::Some,
            Some(other) => {
                let text = format!("lockAction: '{other}' is not one of ALL, SOME");
                return Err(Exception::invalid("lockAction", text));
            }
        };
        Ok(Terms { expiry, action })
    }

    fn of_kvp(ask: &Ask, kvp: &Kvp) -> Result<Terms> {
        Terms::read(ask.version, kvp.get("expiry"), kvp.get("lockAction"))
    }

    fn of_xml(ask: &Ask, root: &Element) -> Result<Terms> {
        Terms::read(ask.version, root.attribute("expiry"), root.attribute("lockAction"))
    }
}

pub async fn from_kvp(ask: &Ask, kvp: Kvp) -> Result<Response> {
    let terms = Terms::of_kvp(ask, &kvp)?;
    match kvp.get("lockId") {
        Some(id) => renew(ask, id.trim(), &terms).await,
        None => lock(ask, queries(ask, read_kvp(ask, kvp).await?)?, &terms).await,
    }
}

pub async fn from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    let terms = Terms::of_xml(ask, root)?;
    match root.attribute("lockId").filter(|id| !id.trim().is_empty()) {
        // The query that stands beside it is there for the schema's sake.
        Some(id) => renew(ask, id.trim(), &terms).await,
        None if ask.version == Version::V2_0 => lock(ask, queries(ask, read_xml(ask, root).await?)?, &terms).await,
        None => lock(ask, old_queries(root)?, &terms).await,
    }
}

pub async fn features_from_kvp(ask: &Ask, kvp: Kvp) -> Result<Response> {
    let terms = Terms::of_kvp(ask, &kvp)?;
    get_feature(ask, read_kvp(ask, kvp).await?, &terms).await
}

pub async fn features_from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    let terms = Terms::of_xml(ask, root)?;
    get_feature(ask, read_xml(ask, root).await?, &terms).await
}

/// As before 2.0: a `wfs:Lock` for each type.
fn old_queries(root: &Element) -> Result<Vec<QueryRequest>> {
    let mut queries = Vec::new();
    for child in &root.children {
        if &*child.local != "Lock" {
            return Err(child.error(format!("'{}' is not a Lock", child.local)).into());
        }
        let name = child.attribute("typeName").filter(|name| !name.trim().is_empty());
        let type_name = name.ok_or_else(|| Exception::missing("typeName"))?.to_owned();
        queries.push(QueryRequest { type_name, filter: child.child("Filter").cloned(), ..QueryRequest::default() });
    }
    if queries.is_empty() { Err(Exception::missing("Lock")) } else { Ok(queries) }
}

fn request(ask: &Ask, asked: Asked) -> Result<Request> {
    match asked {
        Asked::Queries(request) => Ok(request),
        Asked::ById { id, format } => by_id(ask, &id, format),
    }
}

fn queries(ask: &Ask, asked: Asked) -> Result<Vec<QueryRequest>> {
    Ok(request(ask, asked)?.queries)
}

/// The features that match, each once, from the `start`th on and `limit` at most, by their types' names.
async fn matching(
    ask: &Ask,
    queries: &[QueryRequest],
    mut start: u64,
    limit: usize,
) -> Result<Vec<(String, FeatureId)>> {
    let (mut found, mut seen) = (Vec::new(), FxHashSet::default());
    for query in queries {
        let prepared = query.prepare(ask)?;
        let name = prepared.ft.name.clone();
        ask.caller.may(Role::Editor, Some(&name))?;
        let mut reading = ask.web.store.read(prepared.query).await?;
        while found.len() < limit
            && let Some(item) = reading.next().await.transpose()?
        {
            let feature = (name.clone(), item.feature.id.clone());
            if start > 0 {
                start -= 1;
            } else if seen.insert(feature.clone()) {
                found.push(feature);
            }
        }
    }
    Ok(found)
}

async fn lock(ask: &Ask, queries: Vec<QueryRequest>, terms: &Terms) -> Result<Response> {
    let wanted = matching(ask, &queries, 0, MOST_FEATURES).await?;
    let locked = ask.web.store.lock(wanted, terms.expiry, terms.action).await?;
    Ok(told(ask.version, &locked))
}

async fn renew(ask: &Ask, id: &str, terms: &Terms) -> Result<Response> {
    // Whoever knows the lock may renew it. To 12.4 a lock that is not there is one that has expired.
    let renewed =
        ask.web.store.renew_lock(id, terms.expiry).await.map_err(Exception::from).map_err(|e| match e.code() {
            Code::InvalidLockId => Exception::new(Code::LockHasExpired, "lockId", e.text()),
            _ => e,
        })?;
    Ok(told(ask.version, &renewed))
}

/// GetFeatureWithLock: locks what GetFeature would give, and gives what of it is locked, as it is from then on.
async fn get_feature(ask: &Ask, asked: Asked, terms: &Terms) -> Result<Response> {
    let request = request(ask, asked)?;
    if request.hits {
        return Err(Exception::invalid("resultType", "GetFeatureWithLock gives features, not how many there are"));
    }
    if !matches!(request.format, Format::Gml(_)) {
        return Err(Exception::invalid("outputFormat", "only GML has a place for the id of the lock"));
    }
    let pages = ask.version.dialect().pages;
    let most = if pages { longest_page(ask, &request.queries)? } else { MOST_FEATURES as u64 };
    let limit = request.count.unwrap_or(most).min(most);
    let wanted = matching(ask, &request.queries, request.start, limit as usize).await?;
    let locked = ask.web.store.lock(wanted, terms.expiry, terms.action).await?;
    let id = locked.id.clone();
    let mut locking = ask.clone();
    locking.at_least.merge(&locked.position);
    locking.lock = Some(Arc::new(locked));
    // Other pages would have other locks.
    let request = Request { start: 0, as_kvp: None, ..request };
    let answer = answer::collection(&locking, request, Members::Features).await;
    answer.inspect_err(|_| ask.web.store.abandon_lock(id))
}

/// `LockFeatureResponse`.
fn told(version: Version, lock: &LockedFeatures) -> Response {
    let mut out = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec();
    let mut id = Vec::new();
    xml::attribute(&mut id, &lock.id);
    let id = String::from_utf8_lossy(&id);
    let root = if version == Version::V1_0 { "wfs:WFS_LockFeatureResponse" } else { "wfs:LockFeatureResponse" };
    let (open, feature) = match version {
        Version::V2_0 => (
            format!("<{root} xmlns:wfs=\"{WFS_NS}\" xmlns:fes=\"http://www.opengis.net/fes/2.0\" lockId=\"{id}\">"),
            "fes:ResourceId rid",
        ),
        _ => (
            format!(
                "<{root} xmlns:wfs=\"{OLD_WFS_NS}\" xmlns:ogc=\"http://www.opengis.net/ogc\"><wfs:LockId>{id}</wfs:LockId>"
            ),
            "ogc:FeatureId fid",
        ),
    };
    out.extend_from_slice(open.as_bytes());
    // An empty list is not valid.
    for (name, features) in [("FeaturesLocked", &lock.features), ("FeaturesNotLocked", &lock.others)] {
        if !features.is_empty() {
            out.extend_from_slice(format!("<wfs:{name}>").as_bytes());
            for (type_name, id) in features {
                out.extend_from_slice(format!("<{feature}=\"{}\"/>", gml_id(type_name, id)).as_bytes());
            }
            out.extend_from_slice(format!("</wfs:{name}>").as_bytes());
        }
    }
    out.extend_from_slice(format!("</{root}>\n").as_bytes());
    xml_response(out, "text/xml; charset=UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_in_the_units_of_their_version() {
        let seconds = |version, expiry| Terms::read(version, Some(expiry), None).map(|terms| terms.expiry.as_secs());
        assert_eq!(seconds(Version::V2_0, "20").unwrap(), 20);
        assert_eq!(seconds(Version::V1_1, " 20 ").unwrap(), 1200);
        assert_eq!(seconds(Version::V1_0, "1440").unwrap(), 86_400);
        for (version, wrong) in [
            (Version::V2_0, "0"),
            (Version::V2_0, "86401"),
            (Version::V2_0, "-1"),
            (Version::V2_0, "1.5"),
            (Version::V1_0, "1441"),
            (Version::V1_1, "18446744073709551615"),
        ] {
            assert_eq!(seconds(version, wrong).unwrap_err().code(), Code::InvalidParameterValue, "{wrong}");
        }
        let action = |text| Terms::read(Version::V2_0, None, text).map(|terms| terms.action);
        assert_eq!(action(None).unwrap(), LockAction::All);
        assert_eq!(action(Some("some")).unwrap(), LockAction::Some);
        assert!(action(Some("few")).is_err());
    }
}
