//! Requests as key-value pairs: names in any case of letters, in any order, unknown ones passed over (WFS 2.0, 6.2.5).

use super::exception::{Exception, Result};
use crate::web::request::{encode, whole_number};

/// The pairs of a query string or a form, decoded. Of a name that is there more than once the first value that is not empty
/// counts: clients send doubles.
#[derive(Clone, Debug, Default)]
pub struct Kvp(Vec<(String, String)>);

impl Kvp {
    pub fn parse(query: &str) -> Result<Kvp> {
        let pairs = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<Vec<_>>>().map(Kvp)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, v)| v.as_str()).find(|v| !v.trim().is_empty())
    }

    /// True when the name is there, if with an empty value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The value of the first of several names for the same thing.
    pub fn any(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|n| self.get(n))
    }

    /// A whole number.
    pub fn number(&self, names: &[&str]) -> Result<Option<u64>> {
        let parse = |text: &str| {
            let wrong = || Exception::invalid(names[0], format!("{}: '{text}' is not a whole number", names[0]));
            whole_number(text.trim()).ok_or_else(wrong)
        };
        self.any(names).map(parse).transpose()
    }

    /// A value of a parameter that has several, as GeoServer writes them: `format_options=name:value;name:value`, and so
    /// `viewparams`, where a backslash takes a semicolon for itself.
    pub fn option(&self, parameter: &str, name: &str) -> Option<String> {
        self.get(parameter).map(escaped_semicolons).unwrap_or_default().into_iter().find_map(|option| {
            let (n, value) = option.split_once(':')?;
            n.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// The query string of these pairs with those of `names` replaced by `pairs`.
    pub fn with(&self, names: &[&str], pairs: &[(&str, String)]) -> String {
        let replaced = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        let kept = self.0.iter().filter(|(n, _)| !replaced(n)).map(|(n, v)| (n.as_str(), v.as_str()));
        let mut out = String::new();
        for (name, value) in kept.chain(pairs.iter().map(|(n, v)| (*n, v.as_str()))) {
            out.push(if out.is_empty() { '?' } else { '&' });
            encode(&mut out, name);
            out.push('=');
            encode(&mut out, value);
        }
        out
    }
}

fn decode(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(Exception::invalid("", format!("'{text}' is not percent-encoded"))),
                }
            }
            b => b,
        });
    }
    String::from_utf8(out).map_err(|_| Exception::invalid("", format!("'{text}' is not UTF-8")))
}

/// The values of a parameter that has one per query, `(a)(b)`; without parentheses it is one.
pub fn groups(text: &str) -> Vec<&str> {
    let text = text.trim();
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'(' => {
                if depth == 0 {
                    start = at + 1;
                }
                depth += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    found.push(text[start..at].trim());
                }
            }
            _ if depth == 0 && !b.is_ascii_whitespace() => return vec![text],
            _ => {}
        }
    }
    if found.is_empty() { vec![text] } else { found }
}

/// The parts of a text between semicolons; a backslash takes what follows it as it is.
fn escaped_semicolons(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ';' => parts.push(std::mem::take(&mut part)),
            '\\' => part.extend(chars.next()),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts
}

/// The parts of a text between semicolons that are not quoted.
pub fn semicolons(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (';', None) => {
                parts.push(String::new());
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        parts.iter_mut().last().into_iter().for_each(|part| part.push(c));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_clients_write_them() {
        let kvp = Kvp::parse("SERVICE=WFS&&typename=&TypeNames=app%3Aships&x=a+b%20c&count=5&").unwrap();
        assert_eq!(kvp.get("service"), Some("WFS"));
        assert_eq!(kvp.any(&["typeName", "typeNames"]), Some("app:ships"));
        assert_eq!(kvp.get("X"), Some("a b c"));
        assert_eq!(kvp.number(&["count"]).unwrap(), Some(5));
        assert_eq!(
            kvp.with(&["COUNT"], &[("startIndex", "5".into())]),
            "?SERVICE=WFS&typename=&TypeNames=app:ships&x=a%20b%20c&startIndex=5"
        );
        assert!(Kvp::parse("a=%zz").is_err() && Kvp::parse("a=%ff").is_err() && Kvp::parse("a=%").is_err());
        let several = Kvp::parse("viewparams=line:55;name: a\\;b:c ;empty").unwrap();
        let values = ["LINE", "name", "empty", "other"].map(|name| several.option("viewParams", name));
        assert_eq!(values.map(Option::unwrap_or_default), ["55", "a;b:c", "", ""]);
        assert!(Kvp::parse("count=-1").unwrap().number(&["count"]).is_err());
    }

    #[test]
    fn groups_are_told_apart() {
        assert_eq!(groups("(a,b)(c)"), ["a,b", "c"]);
        assert_eq!(groups("a,b"), ["a,b"]);
        assert_eq!(groups("<F f(x)/>"), ["<F f(x)/>"]);
        assert_eq!(groups("(f(x)) (y)"), ["f(x)", "y"]);
        assert_eq!(groups("(a"), ["(a"]);
    }
}
