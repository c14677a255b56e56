//! The grammar: recursive descent, by rising precedence `OR`, `AND`, `NOT`, comparisons, `+ -`, `* / % DIV`, `^`, signs.

use super::lexer::{Token, tokens};
use super::{CqlError, Expr, Kind, MAX_DEPTH, call, edges_of};
use crate::model::geometry::{Coord, Writer};
use crate::model::{Dimension, GeometryKind};

/// How many signs of arithmetic there may be, which become depth.
const MAX_SIGNS: usize = 200;

/// Operators of ECQL that stand between a property and a time.
const TEMPORAL: [&str; 12] = [
    "after",
    "before",
    "begins",
    "begunby",
    "during",
    "endedby",
    "ends",
    "meets",
    "metby",
    "tcontains",
    "tequals",
    "toverlaps",
];

pub(super) fn parse(text: &str) -> Result<Expr, CqlError> {
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end, depth: 0, signs: 0 };
    let expr = parser.or()?;
    match parser.tokens.get(parser.next) {
        None => Ok(expr),
        Some(_) => Err(parser.expected("the end, AND or OR")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    signs: usize,
}

type Parsed = Result<Expr, CqlError>;

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn expected(&self, what: &str) -> CqlError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Word(t) | Token::Number(t) | Token::Instant(t)) => format!("'{t}'"),
            Some(Token::Name(t)) => format!("\"{t}\""),
            Some(Token::Text(t)) => format!("the text '{t}'"),
            Some(Token::Sign(t)) => format!("'{t}'"),
        };
        CqlError { at: self.at(), what: format!("{what} is expected, not {found}") }
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.next + ahead), Some((_, Token::Word(w))) if w.eq_ignore_ascii_case(word))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(s)) if *s == sign)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.next += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, sign: &str) -> Result<(), CqlError> {
        if self.sign(sign) { Ok(()) } else { Err(self.expected(&format!("'{sign}'"))) }
    }

    fn or(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CqlError { at: self.at(), what: format!("this is nested deeper than {MAX_DEPTH}") });
        }
        let first = self.and()?;
        let expr = self.joined("or", first, Parser::and)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn and(&mut self) -> Parsed {
        let first = self.not()?;
        self.joined("and", first, Parser::not)
    }

    fn joined(&mut self, word: &str, first: Expr, part: fn(&mut Parser) -> Parsed) -> Parsed {
        let at = first.at;
        let mut all = vec![first];
        while self.word(word) {
            all.push(part(self)?);
        }
        match <[Expr; 1]>::try_from(all) {
            Ok([one]) => Ok(one),
            Err(all) => Ok(Expr { at, kind: Kind::Call(word.into(), all) }),
        }
    }

    fn not(&mut self) -> Parsed {
        let at = self.at();
        // Every `NOT` in a row cancels the one before: no depth to speak of.
        let mut negated = false;
        while self.word("not") {
            negated = !negated;
        }
        let inner = self.comparison()?;
        Ok(if negated { call(at, "not", vec![inner]) } else { inner })
    }

    fn comparison(&mut self) -> Parsed {
        // ECQL: the ids of features.
        if self.is_word(0, "in") {
            let at = self.at();
            self.next += 1;
            return Ok(call(at, "ids", self.list()?));
        }
        let left = self.sum()?;
        let at = left.at;
        for sign in ["=", "<>", "<=", ">=", "<", ">", "!="] {
            if self.sign(sign) {
                let right = self.sum()?;
                return Ok(call(at, if sign == "!=" { "<>" } else { sign }, vec![left, right]));
            }
        }
        if self.word("is") {
            let negated = self.word("not");
            let null = self.word("null");
            let expr = call(at, "isnull", vec![left]);
            return if null { Ok(perhaps(negated, expr)) } else { Err(self.expected("NULL")) };
        }
        let negated = ["like", "ilike", "between", "in"].iter().any(|w| self.is_word(1, w)) && self.word("not");
        for word in ["like", "ilike"] {
            if self.word(word) {
                let right = self.sum()?;
                return Ok(perhaps(negated, call(at, word, vec![left, right])));
            }
        }
        if self.word("between") {
            let low = self.sum()?;
            if !self.word("and") {
                return Err(self.expected("AND"));
            }
            let high = self.sum()?;
            return Ok(perhaps(negated, call(at, "between", vec![left, low, high])));
        }
        if self.word("in") {
            let mut all = vec![left];
            all.extend(self.list()?);
            return Ok(perhaps(negated, call(at, "in", all)));
        }
        let Some(word) = TEMPORAL.into_iter().find(|w| self.word(w)) else { return Ok(left) };
        let mut words = vec![word];
        // `BEFORE OR DURING`, `DURING OR AFTER`.
        while let Some(word) = TEMPORAL.into_iter().find(|w| self.is_word(0, "or") && self.is_word(1, w)) {
            self.next += 2;
            words.push(word);
        }
        let time = self.time()?;
        let relation = |word| call(at, &format!("t_{word}"), vec![left.clone(), time.clone()]);
        Ok(match words[..] {
            [word] => relation(word),
            _ => call(at, "or", words.into_iter().map(relation).collect()),
        })
    }

    fn list(&mut self) -> Result<Vec<Expr>, CqlError> {
        self.need("(")?;
        let mut all = vec![self.or()?];
        while self.sign(",") {
            all.push(self.or()?);
        }
        self.need(")")?;
        Ok(all)
    }

    /// ECQL's instant, or a period `a/b`.
    fn time(&mut self) -> Parsed {
        let begin = self.primary()?;
        if !self.sign("/") {
            return Ok(begin);
        }
        let end = self.primary()?;
        Ok(Expr { at: begin.at, kind: Kind::Period(begin.into(), end.into()) })
    }

    fn sum(&mut self) -> Parsed {
        self.chain(&["+", "-"], Parser::product)
    }

    fn product(&mut self) -> Parsed {
        self.chain(&["*", "/", "%", "div"], Parser::power)
    }

    fn power(&mut self) -> Parsed {
        let base = self.signed()?;
        if !self.sign("^") {
            return Ok(base);
        }
        Ok(call(base.at, "^", vec![base, self.signed()?]))
    }

    fn chain(&mut self, signs: &[&'static str], part: fn(&mut Parser) -> Parsed) -> Parsed {
        let mut left = part(self)?;
        while let Some(sign) = signs.iter().find(|s| self.is_sign(s) || self.is_word(0, s)) {
            self.signs += 1;
            if self.signs > MAX_SIGNS {
                return Err(CqlError { at: self.at(), what: format!("more than {MAX_SIGNS} signs of arithmetic") });
            }
            self.next += 1;
            let right = part(self)?;
            left = call(left.at, sign, vec![left, right]);
        }
        Ok(left)
    }

    fn signed(&mut self) -> Parsed {
        let at = self.at();
        if self.sign("-") {
            return Ok(match self.primary()? {
                Expr { kind: Kind::Number(n), .. } => Expr { at, kind: Kind::Number(format!("-{n}")) },
                other => call(at, "*", vec![Expr { at, kind: Kind::Number("-1".into()) }, other]),
            });
        }
        self.sign("+");
        self.primary()
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let Some(token) = self.peek().cloned() else { return Err(self.expected("a property, a value or a function")) };
        let of = |kind| Ok(Expr { at, kind });
        if let Token::Sign("(") = token {
            if self.empty_list() {
                return of(Kind::List(Vec::new()));
            }
            let mut all = self.list()?;
            // A list of one is that one: only what is made of it can tell.
            return if all.len() == 1 { Ok(all.swap_remove(0)) } else { of(Kind::List(all)) };
        }
        if let Token::Sign(_) = token {
            return Err(self.expected("a property, a value or a function"));
        }
        self.next += 1;
        let word = match token {
            Token::Name(name) => return of(Kind::Property(name)),
            Token::Text(text) | Token::Instant(text) => return of(Kind::Text(text)),
            Token::Number(number) => return of(Kind::Number(number)),
            Token::Word(word) => word,
            Token::Sign(_) => String::new(),
        };
        let lower = word.to_ascii_lowercase();
        match &*lower {
            "true" | "false" => return of(Kind::Bool(lower == "true")),
            "include" | "exclude" => return of(Kind::Bool(lower == "include")),
            _ => {}
        }
        if let Some(kind) = geometry_kind(&lower)
            && (self.is_sign("(") || ["empty", "z"].iter().any(|w| self.is_word(0, w)))
        {
            return self.geometry(at, kind);
        }
        if !self.is_sign("(") {
            return of(Kind::Property(word));
        }
        match &*lower {
            // ECQL has the two x first; CQL2's BBOX is the geometry, ECQL's a predicate with a geometry before the numbers.
            "envelope" => self.edges().map(|[w, e, s, n]| Expr { at, kind: Kind::Box([w, s, e, n]) }),
            "bbox" if matches!(self.tokens.get(self.next + 1), Some((_, Token::Number(_) | Token::Sign("-")))) => {
                self.edges().map(|b| Expr { at, kind: Kind::Box(b) })
            }
            "date" | "timestamp" | "interval" => self.instant_call(at, &lower),
            "dwithin" | "beyond" => self.distance(at, &lower),
            _ => Ok(call(at, &lower, if self.empty_list() { Vec::new() } else { self.list()? })),
        }
    }

    fn empty_list(&mut self) -> bool {
        let empty = matches!(self.tokens.get(self.next + 1), Some((_, Token::Sign(")"))));
        self.next += if empty { 2 } else { 0 };
        empty
    }

    fn instant_call(&mut self, at: usize, word: &str) -> Parsed {
        let mut all = self.list()?;
        match (word, all.len()) {
            ("interval", 2) => {
                let end = all.swap_remove(1);
                Ok(Expr { at, kind: Kind::Period(all.swap_remove(0).into(), end.into()) })
            }
            ("date" | "timestamp", 1) => Ok(all.swap_remove(0)),
            _ => Err(CqlError { at, what: format!("{} has {} arguments", word.to_uppercase(), all.len()) }),
        }
    }

    /// ECQL: `DWITHIN(geometry, geometry, distance, unit)`, the unit in one or two words.
    fn distance(&mut self, at: usize, word: &str) -> Parsed {
        self.need("(")?;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(self.sum()?);
            self.need(",")?;
        }
        let unit_at = self.at();
        let mut unit = Vec::new();
        while let Some(Token::Word(w) | Token::Text(w)) = self.peek().cloned() {
            unit.push(w);
            self.next += 1;
        }
        self.need(")")?;
        all.push(Expr { at: unit_at, kind: Kind::Text(unit.join(" ")) });
        Ok(call(at, word, all))
    }

    /// The numbers of a box in their parentheses.
    fn edges(&mut self) -> Result<[f64; 4], CqlError> {
        let at = self.at();
        self.need("(")?;
        let mut numbers = vec![self.number()?];
        while self.sign(",") {
            numbers.push(self.number()?);
        }
        self.need(")")?;
        edges_of(&numbers).ok_or_else(|| CqlError { at, what: "a box has four or six numbers".into() })
    }

    fn number(&mut self) -> Result<f64, CqlError> {
        let negative = self.sign("-");
        let Some(Token::Number(text)) = self.peek() else { return Err(self.expected("a number")) };
        let number: f64 = text.parse().map_err(|_| self.expected("a number"))?;
        self.next += 1;
        Ok(if negative { -number } else { number })
    }

    /// Well-known text after its first word.
    fn geometry(&mut self, at: usize, kind: GeometryKind) -> Parsed {
        let mut writer = Writer::new(Dimension::XY);
        self.shape(&mut writer, kind)?;
        let geometry = writer.checked().map_err(|e| CqlError { at, what: e.to_string() })?;
        Ok(Expr { at, kind: Kind::Geometry(geometry) })
    }

    fn shape(&mut self, w: &mut Writer, kind: GeometryKind) -> Result<(), CqlError> {
        self.word("z");
        w.begin(kind);
        if self.word("empty") {
            match kind {
                GeometryKind::Point => w.coord(Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN }),
                _ => w.count(0),
            }
            return Ok(());
        }
        match kind {
            GeometryKind::Point => {
                self.need("(")?;
                self.coord(w)?;
                self.need(")")
            }
            GeometryKind::LineString => self.line(w),
            GeometryKind::Polygon => self.each(w, Parser::line),
            GeometryKind::MultiPoint => self.each(w, |p, w| {
                w.begin(GeometryKind::Point);
                // Both `MULTIPOINT((1 2))` and `MULTIPOINT(1 2)` are about.
                let nested = p.sign("(");
                p.coord(w)?;
                if nested { p.need(")") } else { Ok(()) }
            }),
            GeometryKind::MultiLineString => self.each(w, |p, w| p.shape(w, GeometryKind::LineString)),
            GeometryKind::MultiPolygon => self.each(w, |p, w| p.shape(w, GeometryKind::Polygon)),
            GeometryKind::GeometryCollection | GeometryKind::Geometry => self.each(w, |p, w| {
                let Some(Token::Word(word)) = p.peek() else { return Err(p.expected("a geometry")) };
                let kind = geometry_kind(&word.to_ascii_lowercase()).ok_or_else(|| p.expected("a geometry"))?;
                p.next += 1;
                p.depth += 1;
                if p.depth > MAX_DEPTH {
                    return Err(p.expected("a simpler geometry"));
                }
                p.shape(w, kind)?;
                p.depth -= 1;
                Ok(())
            }),
        }
    }

    fn line(&mut self, w: &mut Writer) -> Result<(), CqlError> {
        self.each(w, Parser::coord)
    }

    /// A list, after its count.
    fn each(
        &mut self,
        w: &mut Writer,
        item: impl Fn(&mut Parser, &mut Writer) -> Result<(), CqlError>,
    ) -> Result<(), CqlError> {
        self.need("(")?;
        let place = w.count_later();
        let mut n = 0;
        loop {
            item(self, w)?;
            n += 1;
            if !self.sign(",") {
                break;
            }
        }
        w.set_count(place, n);
        self.need(")")
    }

    fn coord(&mut self, w: &mut Writer) -> Result<(), CqlError> {
        w.coord(Coord::xy(self.number()?, self.number()?));
        // No relation looks at heights, which some write without the `Z`.
        if !self.is_sign(",") && !self.is_sign(")") {
            self.number()?;
        }
        Ok(())
    }
}

fn perhaps(negated: bool, expr: Expr) -> Expr {
    if negated { call(expr.at, "not", vec![expr]) } else { expr }
}

fn geometry_kind(lower: &str) -> Option<GeometryKind> {
    GeometryKind::of_geometry(|k| k.name().eq_ignore_ascii_case(lower))
}
