// One collection on the map, kept up to date with the server: which features of the visible area are in which
// tier. It owns its entries and its two layers (points, and everything else); it draws no user interface.
//
// Invariant: the transient tier is asked first, then the persistent one, and an id that both gave is drawn as
// the later answer has it. A feature that changes tiers between the two may be missing from both answers, so
// one is taken off the map only after it has been missing from two rounds.

import { items } from './api.js';
import { PointLayer } from './points.js';
import { shapeStyle } from './look.js';

const ol = globalThis.ol;

const PAGE = 10_000;
const MOST_POINTS = 20_000;
const MOST_SHAPES = 4_000; // lines and polygons: beyond this one has to zoom in
const PERIOD_MS = { Point: 1000, base: 60_000, other: 3000 };
const PERSISTENT_EVERY_MS = 10_000; // the long-term store changes by sweeps, which show as features gone from the index
const PERSISTENT_AT_MOST_EVERY_MS = 2000;

export class LiveCollection {
  /** `description` as in GET /collections; `base`: the base map, read whole and drawn plainly. */
  constructor(description, map, palette, base) {
    this.id = description.id;
    this.description = description;
    this.base = base;
    this.map = map;
    this.entries = new Map();
    this.counts = {}; // whole collection: {transient, persistent}
    this.geometryType = undefined; // of one sample feature, once there is one
    this.note = '';
    this.source = new ol.source.Vector({ attributions: description.attribution && escaped(description.attribution) });
    this.shapes = new ol.layer.Vector({ source: this.source, declutter: base });
    this.points = new PointLayer(this.entries, palette);
    this.setPalette(palette);
    this.layer = new ol.layer.Group({ layers: [this.shapes, this.points] });
  }

  get visible() {
    return this.layer.getVisible();
  }

  get periodMs() {
    if (this.base) return PERIOD_MS.base;
    return PERIOD_MS[this.geometryType] ?? PERIOD_MS.other;
  }

  setPalette(palette) {
    this.shapes.setStyle(shapeStyle(palette, this.base));
    this.points.setPalette(palette);
  }

  /** Counts of both tiers in the whole collection. */
  async count(signal) {
    for (const tier of ['transient', 'persistent']) {
      const { matched, features } = await items(this.id, { tier, limit: 1 }, signal);
      this.counts[tier] = matched;
      this.geometryType = features[0]?.geometry?.type ?? this.geometryType;
    }
  }

  /** One round: brings the entries of the visible area up to date. */
  async refresh(signal) {
    if (!this.visible || !this.geometryType) return;
    const view = this.#view();
    const moved = view.key !== this.viewKey;
    if (!(await this.#fits(view, signal))) {
      this.#clear();
      return;
    }
    const began = performance.now();
    const glideMs = Math.min(3000, Math.max(400, began - (this.refreshed ?? began) + 100));
    const most = this.geometryType === 'Point' ? MOST_POINTS : MOST_SHAPES;
    const read = (tier) => items(this.id, { tier, bbox: view.bbox, limit: Math.min(PAGE, most), most }, signal);

    // Shown before the other tier is asked: with the long-term store down, the index still answers.
    const transient = await read('transient');
    signal.throwIfAborted();
    for (const feature of transient.features) this.#put(feature, 'transient', glideMs);
    this.points.changed();
    this.refreshed = began;

    const seen = new Set(transient.features.map((feature) => feature.id));
    const left = [...this.entries.values()].some((entry) => entry.missed || (entry.tier === 'transient' && !seen.has(entry.id)));
    const age = began - (this.persistentRead ?? -Infinity);
    const due = moved || age > PERSISTENT_EVERY_MS || (left && age > PERSISTENT_AT_MOST_EVERY_MS);
    if (!due) return;
    const persistent = await read('persistent');
    signal.throwIfAborted();
    for (const feature of persistent.features) {
      this.#put(feature, 'persistent', glideMs);
      seen.add(feature.id);
    }
    this.#forget(seen, view.extent);
    this.points.changed();
    this.note = incomplete(transient, persistent);
    this.persistentRead = began;
    this.viewKey = view.key;
  }

  /** What is at a coordinate or nearly so. */
  pick(coordinate, tolerancePx) {
    if (!this.visible) return undefined;
    return this.points.pick(coordinate, tolerancePx)
      ?? this.map.forEachFeatureAtPixel(
        this.map.getPixelFromCoordinate(coordinate),
        (feature) => feature.get('entry'),
        { hitTolerance: tolerancePx / 2, layerFilter: (layer) => layer === this.shapes },
      );
  }

  #view() {
    const extent = this.map.getView().calculateExtent(this.map.getSize());
    if (this.base) return { extent, bbox: undefined, key: 'all' };
    const bbox = lonLatBox(extent);
    return { extent, bbox, key: `${bbox}` };
  }

  /** Whether the visible area has few enough features to draw; points always are. */
  async #fits(view, signal) {
    if (this.base || this.geometryType === 'Point') return true;
    const { matched } = await items(this.id, { bbox: view.bbox, limit: 1 }, signal);
    const fits = matched === undefined || matched <= MOST_SHAPES;
    if (!fits) this.note = `${matched.toLocaleString()} in view: zoom in to see them.`;
    return fits;
  }

  #put(feature, tier, glideMs) {
    let entry = this.entries.get(feature.id);
    const isNew = !entry;
    if (isNew) {
      entry = { id: feature.id, collection: this };
      this.entries.set(feature.id, entry);
    }
    const changedTier = entry.tier !== tier;
    Object.assign(entry, { tier, properties: feature.properties ?? {}, missed: 0 });
    const changedPlace = feature.geometry?.type === 'Point'
      ? this.#putPoint(entry, feature.geometry, glideMs) : this.#putShape(entry, feature.geometry);
    if (!isNew && changedPlace) entry.changed = Date.now();
    if (changedTier) entry.shape?.changed();
  }

  #putPoint(entry, geometry, glideMs) {
    entry.direction = PointLayer.directionOf(entry.properties);
    return this.points.place(entry, ol.proj.fromLonLat(geometry.coordinates), glideMs);
  }

  #putShape(entry, geometry) {
    const text = JSON.stringify(geometry);
    if (text === entry.geometry) return false;
    entry.geometry = text;
    const shape = geometry && new ol.format.GeoJSON().readGeometry(geometry, { featureProjection: 'EPSG:3857' });
    if (entry.shape) {
      entry.shape.setGeometry(shape);
    } else {
      entry.shape = new ol.Feature({ geometry: shape, entry });
      this.source.addFeature(entry.shape);
    }
    return true;
  }

  /** Takes away what is neither in the answers nor merely between the tiers. */
  #forget(seen, extent) {
    for (const entry of this.entries.values()) {
      if (seen.has(entry.id)) continue;
      const isPoint = entry.x !== undefined;
      const inView = isPoint && ol.extent.containsXY(extent, entry.x, entry.y);
      if (++entry.missed > 1 || (isPoint && !inView)) this.#remove(entry);
    }
  }

  #remove(entry) {
    this.entries.delete(entry.id);
    if (entry.shape) this.source.removeFeature(entry.shape);
  }

  #clear() {
    this.viewKey = undefined;
    this.entries.clear();
    this.source.clear();
    this.points.changed();
  }
}

/** Text as HTML, which OpenLayers takes attributions for. */
function escaped(text) {
  return Object.assign(document.createElement('p'), { textContent: text }).innerHTML;
}

/** Says so when two answers hold less than there is. */
function incomplete(transient, persistent) {
  const drawn = transient.features.length + persistent.features.length;
  const inView = (transient.matched ?? 0) + (persistent.matched ?? 0);
  return drawn < inView ? `${drawn.toLocaleString()} of ${inView.toLocaleString()} in view are drawn: zoom in for all.` : '';
}

/** An EPSG:3857 extent as a CRS84 bbox; west > east across the antimeridian; undefined: the whole world. */
function lonLatBox(extent) {
  const [west, south] = ol.proj.toLonLat([extent[0], extent[1]]);
  const [east, north] = ol.proj.toLonLat([extent[2], extent[3]]);
  const half = 20037508.3;
  if (extent[2] - extent[0] >= 2 * half) return undefined;
  const lowest = extent[1] <= -half ? -90 : south;
  const highest = extent[3] >= half ? 90 : north;
  return [west, lowest, east, highest].map((degrees) => degrees.toFixed(5)).join(',');
}
