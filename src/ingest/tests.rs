use super::*;

#[test]
fn the_types_are_those_of_the_schema() {
    let schema = json!({"properties": {
        "id": {"type": "string", "x-ogc-role": "id"},
        "geom": {"format": "geometry-point", "x-ogc-role": "primary-geometry"},
        "n": {"type": ["integer", "null"]},
        "at": {"type": "string", "format": "date-time", "x-ogc-role": "primary-instant"},
        "any": {}
    }});
    let mut found = properties(&schema);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("any", PropertyType::Json), ("at", PropertyType::DateTime), ("n", PropertyType::Int64)];
    assert_eq!(found, expected.map(|(n, t)| (n.to_owned(), t)));
}

#[test]
fn rejected_lines_bear_the_numbers_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut rejects = Rejects { path: dir.path().join("r"), file: None };
    let chunk = Chunk { text: b"a\nb\n".to_vec(), lines: vec![7, 9], unreadable: vec![(8, "no".into())] };
    rejects.write(&Chunk::default(), &Summary::default()).unwrap();
    assert!(!rejects.path.exists());
    let error = crate::client::LineError { line: 2, detail: "bad".into(), pointer: "/id".into() };
    rejects.write(&chunk, &Summary { accepted: 1, rejected: 1, errors: vec![error], errors_truncated: false }).unwrap();
    let text = std::fs::read_to_string(&rejects.path).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let second = json!({"line": 9, "detail": "bad", "text": "b", "pointer": "/id"});
    assert_eq!(lines, [json!({"line": 8, "detail": "no"}), second]);
}
