//! Escaping text into a document.

/// What a byte needs. Everything that needs nothing goes through in runs.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    Nothing,
    Escape(&'static str),
    /// Illegal in XML 1.0, even as a character reference.
    Drop,
    /// The first byte of U+FFFE and U+FFFF, which are illegal too, and of legal neighbours.
    Look,
}

const fn needs(in_attribute: bool) -> [Need; 256] {
    let mut table = [Need::Nothing; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = Need::Drop;
        control += 1;
    }
    table[b'\t' as usize] = if in_attribute { Need::Escape("&#9;") } else { Need::Nothing };
    table[b'\n' as usize] = if in_attribute { Need::Escape("&#10;") } else { Need::Nothing };
    // A bare CR would be read back as LF.
    table[b'\r' as usize] = Need::Escape("&#13;");
    table[b'&' as usize] = Need::Escape("&amp;");
    table[b'<' as usize] = Need::Escape("&lt;");
    table[b'>' as usize] = Need::Escape("&gt;");
    if in_attribute {
        table[b'"' as usize] = Need::Escape("&quot;");
    }
    table[0xef] = Need::Look;
    table
}

static IN_TEXT: [Need; 256] = needs(false);
static IN_ATTRIBUTE: [Need; 256] = needs(true);

/// Appends `s` as character data. Control characters other than TAB, LF and CR, and U+FFFE and U+FFFF, cannot be said in
/// XML 1.0 and are dropped: one of them makes clients give up a whole answer.
pub fn text(out: &mut Vec<u8>, s: &str) {
    escape(out, s, &IN_TEXT);
}

/// Appends `s` as the value of an attribute in double quotes (which the caller writes). Drops what [`text`] drops.
pub fn attribute(out: &mut Vec<u8>, s: &str) {
    escape(out, s, &IN_ATTRIBUTE);
}

fn escape(out: &mut Vec<u8>, s: &str, needs: &[Need; 256]) {
    let bytes = s.as_bytes();
    let (mut run, mut at) = (0, 0);
    while at < bytes.len() {
        let (replacement, width) = match needs[usize::from(bytes[at])] {
            Need::Nothing => {
                at += 1;
                continue;
            }
            Need::Escape(with) => (with, 1),
            Need::Drop => ("", 1),
            Need::Look if matches!(bytes[at + 1..], [0xbf, 0xbe | 0xbf, ..]) => ("", 3),
            Need::Look => {
                at += 3;
                continue;
            }
        };
        out.extend_from_slice(&bytes[run..at]);
        out.extend_from_slice(replacement.as_bytes());
        at += width;
        run = at;
    }
    out.extend_from_slice(&bytes[run..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: fn(&mut Vec<u8>, &str), s: &str) -> String {
        let mut out = Vec::new();
        f(&mut out, s);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn markup_is_escaped_and_what_xml_cannot_say_is_dropped() {
        assert_eq!(written(text, "a<b>&\"c\"\t\r\n"), "a&lt;b&gt;&amp;\"c\"\t&#13;\n");
        assert_eq!(written(attribute, "a<b>&\"c\"\t\n"), "a&lt;b&gt;&amp;&quot;c&quot;&#9;&#10;");
        assert_eq!(written(text, "a\u{0}\u{1b}b\u{ffff}\u{fffd}\u{feff}é海"), "ab\u{fffd}\u{feff}é海");
        assert_eq!(written(text, "\u{fffe}"), "");
        assert_eq!(written(text, "]]>"), "]]&gt;");
    }
}
