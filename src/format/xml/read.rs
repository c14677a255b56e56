//! The bounded reader: a document is walked child by child, and an element that is wanted whole becomes a tree.

use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};
use quick_xml::reader::NsReader;

/// What a document may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Elements inside elements.
    pub depth: usize,
    /// Elements of one tree ([`Reader::finish`]); about 150 bytes each.
    pub tree_elements: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Bytes of one attribute's value.
    pub attribute_bytes: usize,
    /// Bytes of one element's own text.
    pub text_bytes: usize,
}

impl Default for Limits {
    /// Room for what real clients send: a geometry of a million vertices, a filter of thousands of ids.
    fn default() -> Limits {
        Limits { depth: 100, tree_elements: 500_000, attributes: 64, attribute_bytes: 64 << 10, text_bytes: 64 << 20 }
    }
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct XmlError {
    /// From 1.
    pub line: u32,
    pub what: String,
}

/// An element with all that is in it; one from [`Reader::next_child`] has no children and no text yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// The namespace; empty where there is none, or the prefix is not bound (which some clients write, so it is no error).
    pub ns: Arc<str>,
    pub prefix: Box<str>,
    pub local: Box<str>,
    /// Without `xmlns`.
    pub attributes: Vec<Attribute>,
    pub children: Vec<Element>,
    /// The element's own text, that of its children left out; references resolved, white space as it was written.
    pub text: String,
    /// Where its start tag begins, from 1.
    pub line: u32,
}

/// An attribute. Its prefix does not matter to any protocol here (`gml:id`, `id` and `fid` are told apart by local name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub prefix: Box<str>,
    pub local: Box<str>,
    pub value: String,
}

impl Element {
    /// The first child of this local name, in any namespace.
    pub fn child(&self, local: &str) -> Option<&Element> {
        self.children.iter().find(|c| &*c.local == local)
    }

    /// The children of this local name, in any namespace.
    pub fn children_named<'e>(&'e self, local: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |c| &*c.local == local)
    }

    /// The value of an attribute by local name, in any case of letters: clients write `outputformat` too.
    pub fn attribute(&self, local: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.local.eq_ignore_ascii_case(local)).map(|a| a.value.as_str())
    }

    /// The text without white space around it.
    pub fn trimmed(&self) -> &str {
        self.text.trim()
    }

    /// This element as a document without namespaces, which read back means the same to whoever goes by local names.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.local.as_bytes());
        for a in &self.attributes {
            for part in [" ", &a.local, "=\""] {
                out.extend_from_slice(part.as_bytes());
            }
            super::attribute(out, &a.value);
            out.push(b'"');
        }
        out.push(b'>');
        super::text(out, &self.text);
        self.children.iter().for_each(|c| c.write(out));
        for part in ["</", &self.local, ">"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// An error at this element.
    pub fn error(&self, what: impl Into<String>) -> XmlError {
        XmlError { line: self.line, what: what.into() }
    }
}

/// Reads a whole (small) document.
pub fn parse(input: &[u8], limits: Limits) -> Result<Element, XmlError> {
    let mut reader = Reader::new(input, limits)?;
    let mut root = reader.root()?;
    reader.finish(&mut root)?;
    reader.end()?;
    Ok(root)
}

/// Walks a document front to back. [`Reader::root`] first; then [`Reader::next_child`] gives the children of the element
/// entered last, and each child must be entered by calling `next_child` for its own children until `None`, or taken whole by
/// [`Reader::finish`].
pub struct Reader<'i> {
    inner: NsReader<&'i [u8]>,
    input: &'i [u8],
    limits: Limits,
    depth: usize,
    /// The line of byte `counted`, where the last event begins.
    line: u32,
    counted: usize,
    /// Namespaces met, so that elements share them.
    namespaces: Vec<Arc<str>>,
}

impl<'i> Reader<'i> {
    /// The document must be UTF-8.
    pub fn new(input: &'i [u8], limits: Limits) -> Result<Reader<'i>, XmlError> {
        let text = std::str::from_utf8(input).map_err(|e| XmlError {
            line: 1 + newlines(&input[..e.valid_up_to()]),
            what: "the document is not UTF-8".into(),
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut inner = NsReader::from_str(text);
        inner.config_mut().expand_empty_elements = true;
        inner.resolver_mut().set_max_namespace_bindings(256);
        Ok(Reader { inner, input: text.as_bytes(), limits, depth: 0, line: 1, counted: 0, namespaces: Vec::new() })
    }

    /// The root element's start.
    pub fn root(&mut self) -> Result<Element, XmlError> {
        match self.step()? {
            Step::Start(element) => Ok(element),
            _ => Err(self.error("there is no root element")),
        }
    }

    /// The start of the next child of the element that is open, text between the children skipped; `None` at its end, which
    /// closes it.
    pub fn next_child(&mut self) -> Result<Option<Element>, XmlError> {
        loop {
            match self.step()? {
                Step::Start(element) => return Ok(Some(element)),
                Step::End => return Ok(None),
                Step::Text(_) => {}
            }
        }
    }

    /// Reads the rest of an element, whose start was read last, into it.
    pub fn finish(&mut self, element: &mut Element) -> Result<(), XmlError> {
        let mut open = vec![std::mem::take(element)];
        let mut elements = 1;
        loop {
            // The stack is never empty here: its last element leaves it by the return.
            let Some(top) = open.last_mut() else { return Ok(()) };
            match self.step()? {
                Step::Start(child) => {
                    elements += 1;
                    if elements > self.limits.tree_elements {
                        let most = self.limits.tree_elements;
                        return Err(self.error(format!("more than {most} elements in one element")));
                    }
                    open.push(child);
                }
                Step::Text(text) => {
                    top.text.push_str(&text);
                    if top.text.len() > self.limits.text_bytes {
                        let most = self.limits.text_bytes;
                        return Err(self.error(format!("more than {most} bytes of text in one element")));
                    }
                }
                Step::End => {
                    let Some(done) = open.pop() else { return Ok(()) };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None => {
                            *element = done;
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// The element whose start was read last, to its end, which closes it: as it was written, with the namespaces that are bound
    /// around it declared on it too, so that it means the same elsewhere. Without `content` nothing is in it.
    pub fn verbatim(&mut self, content: bool) -> Result<String, XmlError> {
        let (start, tag_end) = (self.counted, self.position());
        let resolver = self.inner.resolver();
        let own: Vec<_> = resolver.bindings_of(resolver.level()).map(|(prefix, _)| prefix).collect();
        let mut declarations = Vec::new();
        for (prefix, ns) in resolver.bindings().filter(|(prefix, _)| !own.contains(prefix)) {
            let name = match prefix {
                PrefixDeclaration::Default => " xmlns=\"".to_owned(),
                PrefixDeclaration::Named(prefix) => format!(" xmlns:{prefix}=\""),
            };
            declarations.extend_from_slice(name.as_bytes());
            super::attribute(&mut declarations, ns.into_inner());
            declarations.push(b'"');
        }
        let depth = self.depth;
        while self.depth >= depth {
            self.step()?;
        }
        let end = if content { self.position() } else { tag_end };
        let written = &self.input[start..end];
        let is_name = |b: &u8| !matches!(b, b'/' | b'>') && !b.is_ascii_whitespace();
        let (name, rest) = written.split_at(written.iter().take_while(|b| is_name(b)).count());
        let rest = match content {
            true => rest,
            false => rest.strip_suffix(b"/>").or(rest.strip_suffix(b">")).unwrap_or(rest),
        };
        let parts = [name, &declarations, rest, if content { b"" } else { b"/>" }];
        Ok(String::from_utf8_lossy(&parts.concat()).into_owned())
    }

    /// After the root element: nothing but comments and white space may follow.
    pub fn end(&mut self) -> Result<(), XmlError> {
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(t) if t.trim().is_empty() => {}
                Event::Comment(_) | Event::PI(_) => {}
                _ => return Err(self.error("there is something after the root element")),
            }
        }
    }

    fn step(&mut self) -> Result<Step<'i>, XmlError> {
        loop {
            match self.event()? {
                Event::Start(start) => {
                    self.depth += 1;
                    if self.depth > self.limits.depth {
                        return Err(self.error(format!("elements nested deeper than {}", self.limits.depth)));
                    }
                    return self.element(&start).map(Step::Start);
                }
                Event::End(_) => {
                    self.depth -= 1;
                    return Ok(Step::End);
                }
                Event::Text(t) if self.depth == 0 => {
                    if !t.trim().is_empty() {
                        return Err(self.error("text outside of the root element"));
                    }
                }
                Event::Text(t) => return Ok(Step::Text(t.xml10_content())),
                Event::CData(t) if self.depth > 0 => return Ok(Step::Text(t.xml10_content())),
                Event::GeneralRef(r) if self.depth > 0 => {
                    return self.reference(&r).map(|c| Step::Text(String::from(c).into()));
                }
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
                Event::DocType(_) => return Err(self.error("a DOCTYPE is not allowed")),
                Event::Eof => return Err(self.error("the document ends too early")),
                _ => return Err(self.error("text outside of the root element")),
            }
        }
    }

    fn event(&mut self) -> Result<Event<'i>, XmlError> {
        // The line of an element is that of its start tag, so count before it is read.
        let at = self.position();
        self.line += newlines(&self.input[self.counted..at]);
        self.counted = at;
        self.inner.read_event().map_err(|e| {
            let at = usize::try_from(self.inner.error_position()).unwrap_or(usize::MAX).min(self.input.len());
            XmlError { line: 1 + newlines(&self.input[..at]), what: format!("not well-formed: {e}") }
        })
    }

    /// Behind the last event.
    fn position(&self) -> usize {
        usize::try_from(self.inner.buffer_position()).unwrap_or(usize::MAX).min(self.input.len())
    }

    fn element(&mut self, start: &BytesStart<'_>) -> Result<Element, XmlError> {
        let name = start.name();
        let (resolved, local) = self.inner.resolver().resolve_element(name);
        let ns = match resolved {
            ResolveResult::Bound(ns) => match self.namespaces.iter().find(|n| &***n == ns.0) {
                Some(known) => known.clone(),
                None => {
                    let ns: Arc<str> = ns.0.into();
                    if self.namespaces.len() < 64 {
                        self.namespaces.push(ns.clone());
                    }
                    ns
                }
            },
            ResolveResult::Unbound | ResolveResult::Unknown(_) => Arc::default(),
        };
        let prefix = name.prefix().map_or("", |p| p.into_inner()).into();
        let mut element =
            Element { ns, prefix, local: local.into_inner().into(), line: self.line, ..Element::default() };
        for (i, attribute) in start.attributes().enumerate() {
            if i >= self.limits.attributes {
                return Err(self.error(format!("more than {} attributes in one element", self.limits.attributes)));
            }
            let attribute = attribute.map_err(|e| self.error(format!("not well-formed: {e}")))?;
            if attribute.value.len() > self.limits.attribute_bytes {
                return Err(self.error(format!("an attribute of more than {} bytes", self.limits.attribute_bytes)));
            }
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|e| self.error(format!("attribute {}: {e}", attribute.key.as_ref())))?;
            element.attributes.push(Attribute {
                prefix: attribute.key.prefix().map_or("", |p| p.into_inner()).into(),
                local: attribute.key.local_name().into_inner().into(),
                value: value.into_owned(),
            });
        }
        Ok(element)
    }

    /// Of the named entities only the five that XML itself defines exist here.
    fn reference(&self, r: &BytesRef<'_>) -> Result<char, XmlError> {
        if r.is_char_ref() {
            let c = r.resolve_char_ref().map_err(|e| self.error(format!("not well-formed: {e}")))?;
            return c
                .filter(|c| !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}'))
                .ok_or_else(|| self.error(format!("'&{};' is not a character of XML", &**r)));
        }
        match &**r {
            "amp" => Ok('&'),
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "quot" => Ok('"'),
            "apos" => Ok('\''),
            name => Err(self.error(format!("the entity '&{name};' is not defined"))),
        }
    }

    fn error(&self, what: impl Into<String>) -> XmlError {
        XmlError { line: self.line, what: what.into() }
    }
}

enum Step<'i> {
    Start(Element),
    Text(std::borrow::Cow<'i, str>),
    End,
}

fn newlines(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|b| **b == b'\n').count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(s: &str) -> Result<Element, XmlError> {
        parse(s.as_bytes(), Limits::default())
    }

    #[test]
    fn names_namespaces_text_and_references_are_read() {
        let root = read(
            "\u{feff}<?xml version='1.0'?>\n<!-- c --><a:r xmlns:a='u:a' xmlns='u:d' x='1 &amp;&#x41;'>\n t&lt;<![CDATA[<&]]>&#233;\n\
             <b gml:id='i'/><c:d xmlns:c=''>q</c:d></a:r>\n",
        )
        .unwrap();
        assert_eq!((&*root.ns, &*root.prefix, &*root.local, root.line), ("u:a", "a", "r", 2));
        assert_eq!(root.attribute("X"), Some("1 &A"));
        assert_eq!(root.trimmed(), "t<<&é");
        let b = root.child("b").unwrap();
        assert_eq!((&*b.ns, b.line, b.attribute("id")), ("u:d", 4, Some("i")));
        let again = read(&root.to_text()).unwrap();
        assert_eq!((again.trimmed(), again.attribute("x")), (root.trimmed(), root.attribute("x")));
        let d = root.child("d").unwrap();
        assert_eq!((&*d.ns, &*d.prefix, d.trimmed()), ("", "c", "q"));
    }

    #[test]
    fn what_could_do_harm_is_refused_with_its_line() {
        let error = |s: &str| read(s).unwrap_err().to_string();
        assert_eq!(error("<!DOCTYPE a [<!ENTITY e 'x'>]>\n<a>&e;</a>"), "line 1: a DOCTYPE is not allowed");
        assert_eq!(error("<a>\n\n&e;</a>"), "line 3: the entity '&e;' is not defined");
        assert!(error("<a x='&e;'/>").contains("attribute x"));
        assert_eq!(error("<a>&#1;</a>"), "line 1: '&#1;' is not a character of XML");
        assert!(error("<a>\n<b></a>").starts_with("line 2: not well-formed"));
        assert!(error("<a x='1' x='2'/>").contains("not well-formed"));
        assert_eq!(error("<a>"), "line 1: the document ends too early");
        assert_eq!(error(""), "line 1: the document ends too early");
        assert!(error("<a/><b/>").contains("after the root"));
        assert!(error("hello").contains("outside of the root"));
        assert!(error(&"<a>".repeat(200)).contains("nested deeper than 100"));
        assert!(parse(b"<a>\n\xff</a>", Limits::default()).unwrap_err().to_string().starts_with("line 2"));
        let few = Limits { tree_elements: 3, attributes: 1, text_bytes: 4, attribute_bytes: 4, ..Limits::default() };
        for s in ["<a><b/><b/><b/></a>", "<a b='' c=''/>", "<a>12345</a>", "<a b='12345'/>"] {
            assert!(parse(s.as_bytes(), few).unwrap_err().what.contains("more than"), "{s}");
        }
    }

    #[test]
    fn an_element_as_it_was_written_means_the_same_elsewhere() {
        let document = "<r xmlns='u:d' xmlns:a='u:a' xmlns:b='u:b&amp;c'>\n<a:x b='a:q' xmlns:b='u:c'><y>1 &lt; 2<!-- c --></y></a:x><z xmlns=''  k='v' ></z><e/></r>";
        let mut reader = Reader::new(document.as_bytes(), Limits::default()).unwrap();
        reader.root().unwrap();
        let mut written = Vec::new();
        for content in [true, false, true] {
            reader.next_child().unwrap().unwrap();
            written.push(reader.verbatim(content).unwrap());
        }
        assert!(reader.next_child().unwrap().is_none());
        reader.end().unwrap();
        assert_eq!(
            written[0],
            "<a:x xmlns=\"u:d\" xmlns:a=\"u:a\" b='a:q' xmlns:b='u:c'><y>1 &lt; 2<!-- c --></y></a:x>"
        );
        assert!(written[1].starts_with("<z xmlns:a=\"u:a\"") && written[1].ends_with(" xmlns=''  k='v' />"));
        assert!(written[2].starts_with("<e xmlns=\"u:d\"") && written[2].ends_with("/>"));
        written.iter().for_each(|w| assert!(read(w).is_ok(), "{w}"));
    }

    #[test]
    fn a_long_document_is_walked_child_by_child() {
        let mut document = String::from("<t>");
        for i in 0..1000 {
            document.push_str(&format!("<insert><f>{i}</f></insert>"));
        }
        document.push_str("</t>");
        let limits = Limits { tree_elements: 2, ..Limits::default() };
        let mut reader = Reader::new(document.as_bytes(), limits).unwrap();
        reader.root().unwrap();
        let mut sum = 0;
        while let Some(_insert) = reader.next_child().unwrap() {
            while let Some(mut f) = reader.next_child().unwrap() {
                reader.finish(&mut f).unwrap();
                sum += f.text.parse::<i32>().unwrap();
            }
        }
        reader.end().unwrap();
        assert_eq!(sum, 999 * 500);
    }
}
