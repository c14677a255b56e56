//! GetFeature (WFS 2.0, 11; 1.1.0, 9; 1.0.0, 9), GetPropertyValue (2.0, 10) and GetGmlObject (1.1.0, 10): what they ask, in
//! either encoding.

use axum::response::Response;

use super::answer::{self, Members};
use super::exception::{Code, Exception, Result};
use super::format::Format;
use super::kvp::{self, Kvp, groups};
use super::query::{JoinRequest, QueryRequest};
use super::stored_query::{self, Argument, is_get_feature_by_id};
use super::{Ask, join};
use crate::format::gml::{GmlVersion, resolve_rid};
use crate::format::xml::Element;
use crate::model::feature_type::MAX_DECIMALS;
use crate::web::request::whole_number;

/// A GetFeature, or a GetPropertyValue when it has a reference.
#[derive(Debug)]
pub struct Request {
    pub queries: Vec<QueryRequest>,
    pub count: Option<u64>,
    pub start: u64,
    pub hits: bool,
    pub format: Format,
    /// Under what name the client wants to save the answer.
    pub file_name: Option<String>,
    pub value_reference: Option<String>,
    /// The same request in the query string, for links to other pages; `None` where it is too long for one.
    pub as_kvp: Option<Kvp>,
}

/// A request for what queries give, or for the one feature of GetFeatureById, whose answer is no collection.
pub enum Asked {
    Queries(Request),
    ById { id: String, format: Format },
}

pub async fn from_kvp(ask: &Ask, kvp: Kvp) -> Result<Response> {
    respond(ask, read_kvp(ask, kvp).await?).await
}

pub async fn from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    respond(ask, read_xml(ask, root).await?).await
}

pub async fn values_from_kvp(ask: &Ask, kvp: Kvp) -> Result<Response> {
    let reference = kvp.has("valueReference").then(|| kvp.get("valueReference").unwrap_or_default().to_owned());
    respond_values(ask, read_kvp(ask, kvp).await?, reference).await
}

pub async fn values_from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    respond_values(ask, read_xml(ask, root).await?, root.attribute("valueReference").map(str::to_owned)).await
}

/// An object is a feature here: nothing else has an id in GML 3.1.
pub async fn object_from_kvp(ask: &Ask, kvp: &Kvp) -> Result<Response> {
    let id = kvp.get("gmlObjectId").ok_or_else(|| Exception::missing("gmlObjectId"))?.to_owned();
    respond(ask, Asked::ById { id, format: format(ask, kvp.get("outputFormat"))? }).await
}

pub async fn object_from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    let id =
        root.child("GmlObjectId").and_then(|e| e.attribute("id")).ok_or_else(|| Exception::missing("GmlObjectId"))?;
    respond(ask, Asked::ById { id: id.to_owned(), format: format(ask, root.attribute("outputFormat"))? }).await
}

async fn respond(ask: &Ask, asked: Asked) -> Result<Response> {
    match asked {
        Asked::Queries(request) if request.queries.iter().any(|q| q.join.is_some()) => {
            join::collection(ask, request).await
        }
        Asked::Queries(request) => answer::collection(ask, request, Members::Features).await,
        Asked::ById { id, format } => answer::by_id(ask, by_id(ask, &id, format)?, &id).await,
    }
}

async fn respond_values(ask: &Ask, asked: Asked, reference: Option<String>) -> Result<Response> {
    let reference = reference.ok_or_else(|| Exception::missing("valueReference"))?;
    if reference.trim().is_empty() {
        return Err(Exception::invalid("valueReference", "valueReference is empty"));
    }
    let request = match asked {
        Asked::Queries(request) => request,
        Asked::ById { id, format } => by_id(ask, &id, format)?,
    };
    if request.format != Format::Gml(GmlVersion::V3_2) {
        return Err(Exception::invalid("outputFormat", "values are only offered as XML"));
    }
    let request = Request { value_reference: Some(reference), ..request };
    answer::collection(ask, request, Members::Values).await
}

/// The request for one feature by its WFS id. An id of no type's is nobody's: 404.
pub fn by_id(ask: &Ask, id: &str, format: Format) -> Result<Request> {
    let not_found = || Exception::new(Code::NotFound, "id", format!("there is no feature '{id}'"));
    let (type_name, _) = id.trim().split_once('.').ok_or_else(not_found)?;
    if resolve_rid(id, type_name, |t| ask.is_type(t)).is_none() || !ask.is_type(type_name) {
        return Err(not_found());
    }
    let query = QueryRequest {
        type_name: type_name.to_owned(),
        resource_ids: Some(id.trim().replace(',', "")),
        ..QueryRequest::default()
    };
    Ok(Request {
        queries: vec![query],
        count: None,
        start: 0,
        hits: false,
        format,
        file_name: None,
        value_reference: None,
        as_kvp: None,
    })
}

/// The format that is asked for, or the version's own.
fn format(ask: &Ask, asked: Option<&str>) -> Result<Format> {
    asked.map_or(Ok(Format::of(ask.version)), |text| Format::parse(text, ask.version))
}

pub async fn read_kvp(ask: &Ask, kvp: Kvp) -> Result<Asked> {
    let format = format(ask, kvp.get("outputFormat"))?;
    check_resolve(kvp.get("resolve"))?;
    let mut queries = match kvp.any(&["storedQuery_Id", "storedQueryId"]) {
        Some(stored) if is_get_feature_by_id(stored) => {
            let id = kvp.get("id").ok_or_else(|| Exception::missing("id"))?.to_owned();
            return Ok(Asked::ById { id, format });
        }
        Some(stored) => {
            let given = |name: &str| kvp.get(name).map(str::to_owned).or_else(|| kvp.option("viewparams", name));
            stored_query::queries(ask, stored, |name| given(name).as_deref().map(Argument::of_text)).await?
        }
        None => kvp_queries(&kvp)?,
    };
    let decimals = decimals(&kvp)?;
    queries.iter_mut().for_each(|query| query.decimals = decimals);
    Ok(Asked::Queries(Request {
        queries,
        count: kvp.number(&["count", "maxFeatures"])?,
        start: kvp.number(&["startIndex"])?.unwrap_or(0),
        hits: result_type(kvp.get("resultType"))?,
        format,
        file_name: kvp.option("format_options", "filename"),
        value_reference: kvp.get("valueReference").map(str::to_owned),
        as_kvp: Some(kvp),
    }))
}

/// `format_options=decimals:n`.
fn decimals(kvp: &Kvp) -> Result<Option<u8>> {
    let Some(text) = kvp.option("format_options", "decimals") else { return Ok(None) };
    let number = text.parse().ok().filter(|n| *n <= MAX_DECIMALS);
    let what = || Exception::invalid("format_options", format!("decimals: '{text}' is not 0 to {MAX_DECIMALS}"));
    number.map(Some).ok_or_else(what)
}

fn kvp_queries(kvp: &Kvp) -> Result<Vec<QueryRequest>> {
    let mut ids_by_type = None;
    let names: Vec<String> = match kvp.any(&["typeNames", "typeName"]) {
        // `(a)(b)` are two queries, and so are `a,b`, as clients have written them since 1.0; `(a,b)` is a join, and so are `a,b`
        // with aliases.
        Some(text) if text.trim_start().starts_with('(') || kvp.has("aliases") => {
            groups(text).into_iter().map(str::to_owned).collect()
        }
        Some(text) => text.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect(),
        None => {
            let (types, ids) = ids_by_type_of(kvp)?;
            ids_by_type = Some(ids);
            types
        }
    };
    // One value holds for every query; else there is one for each.
    let of_each = |names_of_parameter: &[&str]| -> Result<Vec<Option<String>>> {
        let Some(text) = kvp.any(names_of_parameter) else { return Ok(vec![None; names.len()]) };
        let values = groups(text);
        match values.len() {
            1 => Ok(vec![Some(values[0].to_owned()); names.len()]),
            n if n == names.len() => {
                Ok(values.into_iter().map(|v| Some(v.to_owned()).filter(|v| !v.is_empty())).collect())
            }
            n => Err(Exception::invalid(names_of_parameter[0], format!("{n} values for {} queries", names.len()))),
        }
    };
    let aliases = of_each(&["aliases"])?;
    let types = names.iter().zip(&aliases).map(|(names, aliases)| types_of(names, aliases.as_deref()));
    let types = types.collect::<Result<Vec<_>>>()?;
    let filters = of_each(&["filter"])?;
    let texts = kvp.get("cql_filter").map(kvp::semicolons).unwrap_or_default();
    if !texts.is_empty() && texts.len() != names.len() {
        let text = format!("{} filters for {} queries; ';' stands between two", texts.len(), names.len());
        return Err(Exception::invalid("cql_filter", text));
    }
    let ids = ids_by_type.map_or_else(|| of_each(&["resourceId", "featureId"]), Ok)?;
    let boxes = of_each(&["bbox"])?;
    let properties = of_each(&["propertyName"])?;
    let sorts = of_each(&["sortBy"])?;
    let srs_names = of_each(&["srsName"])?;
    let texts = texts.into_iter().map(Some).chain(std::iter::repeat(None));
    let rest = filters.into_iter().zip(texts).zip(ids).zip(boxes).zip(properties).zip(sorts).zip(srs_names);
    let mut queries = Vec::with_capacity(names.len());
    for (types, ((((((filter, cql), resource_ids), bbox), properties), sort_by), srs_name)) in
        types.into_iter().zip(rest)
    {
        let filter = filter.map(|f| crate::format::xml::parse(f.as_bytes(), Default::default())).transpose();
        let filter =
            filter.map_err(|e| Exception::new(Code::OperationParsingFailed, "filter", format!("filter: {e}")))?;
        let properties = properties.map(|p| p.split(',').map(str::to_owned).collect()).unwrap_or_default();
        queries.push(QueryRequest {
            type_name: types.name,
            alias: types.alias,
            join: types.join,
            srs_name,
            properties,
            filter,
            cql: cql.filter(|text| !text.trim().is_empty()),
            resource_ids,
            bbox,
            sort_by,
            decimals: None,
        });
    }
    Ok(queries)
}

/// The types of a query.
struct Types {
    name: String,
    /// What the query calls it, where it is alone.
    alias: Option<String>,
    join: Option<JoinRequest>,
}

/// The type of a query, or the two of a join: names and aliases between blanks or commas, or `name=alias` as in 1.1.
fn types_of(names: &str, aliases: Option<&str>) -> Result<Types> {
    let list = |text: &str| -> Vec<String> {
        text.split([' ', ',', '\n', '\t']).filter(|n| !n.is_empty()).map(str::to_owned).collect()
    };
    let mut aliases = aliases.map(list).unwrap_or_default();
    let mut names = list(names);
    for name in &mut names {
        if let Some((plain, alias)) = name.split_once('=') {
            aliases.push(alias.to_owned());
            *name = plain.to_owned();
        }
    }
    if !aliases.is_empty() && aliases.len() != names.len() {
        let text = format!("{} aliases for {} types", aliases.len(), names.len());
        return Err(Exception::invalid("aliases", text));
    }
    match names.len() {
        0 => Err(Exception::missing("typeNames")),
        1 => Ok(Types { name: names.remove(0), alias: aliases.pop(), join: None }),
        2 => {
            let join = JoinRequest { type_name: names.remove(1), aliases: aliases.try_into().ok() };
            Ok(Types { name: names.remove(0), alias: None, join: Some(join) })
        }
        n => {
            let text = format!("a join of {n} types is not supported, only of two");
            Err(Exception::new(Code::OptionNotSupported, "typeNames", text))
        }
    }
}

/// Ids name their types themselves: the types in their order, and the ids of each.
fn ids_by_type_of(kvp: &Kvp) -> Result<(Vec<String>, Vec<Option<String>>)> {
    let ids = kvp.any(&["resourceId", "featureId"]).ok_or_else(|| Exception::missing("typeNames"))?;
    let mut by_type: Vec<(String, Vec<&str>)> = Vec::new();
    for id in ids.split(['(', ',', ')']).map(str::trim).filter(|id| !id.is_empty()) {
        let (name, _) = id.split_once('.').ok_or_else(|| Exception::missing("typeNames"))?;
        match by_type.iter_mut().find(|(known, _)| known == name) {
            Some((_, ids)) => ids.push(id),
            None => by_type.push((name.to_owned(), vec![id])),
        }
    }
    if by_type.is_empty() {
        return Err(Exception::missing("typeNames"));
    }
    Ok(by_type.into_iter().map(|(name, ids)| (name, Some(ids.join(",")))).unzip())
}

pub async fn read_xml(ask: &Ask, root: &Element) -> Result<Asked> {
    let format = format(ask, root.attribute("outputFormat"))?;
    check_resolve(root.attribute("resolve"))?;
    let mut queries = Vec::new();
    for child in &root.children {
        match &*child.local {
            "Query" => queries.push(xml_query(child)?),
            "StoredQuery" => {
                let stored = child.attribute("id").ok_or_else(|| Exception::missing("id"))?;
                let parameter =
                    |name: &str| child.children_named("Parameter").find(|p| p.attribute("name") == Some(name));
                if !is_get_feature_by_id(stored) {
                    let argument = |name: &str| parameter(name).map(Argument::of_element);
                    queries.extend(stored_query::queries(ask, stored, argument).await?);
                    continue;
                }
                let id = parameter("id").ok_or_else(|| Exception::missing("id"))?.trimmed().to_owned();
                if root.children.len() == 1 {
                    return Ok(Asked::ById { id, format });
                }
                queries.extend(by_id(ask, &id, format)?.queries);
            }
            other => return Err(child.error(format!("'{other}' is not a query")).into()),
        }
    }
    if queries.is_empty() {
        return Err(Exception::missing("Query"));
    }
    let number = |names: [&str; 2]| match names.iter().find_map(|n| root.attribute(n)) {
        None => Ok(None),
        Some(text) => whole_number(text.trim())
            .map(Some)
            .ok_or_else(|| Exception::invalid(names[0], format!("{}: '{text}' is not a whole number", names[0]))),
    };
    let as_kvp = as_kvp(ask, root, &queries);
    Ok(Asked::Queries(Request {
        count: number(["count", "maxFeatures"])?,
        start: number(["startIndex", "startIndex"])?.unwrap_or(0),
        hits: result_type(root.attribute("resultType"))?,
        format,
        file_name: None,
        value_reference: root.attribute("valueReference").map(str::to_owned),
        queries,
        as_kvp,
    }))
}

/// A `wfs:Query` (7.9.2).
pub fn xml_query(e: &Element) -> Result<QueryRequest> {
    let names = e.attribute("typeNames").or(e.attribute("typeName")).ok_or_else(|| Exception::missing("typeNames"))?;
    let types = types_of(names, e.attribute("aliases"))?;
    let sort_by = e.child("SortBy").map(|sort| {
        let key = |p: &Element| {
            let name = p.child("ValueReference").or(p.child("PropertyName")).map_or("", Element::trimmed);
            format!("{name} {}", p.child("SortOrder").map_or("ASC", Element::trimmed))
        };
        sort.children_named("SortProperty").map(key).collect::<Vec<_>>().join(",")
    });
    Ok(QueryRequest {
        type_name: types.name,
        alias: types.alias,
        join: types.join,
        srs_name: e.attribute("srsName").map(str::to_owned).filter(|s| !s.trim().is_empty()),
        properties: e.children_named("PropertyName").map(|p| p.trimmed().to_owned()).collect(),
        filter: e.child("Filter").cloned(),
        cql: None,
        resource_ids: None,
        bbox: None,
        sort_by,
        decimals: None,
    })
}

/// The longest filter that goes into a link: what is longer does not get through every proxy.
const MAX_FILTER_IN_LINK: usize = 4096;

/// A posted request, so that its links can be followed by GET.
fn as_kvp(ask: &Ask, root: &Element, queries: &[QueryRequest]) -> Option<Kvp> {
    let mut kvp = Kvp::default();
    for (name, value) in [("service", "WFS"), ("version", ask.version.dialect().number), ("request", &root.local)] {
        kvp.push(name, value);
    }
    for name in ["outputFormat", "resultType", "valueReference"] {
        if let Some(value) = root.attribute(name) {
            kvp.push(name, value);
        }
    }
    let mut of_each = |name: &str, value: &dyn Fn(&QueryRequest) -> String| {
        let values: Vec<String> = queries.iter().map(value).collect();
        if values.iter().any(|v| !v.is_empty()) {
            kvp.push(name, values.iter().map(|v| format!("({v})")).collect::<String>());
        }
    };
    of_each("typeNames", &|q| match &q.join {
        None => q.type_name.clone(),
        Some(join) => format!("{},{}", q.type_name, join.type_name),
    });
    of_each("aliases", &|q| match &q.join {
        None => q.alias.clone().unwrap_or_default(),
        Some(join) => join.aliases.as_ref().map(|names| names.join(",")).unwrap_or_default(),
    });
    of_each("srsName", &|q| q.srs_name.clone().unwrap_or_default());
    of_each("propertyName", &|q| q.properties.join(","));
    of_each("sortBy", &|q| q.sort_by.clone().unwrap_or_default());
    of_each("filter", &|q| q.filter.as_ref().map(Element::to_text).unwrap_or_default());
    kvp.get("filter").is_none_or(|f| f.len() <= MAX_FILTER_IN_LINK).then_some(kvp)
}

fn result_type(text: Option<&str>) -> Result<bool> {
    match text.map(|t| t.trim().to_ascii_lowercase()).as_deref() {
        None | Some("results") => Ok(false),
        Some("hits") => Ok(true),
        Some(other) => Err(Exception::invalid("resultType", format!("'{other}' is not a result type (results, hits)"))),
    }
}

fn check_resolve(text: Option<&str>) -> Result<()> {
    match text.map(|t| t.trim().to_ascii_lowercase()).as_deref() {
        None | Some("none" | "local") => Ok(()),
        Some("remote" | "all") => {
            Err(Exception::new(Code::OptionNotSupported, "resolve", "remote references are not resolved"))
        }
        Some(other) => Err(Exception::invalid("resolve", format!("'{other}' is not a way to resolve references"))),
    }
}
