//! Features as Shapefiles in a ZIP archive.
//!
//! Geometries of one class go into one file, so that a type with any geometry becomes several: `roads_line`, `roads_point`;
//! its features without geometry become a table, `roads_none`. Text is UTF-8 (`.cpg`) and cut to 254 bytes, names are cut to
//! 10 and kept apart by numbers, instants are text. The `.prj` is in ESRI's WKT, where the CRS has one.

mod shape;
mod table;

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Seek, SeekFrom, Write};

use super::file::{Content, FeatureFile, FileError, temporary};
use super::gml::{Selection, gml_id};
use super::placed::Placed;
use super::zip;
use crate::model::crs::Crs;
use crate::model::{Dimension, Feature, FeatureType, GeometryKind};
use shape::{Class, Extent};
use table::Table;

/// Bytes of one file: places in it are counted in 31 bits.
const MOST_BYTES: u64 = i32::MAX as u64;

/// The files of an archive.
#[derive(Default)]
pub struct Archive {
    /// Of the type that is being written, and those before it.
    current: Option<Layer>,
    done: Vec<Set>,
    bytes: u64,
}

struct Layer {
    name: String,
    properties: Vec<usize>,
    placed: Placed,
    sets: Vec<Set>,
}

/// The files of one name: `.dbf`, and of a class also `.shp` and `.shx`.
struct Set {
    name: String,
    crs: Crs,
    table: Table,
    rows: u32,
    dbf: Part,
    shapes: Option<Shapes>,
}

struct Shapes {
    class: Class,
    code: i32,
    extent: Extent,
    shp: Part,
    shx: Part,
}

/// A file being written.
struct Part {
    file: BufWriter<File>,
    bytes: u64,
}

impl FeatureFile for Archive {
    fn begin(&mut self, ft: &FeatureType, crs: Crs, selection: &Selection) -> Result<(), FileError> {
        self.end();
        let placed = Placed::new(ft, crs, selection);
        let mut layer =
            Layer { name: ft.name.clone(), properties: selection.properties.clone(), placed, sets: Vec::new() };
        // A type of one class has its files even where it has no features.
        match layer.placed.column.map(|g| (g.kind, Class::of(g.kind))) {
            None => layer.sets.push(Set::new(ft, &layer, ft.name.clone(), None)?),
            Some((_, Some(class))) => layer.sets.push(Set::new(ft, &layer, ft.name.clone(), Some(class))?),
            Some((GeometryKind::GeometryCollection, _)) => {
                return Err(FileError::Format("a Shapefile has no geometry collections".into()));
            }
            Some(_) => {
                for class in
                    [Some(Class::Point), Some(Class::MultiPoint), Some(Class::Line), Some(Class::Polygon), None]
                {
                    let name = format!("{}_{}", ft.name, class.map_or("none", Class::name));
                    layer.sets.push(Set::new(ft, &layer, name, class)?);
                }
            }
        }
        self.current = Some(layer);
        Ok(())
    }

    fn write(&mut self, feature: &Feature) -> Result<(), FileError> {
        let Some(layer) = &mut self.current else { return Ok(()) };
        let geometry = layer.placed.geometry(feature)?;
        let class = geometry.as_ref().map(|g| (g.kind(), Class::of(g.kind())));
        if let Some((kind, None)) = class {
            let what = format!("feature '{}' is a {}, which a Shapefile has not", feature.id, kind.name());
            return Err(FileError::Format(what));
        }
        let class = class.and_then(|(_, class)| class);
        let several = layer.sets.len() > 1;
        let set = layer.sets.iter_mut().find(|s| !several || s.shapes.as_ref().map(|s| s.class) == class);
        let Some(set) = set else { return Ok(()) };
        let mut row = Vec::with_capacity(set.table.row_size());
        let values = layer.properties.iter().map(|slot| feature.value(*slot));
        set.table.write(&mut row, &gml_id(&layer.name, &feature.id), values)?;
        self.bytes += set.write(&row, geometry.as_ref())?;
        if self.bytes > zip::MOST_BYTES {
            return Err(too_large("the archive", zip::MOST_BYTES));
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Content, FileError> {
        self.end();
        let mut entries = Vec::new();
        for set in self.done {
            set.finish(&mut entries)?;
        }
        Ok(Content::Zip(entries))
    }
}

fn too_large(what: &str, most: u64) -> FileError {
    FileError::Format(format!("{what} would have more than {most} bytes: ask for less at once, or for another format"))
}

impl Archive {
    /// Of a type with any geometry only those files stay that have something in them, or the first.
    fn end(&mut self) {
        let Some(layer) = self.current.take() else { return };
        let empty = layer.sets.iter().all(|s| s.rows == 0);
        let sets = layer.sets.into_iter().enumerate();
        self.done.extend(sets.filter(|(i, s)| s.rows > 0 || empty && *i == 0).map(|(_, s)| s));
    }
}

impl Set {
    fn new(ft: &FeatureType, layer: &Layer, name: String, class: Option<Class>) -> Result<Set, FileError> {
        let table = Table::new(ft, &layer.properties)?;
        let dbf = Part::new(&table.header(0))?;
        let dimension = layer.placed.column.map_or(Dimension::XY, |g| g.dimension);
        let shapes = class.map(|class| -> io::Result<Shapes> {
            // The heads are written last.
            let (shp, shx) = (Part::new(&[0; HEADER])?, Part::new(&[0; HEADER])?);
            Ok(Shapes { class, code: class.code(dimension), extent: Extent::NOTHING, shp, shx })
        });
        Ok(Set { name, crs: layer.placed.crs, table, rows: 0, dbf, shapes: shapes.transpose()? })
    }

    /// Appends a row, and a shape where there are any; says how many bytes that was.
    fn write(&mut self, row: &[u8], geometry: Option<&crate::model::Geometry>) -> Result<u64, FileError> {
        let before = self.bytes();
        self.dbf.append(row)?;
        self.rows += 1;
        if let Some(shapes) = &mut self.shapes {
            let mut shape = Vec::new();
            let extent = shape::write(&mut shape, geometry);
            if let Some(extent) = extent {
                shapes.extent.merge(&extent);
            }
            // In words of 16 bits.
            let (place, words) = ((shapes.shp.bytes / 2) as u32, (shape.len() / 2) as u32);
            shapes.shx.append(&[place.to_be_bytes(), words.to_be_bytes()].concat())?;
            shapes.shp.append(&[self.rows.to_be_bytes(), words.to_be_bytes()].concat())?;
            shapes.shp.append(&shape)?;
        }
        Ok(self.bytes() - before)
    }

    fn bytes(&self) -> u64 {
        self.dbf.bytes + self.shapes.as_ref().map_or(0, |s| s.shp.bytes + s.shx.bytes)
    }

    fn finish(self, entries: &mut Vec<zip::Entry>) -> Result<(), FileError> {
        let Set { name, crs, table, rows, mut dbf, shapes } = self;
        let mut entry =
            |extension: &str, content| entries.push(zip::Entry { name: format!("{name}.{extension}"), content });
        if let Some(Shapes { code, extent, mut shp, mut shx, .. }) = shapes {
            let heads = [&shp, &shx].map(|part| header(code, &extent, part.bytes));
            for (part, head) in [&mut shp, &mut shx].into_iter().zip(heads) {
                part.begin_with(&head)?;
            }
            entry("shp", shp.finish()?);
            entry("shx", shx.finish()?);
            if let Some(wkt) = crs.esri_wkt() {
                entry("prj", Box::new(Cursor::new(wkt)));
            }
        }
        dbf.append(b"\x1a")?;
        dbf.begin_with(&table.header(rows))?;
        entry("dbf", dbf.finish()?);
        entry("cpg", Box::new(Cursor::new("UTF-8")));
        Ok(())
    }
}

const HEADER: usize = 100;

/// The head of a `.shp` or `.shx` of so many bytes.
fn header(code: i32, extent: &Extent, bytes: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    for n in [9994, 0, 0, 0, 0, 0, (bytes / 2) as i32] {
        out.extend_from_slice(&n.to_be_bytes());
    }
    for n in [1000, code] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    let [x, y, z, m] = extent.sides();
    for n in [x.0, y.0, x.1, y.1, z.0, z.1, m.0, m.1] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out
}

impl Part {
    fn new(head: &[u8]) -> io::Result<Part> {
        let mut file = BufWriter::new(temporary()?);
        file.write_all(head)?;
        Ok(Part { file, bytes: head.len() as u64 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MOST_BYTES {
            return Err(too_large("a Shapefile", MOST_BYTES));
        }
        Ok(self.file.write_all(bytes)?)
    }

    /// Writes over the beginning; nothing may be appended after that.
    fn begin_with(&mut self, head: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(head)
    }

    fn finish(mut self) -> io::Result<Box<dyn io::Read + Send>> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(Box::new(self.file.into_inner().map_err(io::IntoInnerError::into_error)?))
    }
}
