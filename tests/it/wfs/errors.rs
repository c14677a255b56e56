//! What each version answers to bad requests: the table of docs/clients.md, made from the answers.

use std::fmt::Write;

use super::*;

const VERSIONS: [&str; 3] = ["2.0.0", "1.1.0", "1.0.0"];

/// What is wrong, and the request: the query of a GET, or the document of a POST, in which `{F}` stands for the name of the
/// filter's namespace, `{P}` for what names a property in it, `{ID}` for the element of an id.
const BAD: &[(&str, &str)] = &[
    ("no `request`", "service=WFS&version={V}"),
    ("an unknown operation", "service=WFS&version={V}&request=GetFeatures"),
    ("another service", "service=WMS&version={V}&request=GetFeature&typeName=ships"),
    ("no type", "service=WFS&version={V}&request=GetFeature"),
    ("an unknown type", "service=WFS&version={V}&request=GetFeature&typeName=planes"),
    ("a type to describe that is unknown", "service=WFS&version={V}&request=DescribeFeatureType&typeName=planes"),
    ("an unknown format", "service=WFS&version={V}&request=GetFeature&typeName=ships&outputFormat=docx"),
    ("an unknown CRS", "service=WFS&version={V}&request=GetFeature&typeName=ships&srsName=EPSG:999999"),
    ("a box of three numbers", "service=WFS&version={V}&request=GetFeature&typeName=ships&bbox=1,2,3"),
    ("a number that is a word", "service=WFS&version={V}&request=GetFeature&typeName=ships&{COUNT}=many"),
    ("an unknown property to show", "service=WFS&version={V}&request=GetFeature&typeName=ships&propertyName=colour"),
    ("an unknown property to sort by", "service=WFS&version={V}&request=GetFeature&typeName=ships&sortBy=colour"),
    (
        "an unknown property in `cql_filter`",
        "service=WFS&version={V}&request=GetFeature&typeName=ships&cql_filter=colour=1",
    ),
    ("a filter that is no XML", "service=WFS&version={V}&request=GetFeature&typeName=ships&filter=<Filter"),
    (
        "an unknown property in a filter",
        "<wfs:GetFeature {A}><wfs:Query {TYPE}=\"app:ships\"><{F}:Filter><{F}:PropertyIsNull><{F}:{P}>colour</{F}:{P}>\
         </{F}:PropertyIsNull></{F}:Filter></wfs:Query></wfs:GetFeature>",
    ),
    (
        "a distance in no unit",
        "<wfs:GetFeature {A}><wfs:Query {TYPE}=\"app:ships\"><{F}:Filter><{F}:DWithin><{F}:{P}>geom</{F}:{P}>\
         <gml:Point><gml:{POS}>60{COMMA}20</gml:{POS}></gml:Point><{F}:Distance {UOM}=\"parsec\">1</{F}:Distance></{F}:DWithin>\
         </{F}:Filter></wfs:Query></wfs:GetFeature>",
    ),
    ("half a document", "<wfs:GetFeature {A}><wfs:Query"),
    ("a document of another kind", "<wfs:Feature {A}/>"),
    (
        "an insert of an unknown type",
        "<wfs:Transaction {A}><wfs:Insert><app:planes><app:name>a</app:name></app:planes></wfs:Insert></wfs:Transaction>",
    ),
    (
        "an insert of an unknown property",
        "<wfs:Transaction {A}><wfs:Insert><app:ships><app:colour>red</app:colour></app:ships></wfs:Insert></wfs:Transaction>",
    ),
    (
        "an insert of text for a number",
        "<wfs:Transaction {A}><wfs:Insert><app:ships><app:crew>many</app:crew></app:ships></wfs:Insert></wfs:Transaction>",
    ),
    (
        "an insert of an id that is there",
        "<wfs:Transaction {A}><wfs:Insert idgen=\"UseExisting\"><app:ships {ATTRIBUTE}=\"ships.s1\"/></wfs:Insert></wfs:Transaction>",
    ),
    (
        "an update of an unknown property",
        "<wfs:Transaction {A}><wfs:Update typeName=\"app:ships\"><wfs:Property><wfs:{N}>colour</wfs:{N}><wfs:Value>1</wfs:Value>\
         </wfs:Property><{F}:Filter><{F}:{ID}=\"ships.s1\"/></{F}:Filter></wfs:Update></wfs:Transaction>",
    ),
    ("a deletion without a filter", "<wfs:Transaction {A}><wfs:Delete typeName=\"app:ships\"/></wfs:Transaction>"),
    (
        "an action of another vendor that must be done",
        "<wfs:Transaction {A}><wfs:Native vendorId=\"x\" safeToIgnore=\"false\"/></wfs:Transaction>",
    ),
];

/// A request in the words of a version.
fn worded(request: &str, version: &str) -> String {
    let two = version == "2.0.0";
    let attributes = if two {
        "service=\"WFS\" version=\"2.0.0\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
         xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:gml=\"http://www.opengis.net/gml/3.2\" xmlns:app=\"urn:alluvium:app\""
            .to_owned()
    } else {
        format!(
            "service=\"WFS\" version=\"{version}\" xmlns:wfs=\"http://www.opengis.net/wfs\" \
             xmlns:ogc=\"http://www.opengis.net/ogc\" xmlns:gml=\"http://www.opengis.net/gml\" xmlns:app=\"urn:alluvium:app\""
        )
    };
    let one_zero = version == "1.0.0";
    [
        ("{V}", version),
        ("{A}", &*attributes),
        ("{F}", if two { "fes" } else { "ogc" }),
        ("{P}", if two { "ValueReference" } else { "PropertyName" }),
        ("{N}", if two { "ValueReference" } else { "Name" }),
        ("{ID}", if two { "ResourceId rid" } else { "FeatureId fid" }),
        ("{TYPE}", if two { "typeNames" } else { "typeName" }),
        ("{COUNT}", if two { "count" } else { "maxFeatures" }),
        ("{UOM}", if two { "uom" } else { "units" }),
        ("{POS}", if one_zero { "coordinates" } else { "pos" }),
        ("{COMMA}", if one_zero { "," } else { " " }),
        (
            "{ATTRIBUTE}",
            match version {
                "2.0.0" | "1.1.0" => "gml:id",
                _ => "fid",
            },
        ),
    ]
    .iter()
    .fold(request.to_owned(), |request, (mark, word)| request.replace(mark, word))
}

/// `400 InvalidParameterValue (typeName)`, of an answer that is an exception report of the version.
fn told(answer: &Answer, version: &str) -> String {
    let report = answer.xml();
    let (exception, text, code) = match &*report.local {
        "ServiceExceptionReport" if version == "1.0.0" => {
            let exception = report.child("ServiceException").unwrap();
            (exception, exception, "code")
        }
        "ExceptionReport" if version != "1.0.0" => {
            let exception = report.child("Exception").unwrap();
            (exception, exception.child("ExceptionText").unwrap(), "exceptionCode")
        }
        _ => panic!("{version}: {}", answer.text),
    };
    assert!(!text.trimmed().is_empty(), "{}", answer.text);
    let code = exception.attribute(code).unwrap();
    let mut told = format!("{} {code}", answer.status.as_u16());
    if let Some(locator) = exception.attribute("locator") {
        write!(told, " ({locator})").unwrap();
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_tell_what_bad_requests_are_answered() {
    let server = Server::with_ships().await;
    let before =
        server.get("request=GetFeature&typeNames=ships&outputFormat=application/json").await.json()["features"].clone();
    let mut table = String::from("| what is wrong | 2.0.0 | 1.1.0 | 1.0.0 |\n|---|---|---|---|\n");
    for (what, request) in BAD {
        write!(table, "| {what} |").unwrap();
        for version in VERSIONS {
            let request = worded(request, version);
            let answer = match request.starts_with('<') {
                true => server.post(&request).await,
                false => server.send("GET", &format!("?{request}"), "").await,
            };
            write!(table, " {} |", told(&answer, version)).unwrap();
        }
        table.push('\n');
    }
    let after =
        server.get("request=GetFeature&typeNames=ships&outputFormat=application/json").await.json()["features"].clone();
    assert_eq!(before, after, "a bad request has changed something");
    let documents = include_str!("../../../docs/clients.md");
    assert!(documents.contains(&table), "docs/clients.md has not this table:\n\n{table}");
}
