//! The house's plan, read from its imports: nothing looks at a floor above its own, and siblings do not know each other.

use std::path::{Path, PathBuf};

/// The floors from the ground up; the modules of one floor may not import each other. What a file may import is what stands
/// below its own floor, and its own module.
const FLOORS: &[&[&str]] = &[
    &["model", "clock", "task", "sabotage"],
    &["config", "format"],
    &["query"],
    &["log", "transient", "delegate", "coordination"],
    &["store"],
    &["telemetry"],
    &["web"],
    &["client"],
    &["ingest", "replay", "backup"],
    &["app", "demo"],
];

/// What the floors alone would allow, and the plan does not: modules of ours.
const NOT_THESE_MODULES: &[(&str, &[&str])] =
    &[("web", &["log", "transient", "delegate", "coordination"]), ("client", &["web", "store"])];

/// And crates.
const NOT_THESE_CRATES: &[(&str, &[&str])] = &[
    ("model", &["tokio", "axum", "hyper"]),
    ("format", &["tokio", "axum", "hyper"]),
    ("query", &["tokio", "axum", "hyper"]),
    ("store", &["axum", "hyper", "sqlx", "rdkafka", "rusqlite", "fjall", "zookeeper_client"]),
    ("web", &["sqlx", "rdkafka", "rusqlite", "fjall", "zookeeper_client"]),
];

/// Of a seam, the store may name these files' traits and nothing of the implementations.
const IMPLEMENTATIONS: &[&str] = &[
    "log::embedded",
    "log::kafka",
    "log::memory",
    "delegate::embedded",
    "delegate::postgis",
    "delegate::memory",
    "coordination::local",
    "coordination::zookeeper",
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The file without its tests and comments, with its module.
fn code_of_modules() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&src).unwrap().to_owned();
        let module = inside.iter().next()?.to_str()?.trim_end_matches(".rs").to_owned();
        let is_test = inside.file_stem().is_some_and(|stem| stem == "tests");
        if is_test || matches!(module.as_str(), "lib" | "main") {
            return None;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next()?;
        let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        Some((module, inside, code.join("\n")))
    };
    files.into_iter().filter_map(read).collect()
}

/// The paths after `crate::` in a text, those in braces too.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
                found.push(rest[..end].to_owned());
            }
            Some(list) => {
                let mut depth = 0;
                let ends = |c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth < 0
                };
                let list = &list[..list.find(ends).unwrap_or(list.len())];
                found.extend(list.split(',').map(|part| part.trim().to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_module_has_a_floor() {
    for (module, file, _) in code_of_modules() {
        assert!(floor(&module).is_some(), "{}: say in this test on which floor the module stands", file.display());
    }
}

#[test]
fn imports_run_downward() {
    let mut wrong = Vec::new();
    for (module, file, code) in code_of_modules() {
        let Some(own) = floor(&module) else { continue };
        for import in imports(&code) {
            let target = import.split("::").next().unwrap_or_default();
            let allowed = target == module || floor(target).is_some_and(|below| below < own) || floor(target).is_none();
            if !allowed {
                wrong.push(format!("{} imports crate::{import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that run upward or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn what_the_plan_forbids_is_not_there() {
    let of = |table: &[(&str, &'static [&'static str])], module: &str| -> &'static [&'static str] {
        table.iter().find(|(name, _)| *name == module).map_or(&[], |(_, forbidden)| forbidden)
    };
    let mut wrong = Vec::new();
    for (module, file, code) in code_of_modules() {
        let forbidden = of(NOT_THESE_MODULES, &module);
        for import in imports(&code) {
            let implementation = module == "store" && IMPLEMENTATIONS.iter().any(|i| import.starts_with(i));
            if implementation || forbidden.contains(&import.split("::").next().unwrap_or_default()) {
                wrong.push(format!("{} imports crate::{import}", file.display()));
            }
        }
        let words: Vec<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).collect();
        for name in of(NOT_THESE_CRATES, &module) {
            if words.iter().any(|w| w.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"))) {
                wrong.push(format!("{} uses {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let code = "use crate::model::{A, B};\nuse crate::{store, web::Web};\nfn f(x: crate::log::Tail) {}";
    assert_eq!(imports(code), ["model::", "store", "web::Web", "log::Tail"]);
}
