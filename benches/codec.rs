//! The log's records and the formats of the protocols: one ship with eight attributes into bytes and back.

mod ships;

use std::hint::black_box;

use alluvium::format::{geojson, gml, record};
use alluvium::model::crs::CrsRef;
use alluvium::model::{Change, Record, Run};
use criterion::{Criterion, Throughput};
use ships::Fleet;

fn main() {
    let ft = ships::feature_type();
    let mut fleet = Fleet::new();
    let fleet: Vec<_> = (0..1000)
        .map(|n| {
            let at = fleet.anywhere();
            fleet.ship(n, at)
        })
        .collect();
    let changes: Vec<Change> = fleet.iter().cloned().map(Change::Put).collect();
    let single = Record::Changes { run: Run::WHOLE, changes: changes[..1].to_vec() };
    let thousand = Record::Changes { run: Run::WHOLE, changes };

    let mut criterion = Criterion::default().configure_from_args().sample_size(30);
    let mut group = criterion.benchmark_group("record");
    for (name, record, n) in [("1", &single, 1), ("1000", &thousand, 1000)] {
        group.throughput(Throughput::Elements(n));
        group.bench_function(format!("encode_{name}"), |b| b.iter(|| record::encode(black_box(record), 1)));
        let bytes = record::encode(record, 1);
        group.bench_function(format!("decode_{name}"), |b| {
            b.iter(|| record::decode(None, Some(black_box(&bytes)), &ft).expect("a record of ours"));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("geojson");
    group.throughput(Throughput::Elements(fleet.len() as u64));
    let writer = geojson::FeatureWriter::new(&ft, &geojson::Options::default());
    let mut out = Vec::new();
    group.bench_function("encode_1000", |b| {
        b.iter(|| {
            out.clear();
            fleet.iter().for_each(|f| writer.write(&mut out, f, None).expect("no CRS to leave"));
            black_box(out.len())
        });
    });
    let texts: Vec<Vec<u8>> = fleet
        .iter()
        .map(|f| {
            let mut text = Vec::new();
            writer.write(&mut text, f, None).expect("no CRS to leave");
            text
        })
        .collect();
    let reader = geojson::FeatureReader::new(&ft, None, geojson::Unknown::Refuse);
    group.bench_function("decode_1000", |b| {
        b.iter(|| texts.iter().map(|t| reader.feature(t).expect("as it was written")).for_each(|f| drop(black_box(f))));
    });
    group.finish();

    let mut group = criterion.benchmark_group("gml");
    group.throughput(Throughput::Elements(fleet.len() as u64));
    let crs = CrsRef::parse("urn:ogc:def:crs:EPSG::4326").expect("a known CRS");
    let writer = gml::FeatureWriter::new(&ft, gml::GmlVersion::V3_2, &crs, &gml::Selection::all(&ft));
    group.bench_function("encode_1000", |b| {
        b.iter(|| {
            out.clear();
            fleet.iter().for_each(|f| writer.write(&mut out, f, "").expect("no CRS to leave"));
            black_box(out.len())
        });
    });
    group.finish();
    criterion.final_summary();
}
