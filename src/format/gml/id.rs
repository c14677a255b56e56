//! Feature ids as WFS spells them: `{type}.{key}`, an NCName whatever the key is.
//!
//! What cannot stand in an NCName (and, to stay clear of the editions of XML, everything that is not ASCII) is written as
//! `_x` + upper-case hexadecimal code point + `_`; a `_` before an `x` is itself written so. Every key has one spelling, and
//! the spelling gives the key back.

use crate::model::FeatureId;

/// The `gml:id`, `fid` and `rid` of a feature.
pub fn gml_id(feature_type: &str, key: &str) -> String {
    let mut out = String::with_capacity(feature_type.len() + 1 + key.len());
    out.push_str(feature_type);
    out.push('.');
    let mut chars = key.chars().peekable();
    while let Some(c) = chars.next() {
        let legal = c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if legal && !(c == '_' && chars.peek() == Some(&'x')) {
            out.push(c);
        } else {
            out.push_str(&format!("_x{:X}_", u32::from(c)));
        }
    }
    out
}

/// The key that a client's `rid`, `fid` or `gml:id` means in `feature_type`: `{type}.{key}` as we wrote it, or a bare key as
/// OGC API has it. `None` when it names another type.
pub fn resolve_rid(text: &str, feature_type: &str, is_type: impl Fn(&str) -> bool) -> Option<FeatureId> {
    match text.split_once('.') {
        Some((name, key)) if name == feature_type => Some(unescape(key).into()),
        Some((name, _)) if is_type(name) => None,
        _ => Some(text.into()),
    }
}

fn unescape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(at) = rest.find("_x") {
        out.push_str(&rest[..at]);
        let hex = rest[at + 2..].split('_').next().unwrap_or_default();
        let canonical = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        let closed = rest[at + 2 + hex.len()..].starts_with('_');
        match u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).filter(|_| canonical && closed) {
            Some(c) => {
                out.push(c);
                rest = &rest[at + 3 + hex.len()..];
            }
            None => {
                out.push_str("_x");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(rid: &str) -> Option<FeatureId> {
        resolve_rid(rid, "ships", |t| t == "ships" || t == "roads")
    }

    #[test]
    fn ids_are_ncnames_and_plain_ones_stay_readable() {
        assert_eq!(gml_id("ships", "366998410"), "ships.366998410");
        assert_eq!(gml_id("ships", "a_b-c.1"), "ships.a_b-c.1");
        assert_eq!(gml_id("ships", "urn:x y"), "ships.urn_x3A_x_x20_y");
        assert_eq!(gml_id("ships", "_x41_"), "ships._x5F_x41_");
        assert_eq!(gml_id("ships", "é"), "ships._xE9_");
    }

    #[test]
    fn bare_keys_are_known_and_ids_of_other_types_are_told_apart() {
        assert_eq!(back("ships.7").as_deref(), Some("7"));
        assert_eq!(back("7").as_deref(), Some("7"));
        assert_eq!(back("v1.2").as_deref(), Some("v1.2"));
        assert_eq!(back("roads.7"), None);
        assert_eq!(back("ships._xZZ_ _x").as_deref(), Some("_xZZ_ _x"));
        assert_eq!(back("ships._xFFFFFFFFF_").as_deref(), Some("_xFFFFFFFFF_"));
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in "\\PC{1,20}|[_xX5F:A]{1,12}") {
            let id = gml_id("ships", &key);
            prop_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            let key_again = back(&id);
            prop_assert_eq!(key_again.as_deref(), Some(&*key));
        }
    }
}
