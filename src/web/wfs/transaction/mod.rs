//! Transaction (WFS 2.0, 15; 1.1, 12; 1.0, 12), in three dialects and a half.
//!
//! QGIS posts documents of 1.0.0 to a layer of 2.0, GDAL documents that call themselves 2.0.0 in the namespace of 1.1: the
//! document decides how it is read and how it is answered, never the layer. It is walked element by element, so that what is
//! held is the actions and never the tree of the whole.

mod parse;

use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::{Ask, OLD_WFS_NS, Version, WFS_NS, xml_response};
use crate::format::gml::gml_id;
use crate::format::xml::{self, Element, Reader};
use crate::model::FeatureId;
use crate::store::api::{ActionKind, Transaction, UnderLock, WriteError, Written};
use crate::web::request::position_header;
use parse::{Label, Parsed};

/// How a document is meant and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    version: Version,
    /// GDAL's: in the namespace of 1.1, with the version of the capabilities. It looks for its ids in either version's element.
    mixed: bool,
}

impl Dialect {
    fn of(root: &Element) -> Result<Dialect> {
        let asked = root.attribute("version");
        let version = match asked {
            None => None,
            Some(text) => {
                let unknown = || Exception::invalid("version", format!("version '{text}' is not offered"));
                Some(Version::parse(text).ok_or_else(unknown)?)
            }
        };
        let old = &*root.ns == OLD_WFS_NS;
        Ok(match (old, version) {
            (true, Some(Version::V2_0)) => Dialect { version: Version::V1_1, mixed: true },
            (true, version) => Dialect { version: version.unwrap_or(Version::V1_1), mixed: false },
            (false, _) => Dialect { version: Version::V2_0, mixed: false },
        })
    }
}

/// Reads the actions, whose root element's start was read last, does them, and tells what was done.
pub async fn respond(ask: &Ask, root: &Element, reader: &mut Reader<'_>, version: &mut Version) -> Result<Response> {
    let dialect = Dialect::of(root)?;
    *version = dialect.version;
    let parsed = parse::read(ask, root, reader, dialect).await?;
    let Parsed { actions, labels, lock } = parsed;
    let kinds: Vec<(Kind, String)> = actions.iter().map(|a| (Kind::of(&a.kind), a.feature_type.clone())).collect();
    let transaction = Transaction { actions, at_least: ask.at_least.clone() };
    let written = match &lock {
        None => ask.web.store.write(transaction).await,
        Some(lock) => ask.web.store.write_under(transaction, lock).await,
    };
    let written = written.map_err(|e| at_fault(e, &labels, lock.as_ref()))?;
    let position = position_header(&written.position);
    let mut answer = Answer { dialect, out: Vec::new(), kinds, labels, written };
    answer.write();
    let mut response = xml_response(answer.out, "text/xml; charset=UTF-8");
    response.headers_mut().extend(position);
    Ok(response)
}

/// The error with the handle of the action that caused it, where the client gave it one.
fn at_fault(e: WriteError, labels: &[Label], lock: Option<&UnderLock>) -> Exception {
    if let (WriteError::Locked { .. }, Some(lock)) = (&e, lock) {
        return Exception::new(Code::InvalidLockId, "lockId", format!("{e} by another lock than '{}'", lock.id));
    }
    let handle = match &e {
        WriteError::Invalid { action, .. } => labels.get(*action).and_then(|l| l.handle.as_ref()),
        _ => None,
    };
    let exception = Exception::from(e);
    match handle {
        Some(handle) => exception.with_text(|text| format!("{text} (in the action '{handle}')")),
        None => exception,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Replace,
    Delete,
}

impl Kind {
    fn of(kind: &ActionKind) -> Kind {
        match kind {
            ActionKind::Insert { .. } => Kind::Insert,
            // No WFS request appends; to a feature's line it is an update.
            ActionKind::Update { .. } | ActionKind::Append { .. } => Kind::Update,
            ActionKind::Replace { .. } => Kind::Replace,
            ActionKind::Delete { .. } => Kind::Delete,
        }
    }
}

struct Answer {
    dialect: Dialect,
    out: Vec<u8>,
    /// Of each action, with its type.
    kinds: Vec<(Kind, String)>,
    labels: Vec<Label>,
    written: Written,
}

impl Answer {
    fn raw(&mut self, s: &str) {
        self.out.extend_from_slice(s.as_bytes());
    }

    fn write(&mut self) {
        self.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        match self.dialect.version {
            Version::V1_0 => self.write_1_0(),
            Version::V1_1 => self.write_1_1(),
            Version::V2_0 => self.write_2_0(),
        }
    }

    /// The prefixes are declared on the root: there are clients that look them up there.
    fn root(&mut self, name: &str, version: &str, wfs: &str, filter: &str) {
        self.raw(&format!("<wfs:{name} version=\"{version}\" xmlns:wfs=\"{wfs}\" {filter}>"));
    }

    fn total(&self, kind: Kind) -> usize {
        self.kinds.iter().zip(&self.written.ids).filter(|((k, _), _)| *k == kind).map(|(_, ids)| ids.len()).sum()
    }

    fn totals(&mut self, totals: &[(&str, Kind)]) {
        self.raw("<wfs:TransactionSummary>");
        for (name, kind) in totals {
            let n = self.total(*kind);
            self.raw(&format!("<wfs:{name}>{n}</wfs:{name}>"));
        }
        self.raw("</wfs:TransactionSummary>");
    }

    /// One `element` per feature of the actions of a kind, in the order of the request; `id` writes what is in it. Gives the
    /// number of features.
    fn features(&mut self, kind: Kind, element: &str, id: impl Fn(&mut Vec<u8>, &str)) -> usize {
        let ids = std::mem::take(&mut self.written.ids);
        let mut n = 0;
        for (i, ids) in ids.iter().enumerate() {
            if self.kinds[i].0 == kind {
                ids.iter().for_each(|key| self.feature(i, key, element, &id));
                n += ids.len();
            }
        }
        self.written.ids = ids;
        n
    }

    fn feature(&mut self, action: usize, key: &FeatureId, element: &str, id: impl Fn(&mut Vec<u8>, &str)) {
        self.raw(&format!("<wfs:{element}"));
        if let Some(handle) = &self.labels[action].handle {
            self.out.extend_from_slice(b" handle=\"");
            xml::attribute(&mut self.out, handle);
            self.out.push(b'"');
        }
        self.raw(">");
        id(&mut self.out, &gml_id(&self.kinds[action].1, key));
        self.raw(&format!("</wfs:{element}>"));
    }

    fn write_2_0(&mut self) {
        self.root("TransactionResponse", "2.0.0", WFS_NS, "xmlns:fes=\"http://www.opengis.net/fes/2.0\"");
        self.totals(&[
            ("totalInserted", Kind::Insert),
            ("totalUpdated", Kind::Update),
            ("totalReplaced", Kind::Replace),
            ("totalDeleted", Kind::Delete),
        ]);
        // An empty list is not valid.
        for (kind, name) in [(Kind::Insert, "InsertResults"), (Kind::Replace, "ReplaceResults")] {
            if self.total(kind) > 0 {
                self.raw(&format!("<wfs:{name}>"));
                self.features(kind, "Feature", |out, id| {
                    out.extend_from_slice(format!("<fes:ResourceId rid=\"{id}\"/>").as_bytes());
                });
                self.raw(&format!("</wfs:{name}>"));
            }
        }
        self.raw("</wfs:TransactionResponse>\n");
    }

    fn write_1_1(&mut self) {
        let mixed = self.dialect.mixed;
        self.root("TransactionResponse", "1.1.0", OLD_WFS_NS, "xmlns:ogc=\"http://www.opengis.net/ogc\"");
        self.totals(&[("totalInserted", Kind::Insert), ("totalUpdated", Kind::Update), ("totalDeleted", Kind::Delete)]);
        self.raw("<wfs:TransactionResults/><wfs:InsertResults>");
        let n = self.features(Kind::Insert, "Feature", |out, id| {
            out.extend_from_slice(format!("<ogc:FeatureId fid=\"{id}\"/>").as_bytes());
            if mixed {
                out.extend_from_slice(format!("<ogc:ResourceId rid=\"{id}\"/>").as_bytes());
            }
        });
        if n == 0 {
            // The schema demands one.
            self.raw("<wfs:Feature><ogc:FeatureId fid=\"none\"/></wfs:Feature>");
        }
        self.raw("</wfs:InsertResults></wfs:TransactionResponse>\n");
    }

    fn write_1_0(&mut self) {
        self.root("WFS_TransactionResponse", "1.0.0", OLD_WFS_NS, "xmlns:ogc=\"http://www.opengis.net/ogc\"");
        self.features(Kind::Insert, "InsertResult", |out, id| {
            out.extend_from_slice(format!("<ogc:FeatureId fid=\"{id}\"/>").as_bytes());
        });
        self.raw("<wfs:TransactionResult><wfs:Status><wfs:SUCCESS/></wfs:Status></wfs:TransactionResult>");
        self.raw("</wfs:WFS_TransactionResponse>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_its_dialect() {
        let dialect = |s: &str| Dialect::of(&xml::parse(s.as_bytes(), Default::default()).unwrap());
        let of = |ns: &str, version: &str| dialect(&format!("<Transaction xmlns='{ns}' {version}/>")).unwrap();
        let plain = |version| Dialect { version, mixed: false };
        assert_eq!(of(OLD_WFS_NS, "version='1.0.0'"), plain(Version::V1_0));
        assert_eq!(of(OLD_WFS_NS, "version='1.1.0'"), plain(Version::V1_1));
        assert_eq!(of(OLD_WFS_NS, ""), plain(Version::V1_1));
        assert_eq!(of(OLD_WFS_NS, "version='2.0.0'"), Dialect { version: Version::V1_1, mixed: true });
        assert_eq!(of(WFS_NS, "version='2.0.2'"), plain(Version::V2_0));
        assert!(dialect("<Transaction version='9'/>").is_err());
    }
}
