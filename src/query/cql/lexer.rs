//! The words and signs of a filter.

use super::CqlError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    /// In double quotes: a name, whatever it looks like.
    Name(String),
    Text(String),
    Number(String),
    /// A day or instant without quotes, as ECQL has them.
    Instant(String),
    Sign(&'static str),
}

const SIGNS: [&str; 16] = ["<>", "<=", ">=", "!=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/", "%", "^"];

/// The tokens, each with the character at which it begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, CqlError> {
    let mut tokens = Vec::new();
    let (mut rest, mut at) = (text, 1);
    loop {
        let trimmed = rest.trim_start();
        at += rest[..rest.len() - trimmed.len()].chars().count();
        rest = trimmed;
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, length) = match first {
            '\'' | '"' => quoted(rest, first).map_err(|what| CqlError { at, what })?,
            '0'..='9' | '.' => number(rest),
            c if c.is_alphabetic() || matches!(c, '_' | '@') => word(rest),
            c => match SIGNS.iter().find(|s| rest.starts_with(**s)) {
                Some(sign) => (Token::Sign(sign), sign.len()),
                None => return Err(CqlError { at, what: format!("'{c}' has no meaning here") }),
            },
        };
        tokens.push((at, token));
        at += rest[..length].chars().count();
        rest = &rest[length..];
    }
}

/// A quote within is written twice, or after a backslash.
fn quoted(text: &str, quote: char) -> Result<(Token, usize), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|(_, next)| *next == quote) => {
                out.push(quote);
                chars.next();
            }
            c if c != quote => out.push(c),
            _ if chars.peek().is_some_and(|(_, next)| *next == quote) => {
                out.push(quote);
                chars.next();
            }
            _ => {
                let token = if quote == '"' { Token::Name(out) } else { Token::Text(out) };
                return Ok((token, at + 1));
            }
        }
    }
    Err("the quote is not closed".into())
}

fn number(text: &str) -> (Token, usize) {
    let bytes = text.as_bytes();
    let is = |at: usize, what: fn(&u8) -> bool| bytes.get(at).is_some_and(what);
    if bytes.len() >= 10 && (0..4).all(|i| is(i, u8::is_ascii_digit)) && bytes[4] == b'-' && bytes[7] == b'-' {
        // A sign in it is that of a zone, after the hour.
        let of_instant = |(i, b): &(usize, u8)| match b {
            b'-' => matches!(i, 4 | 7) || (*i > 10 && bytes[10..*i].contains(&b':')),
            b'+' | b':' | b'.' => *i > 10,
            _ => b.is_ascii_digit() || matches!(b, b'T' | b'Z'),
        };
        let end = text.bytes().enumerate().take_while(of_instant).count();
        return (Token::Instant(text[..end].to_owned()), end);
    }
    let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if is(end, |b| *b == b'.') {
        end = digits(end + 1);
    }
    if is(end, |b| matches!(b, b'e' | b'E')) {
        let sign = usize::from(is(end + 1, |b| matches!(b, b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    (Token::Number(text[..end.max(1)].to_owned()), end.max(1))
}

fn word(text: &str) -> (Token, usize) {
    let part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '@' | '$');
    let word: String = text.chars().take_while(part).collect();
    let length = word.len();
    (Token::Word(word), length)
}
