//! The CRS that are known, out of PROJ's own database: `table.tsv`, written by `generate.py`.

use std::io::{BufRead, BufReader};
use std::sync::{LazyLock, OnceLock};

use proj4rs::Proj;

use crate::model::Rect;

/// A line of the table.
pub(super) struct Definition {
    pub epsg: u32,
    pub geographic: bool,
    /// The registry's axis order is latitude or northing first.
    pub northing_first: bool,
    pub name: &'static str,
    /// Longitudes and latitudes of WGS 84; `west > east` where it crosses the antimeridian.
    area: &'static str,
    /// PROJ.4 words without their `+`.
    proj4: &'static str,
    projection: OnceLock<Option<Proj>>,
}

impl Definition {
    /// The projection, made when it is first asked for.
    pub fn projection(&self) -> Option<&Proj> {
        self.projection
            .get_or_init(|| Proj::from_proj_string(&format!("+{}", self.proj4.replace(' ', " +"))).ok())
            .as_ref()
    }

    /// The area of use in longitude and latitude of WGS 84. Where it crosses the antimeridian, `min_x > max_x`.
    pub fn area(&self) -> Rect {
        let mut bounds = self.area.split(' ').map(|v| v.parse().unwrap_or(0.0));
        let mut next = || bounds.next().unwrap_or(0.0);
        Rect { min_x: next(), min_y: next(), max_x: next(), max_y: next() }
    }
}

static TABLE: LazyLock<Vec<Definition>> = LazyLock::new(|| parse(include_str!("table.tsv")));

/// The definition of an EPSG code.
pub(super) fn find(epsg: u32) -> Option<&'static Definition> {
    TABLE.binary_search_by_key(&epsg, |d| d.epsg).ok().map(|i| &TABLE[i])
}

/// The definition of an EPSG code in ESRI's WKT: `esri.tsv.gz`, written by `esri.py`. It is read from its beginning.
pub(super) fn esri_wkt(epsg: u32) -> Option<String> {
    let lines = BufReader::new(flate2::read::GzDecoder::new(&include_bytes!("esri.tsv.gz")[..])).lines();
    lines.map_while(Result::ok).find_map(|line| {
        let (code, wkt) = line.split_once('\t')?;
        (code.parse() == Ok(epsg)).then(|| wkt.to_owned())
    })
}

/// All of them, by code.
pub(super) fn all() -> &'static [Definition] {
    &TABLE
}

/// Lines that are not of the table's form are left out; a test holds the table to have none.
pub(super) fn parse(text: &'static str) -> Vec<Definition> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

fn line(line: &'static str) -> Option<Definition> {
    let mut fields = line.split('\t');
    let epsg = fields.next()?.parse().ok()?;
    let flags = fields.next()?;
    Some(Definition {
        epsg,
        geographic: flags.starts_with('g'),
        northing_first: flags.ends_with('n'),
        area: fields.next()?,
        proj4: fields.next()?,
        name: fields.next()?,
        projection: OnceLock::new(),
    })
}
