//! Stored queries (WFS 2.0, 14): GetFeatureById, which every WFS has, and those that are made by requests.
//!
//! A definition is kept as its author wrote it, and read anew whenever it is used. What it asks for is checked only then: it may
//! name types that do not exist yet, or parameters in their place. Making and dropping them needs the role of an administrator,
//! as feature types do.

use std::collections::BTreeMap;

use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::get_feature::xml_query;
use super::query::QueryRequest;
use super::{Ask, WFS_NS, xml_response};
use crate::format::gml::{APP, APP_NS};
use crate::format::xml::{self, Element, Reader};
use crate::web::access::Role;

/// As 2.0.0 spells it.
const BY_ID: &str = "urn:ogc:def:query:OGC-WFS::GetFeatureById";
/// As 2.0.2 spells it.
const BY_ID_URI: &str = "http://www.opengis.net/def/query/OGC-WFS/0/GetFeatureById";

/// What the text of a stored query is written in: `wfs:Query` elements. As 2.0.0 and 2.0.2 spell it.
pub const LANGUAGE: &str = "urn:ogc:def:queryLanguage:OGC-WFS::WFSQueryExpression";
const LANGUAGE_URI: &str = "http://www.opengis.net/def/queryLanguage/OGC-WFS/0/WFSQueryExpression";

/// Bytes of one definition: every instance holds all of them.
const MAX_DEFINITION: usize = 256 << 10;

pub fn is_get_feature_by_id(id: &str) -> bool {
    matches!(id.trim(), BY_ID | BY_ID_URI)
}

/// What is given for a parameter: text, or elements.
#[derive(Clone, Debug, Default)]
pub struct Argument {
    text: String,
    elements: Vec<Element>,
}

impl Argument {
    /// From the query string; elements where XML stands there.
    pub fn of_text(text: &str) -> Argument {
        let element = text.trim_start().starts_with('<').then(|| xml::parse(text.as_bytes(), Default::default()).ok());
        Argument { text: text.to_owned(), elements: element.flatten().into_iter().collect() }
    }

    /// From the `Parameter` of a request.
    pub fn of_element(e: &Element) -> Argument {
        Argument { text: e.trimmed().to_owned(), elements: e.children.clone() }
    }
}

/// A definition, read: `StoredQueryDefinition` (14.2.2).
struct Definition {
    id: String,
    titles: Vec<String>,
    /// Their names and types.
    parameters: Vec<(String, String)>,
    /// The local names of the types that it says it gives; none: it does not say.
    returns: Vec<String>,
    queries: Vec<Element>,
}

impl Definition {
    fn read(text: &str) -> Result<Definition> {
        let root = xml::parse(text.as_bytes(), Default::default())?;
        let id = root.attribute("id").map(str::trim).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Exception::missing("id"))?.to_owned();
        let mut definition =
            Definition { id, titles: Vec::new(), parameters: Vec::new(), returns: Vec::new(), queries: Vec::new() };
        let mut reached = 0;
        for child in &root.children {
            let order = ["Title", "Abstract", "Metadata", "Parameter", "QueryExpressionText"];
            let place = order.iter().position(|name| *name == &*child.local).filter(|place| *place >= reached);
            reached = place.ok_or_else(|| child.error(format!("'{}' does not stand here", child.local)))?;
            match order[reached] {
                "Title" => definition.titles.push(child.trimmed().to_owned()),
                "Parameter" => definition.parameter(child)?,
                "QueryExpressionText" => definition.expression(child)?,
                _ => {}
            }
        }
        if definition.queries.is_empty() {
            return Err(Exception::missing("QueryExpressionText"));
        }
        Ok(definition)
    }

    fn parameter(&mut self, e: &Element) -> Result<()> {
        let name = e.attribute("name").map(str::trim).filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| Exception::missing("name"))?;
        let kind = e.attribute("type").ok_or_else(|| Exception::missing("type"))?;
        if self.parameters.iter().any(|(known, _)| known == name) {
            let text = format!("the stored query '{}' has the parameter '{name}' twice", self.id);
            return Err(Exception::new(Code::DuplicateStoredQueryParameterName, name, text));
        }
        self.parameters.push((name.to_owned(), kind.trim().to_owned()));
        Ok(())
    }

    fn expression(&mut self, e: &Element) -> Result<()> {
        match e.attribute("language").map(str::trim) {
            Some(LANGUAGE | LANGUAGE_URI) => {}
            Some(other) => {
                let text = format!("the query language '{other}' is not offered, only {LANGUAGE}");
                return Err(Exception::invalid("language", text));
            }
            None => return Err(Exception::missing("language")),
        }
        let returns = e.attribute("returnFeatureTypes").ok_or_else(|| Exception::missing("returnFeatureTypes"))?;
        self.returns.extend(returns.split_whitespace().map(|name| local(name).to_owned()));
        for query in &e.children {
            if &*query.local != "Query" {
                let text = format!("line {}: '{}' cannot be part of a stored query", query.line, query.local);
                return Err(Exception::new(Code::OptionNotSupported, &*query.local, text));
            }
            self.check_references(query)?;
            self.queries.push(query.clone());
        }
        Ok(())
    }

    /// Each `${name}` is a parameter.
    fn check_references(&self, e: &Element) -> Result<()> {
        for text in std::iter::once(&e.text).chain(e.attributes.iter().map(|a| &a.value)) {
            for (name, _) in references(text).filter_map(|(_, reference)| reference) {
                if !self.parameters.iter().any(|(known, _)| known == name) {
                    let text = format!("line {}: the stored query '{}' has no parameter '{name}'", e.line, self.id);
                    return Err(Exception::invalid(name, text));
                }
            }
        }
        e.children.iter().try_for_each(|child| self.check_references(child))
    }
}

fn local(qname: &str) -> &str {
    qname.rsplit_once(':').map_or(qname, |(_, local)| local)
}

/// The pieces of a text: what stands before a `${name}`, the name and the reference as written; of the last piece no reference.
fn references(text: &str) -> impl Iterator<Item = (&str, Option<(&str, &str)>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let reference = text.find("${").and_then(|start| {
            let length = text[start..].find('}')?;
            Some((start, start + length))
        });
        let Some((start, end)) = reference else { return Some((text, None)) };
        rest = Some(&text[end + 1..]);
        Some((&text[..start], Some((&text[start + 2..end], &text[start..=end]))))
    })
}

/// The element with every `${name}` replaced by its argument. One that is all the text of an element may be elements, which
/// then come last in it.
fn substituted(e: &Element, arguments: &BTreeMap<&str, Argument>) -> Element {
    let text = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for (before, reference) in references(text) {
            out.push_str(before);
            if let Some((name, written)) = reference {
                out.push_str(arguments.get(name).map_or(written, |a| &a.text));
            }
        }
        out
    };
    let alone = e.trimmed().strip_prefix("${").and_then(|t| t.strip_suffix('}')).and_then(|name| arguments.get(name));
    let mut out = Element {
        children: e.children.iter().map(|child| substituted(child, arguments)).collect(),
        attributes: e.attributes.clone(),
        ns: e.ns.clone(),
        prefix: e.prefix.clone(),
        local: e.local.clone(),
        text: String::new(),
        line: e.line,
    };
    out.attributes.iter_mut().for_each(|a| a.value = text(&a.value));
    match alone.filter(|a| !a.elements.is_empty()) {
        Some(argument) => out.children.extend_from_slice(&argument.elements),
        None => out.text = text(&e.text),
    }
    out
}

fn unknown(id: &str) -> Exception {
    Exception::invalid("storedQuery_Id", format!("there is no stored query '{id}'"))
}

/// The queries of a stored query; `argument` gives what was sent for a parameter.
pub async fn queries(ask: &Ask, id: &str, argument: impl Fn(&str) -> Option<Argument>) -> Result<Vec<QueryRequest>> {
    let id = id.trim();
    let text = ask.web.store.stored_query(id).await?.ok_or_else(|| unknown(id))?;
    let definition = Definition::read(&text)?;
    let mut arguments = BTreeMap::new();
    for (name, kind) in &definition.parameters {
        let mut given = argument(name).ok_or_else(|| Exception::missing(name))?;
        // What is declared as a simple value is one, whatever it looks like.
        if matches!(kind.split_once(':'), Some(("xs" | "xsd", _))) {
            given.elements.clear();
        }
        arguments.insert(name.as_str(), given);
    }
    definition.queries.iter().map(|query| xml_query(&substituted(query, &arguments))).collect()
}

/// CreateStoredQuery (14.5): all definitions of a request, or none.
pub async fn create(ask: &Ask, reader: &mut Reader<'_>) -> Result<Response> {
    ask.caller.may(Role::Admin, None)?;
    let taken = |id: &str| {
        let text = format!("there is already a stored query '{id}'");
        Exception::new(Code::DuplicateStoredQueryIdValue, id, text)
    };
    let mut definitions: Vec<(String, String)> = Vec::new();
    while let Some(element) = reader.next_child()? {
        if &*element.local != "StoredQueryDefinition" {
            return Err(element.error(format!("'{}' is not a StoredQueryDefinition", element.local)).into());
        }
        let text = reader.verbatim(true)?;
        let id = Definition::read(&text)?.id;
        if text.len() > MAX_DEFINITION {
            let text = format!("the definition of '{id}' is longer than {MAX_DEFINITION} bytes");
            return Err(Exception::invalid("StoredQueryDefinition", text));
        }
        if is_get_feature_by_id(&id) || definitions.iter().any(|(known, _)| *known == id) {
            return Err(taken(&id));
        }
        definitions.push((id, text));
    }
    reader.end()?;
    if definitions.is_empty() {
        return Err(Exception::missing("StoredQueryDefinition"));
    }
    match ask.web.store.keep_stored_queries(&definitions).await? {
        Some(id) => Err(taken(&id)),
        None => Ok(done("CreateStoredQueryResponse")),
    }
}

/// DropStoredQuery (14.6).
pub async fn remove(ask: &Ask, id: Option<&str>) -> Result<Response> {
    ask.caller.may(Role::Admin, None)?;
    let id = id.map(str::trim).filter(|id| !id.is_empty()).ok_or_else(|| Exception::missing("id"))?;
    if is_get_feature_by_id(id) {
        return Err(Exception::invalid("id", "GetFeatureById cannot be dropped: every WFS has it"));
    }
    match ask.web.store.drop_stored_query(id).await? {
        true => Ok(done("DropStoredQueryResponse")),
        false => Err(Exception::invalid("id", format!("there is no stored query '{id}'"))),
    }
}

fn done(response: &str) -> Response {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    answer(format!("{head}\n<wfs:{response} xmlns:wfs=\"{WFS_NS}\" status=\"OK\"/>\n"))
}

fn answer(body: String) -> Response {
    xml_response(body, "text/xml; charset=UTF-8")
}

fn return_types(ask: &Ask) -> Vec<String> {
    ask.feature_types().iter().map(|t| t.name.clone()).collect()
}

/// ListStoredQueries (14.3).
pub fn list(ask: &Ask) -> Result<Response> {
    let types = return_types(ask);
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wfs:ListStoredQueriesResponse xmlns:wfs=\"{WFS_NS}\" xmlns:{APP}=\"{APP_NS}\">"
    );
    let mut listed = |id: &str, titles: &[String], returns: &[String]| {
        body.push_str(&format!("<wfs:StoredQuery id=\"{}\">", escaped(id)));
        titles.iter().for_each(|t| body.push_str(&format!("<wfs:Title>{}</wfs:Title>", escaped(t))));
        // The schema demands one at least.
        let named: Vec<&String> = types.iter().filter(|t| returns.is_empty() || returns.contains(t)).collect();
        let named = if named.is_empty() { types.iter().collect() } else { named };
        for name in named {
            body.push_str(&format!("<wfs:ReturnFeatureType>{APP}:{name}</wfs:ReturnFeatureType>"));
        }
        body.push_str("</wfs:StoredQuery>");
    };
    listed(BY_ID, &["A feature by its id".to_owned()], &[]);
    for text in ask.web.store.stored_queries().values() {
        let definition = Definition::read(text)?;
        listed(&definition.id, &definition.titles, &definition.returns);
    }
    body.push_str("</wfs:ListStoredQueriesResponse>\n");
    Ok(answer(body))
}

fn escaped(text: &str) -> String {
    let mut out = Vec::new();
    xml::attribute(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// DescribeStoredQueries (14.4) of these ids; none: of all.
pub async fn describe(ask: &Ask, ids: &[&str]) -> Result<Response> {
    let store = &ask.web.store;
    let known = store.stored_queries();
    let mut asked = ids.to_vec();
    if asked.is_empty() {
        asked = std::iter::once(BY_ID).chain(known.keys().map(String::as_str)).collect();
    }
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wfs:DescribeStoredQueriesResponse xmlns:wfs=\"{WFS_NS}\" xmlns:fes=\"http://www.opengis.net/fes/2.0\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:{APP}=\"{APP_NS}\">"
    );
    for id in asked {
        body.push_str(&format!("<wfs:StoredQueryDescription id=\"{}\">", escaped(id)));
        if is_get_feature_by_id(id) {
            let types: Vec<String> = return_types(ask).iter().map(|name| format!("{APP}:{name}")).collect();
            body.push_str(&format!(
                "<wfs:Title>A feature by its id</wfs:Title><wfs:Parameter name=\"id\" type=\"xsd:string\"/>\
                 <wfs:QueryExpressionText returnFeatureTypes=\"{}\" isPrivate=\"true\" language=\"{LANGUAGE}\"/>",
                types.join(" ")
            ));
        } else {
            let text = store.stored_query(id).await?.ok_or_else(|| unknown(id))?;
            let mut reader = Reader::new(text.as_bytes(), Default::default())?;
            reader.root()?;
            while let Some(child) = reader.next_child()? {
                // The text of a private one is nobody's business (14.2.2.5.4).
                let is_private = matches!(child.attribute("isPrivate").map(str::trim), Some("true" | "1"));
                body.push_str(&reader.verbatim(!is_private)?);
            }
        }
        body.push_str("</wfs:StoredQueryDescription>");
    }
    body.push_str("</wfs:DescribeStoredQueriesResponse>\n");
    Ok(answer(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(parameters: &str, expression: &str) -> Result<Definition> {
        Definition::read(&format!(
            "<d id='q'><Title>t</Title>{parameters}<QueryExpressionText returnFeatureTypes='a:ships' language='{LANGUAGE}'>\
             {expression}</QueryExpressionText></d>"
        ))
    }

    #[test]
    fn parameters_stand_for_text_and_for_elements() {
        let expression = "<Query typeNames='${t}'><F><L>*${t}$ {${n}}*</L><L> ${g} </L></F></Query>";
        let parameters =
            "<Parameter name='t' type='xs:string'/><Parameter name='n' type='xs:int'/><Parameter name='g' type='g:G'/>";
        let read = definition(parameters, expression).unwrap();
        assert_eq!((read.returns, read.titles), (vec!["ships".to_owned()], vec!["t".to_owned()]));
        let arguments = BTreeMap::from([
            ("t", Argument::of_text("<&${n}")),
            ("n", Argument::of_text("7")),
            ("g", Argument::of_text("<P><pos>1 2</pos></P>")),
        ]);
        let query = substituted(&read.queries[0], &arguments);
        // What comes with an argument is not looked at again.
        assert_eq!(query.attribute("typeNames"), Some("<&${n}"));
        let literals = &query.children[0].children;
        assert_eq!(literals[0].text, "*<&${n}$ {7}*");
        assert_eq!((literals[1].trimmed(), &*literals[1].children[0].children[0].text), ("", "1 2"));
    }

    #[test]
    fn what_a_definition_lacks_is_told() {
        let refused = |parameters: &str, expression: &str| definition(parameters, expression).err().unwrap().code();
        let query = "<Query typeNames='${t}'/>";
        assert_eq!(refused("", query), Code::InvalidParameterValue);
        let twice = "<Parameter name='t' type='s'/><Parameter name='t' type='s'/>";
        assert_eq!(refused(twice, query), Code::DuplicateStoredQueryParameterName);
        assert_eq!(refused("<Parameter name='t'/>", query), Code::MissingParameterValue);
        assert_eq!(refused("", "<StoredQuery id='r'/>"), Code::OptionNotSupported);
        assert_eq!(refused("", ""), Code::MissingParameterValue);
        assert_eq!(refused("<Colour/>", query), Code::OperationParsingFailed);
    }
}
