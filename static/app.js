// The map page. It is a plain client of the server's OGC API - Features and holds no state of its own; this
// file puts the parts together: map, collections, polling, panel.

import { ConnectionLost, collections, landingPage, status } from './api.js';
import { LiveCollection } from './live.js';
import { palette } from './look.js';
import { FeaturePanel, banner, clock, collectionRow, nameDelegate, showState } from './panel.js';
import { poll } from './poll.js';
import { position } from './points.js';

const ol = globalThis.ol;

const BASE = 'countries';
const LIVELY = 'ships'; // its extent is the first view
const HOME = [-126, 23, -66, 50]; // the United States
const COUNTS_EVERY_MS = 2000;
const COLLECTIONS_EVERY_MS = 10_000;
const STATE_EVERY_MS = 5000;
const SHOWN_AT_FIRST = 8;
const BUSY_ZOOM = 9;
const wide = matchMedia('(min-width: 46.01rem)'); // as in style.css

const shown = new Map(); // id -> {live, row, poller}
const troubles = new Map(); // what is polled -> error
let lastUpdate;
let placed = false;

const map = new ol.Map({
  target: 'map',
  keyboardEventTarget: 'map',
  controls: ol.control.defaults.defaults({ rotate: false, attributionOptions: { collapsible: false } }).extend([new ol.control.ScaleLine()]),
  interactions: ol.interaction.defaults.defaults({ altShiftDragRotate: false, pinchRotate: false }),
  view: new ol.View({ minZoom: 2, maxZoom: 18, enableRotation: false }),
});
const graticule = new ol.layer.Graticule({
  strokeStyle: new ol.style.Stroke({ color: 'rgb(128 150 165 / .25)', width: 1 }),
  wrapX: true,
});
graticule.getSource().setAttributions('<a href="https://openlayers.org">OpenLayers</a>');
map.addLayer(graticule);

const featurePanel = new FeaturePanel(() => select(null));

// ---- collections -----------------------------------------------------------------------------------------

async function refreshCollections(signal) {
  const offered = await collections(signal);
  const ids = new Set(offered.map((c) => c.id));
  for (const id of shown.keys()) if (!ids.has(id)) removeCollection(id);
  for (const description of offered) if (!shown.has(description.id)) addCollection(description);
  if (!placed) firstView();
}

function addCollection(description) {
  const { id } = description;
  const live = new LiveCollection(description, map, palette(), id === BASE);
  live.layer.setZIndex(id === BASE ? -1 : 0);
  live.layer.setVisible(shown.size < SHOWN_AT_FIRST);
  map.addLayer(live.layer);
  const row = collectionRow(live, (visible) => {
    live.layer.setVisible(visible);
    shown.get(id).poller?.wake();
  });
  shown.set(id, { live, row, poller: null });
  const order = [...shown.values()].sort((a, b) => a.live.base - b.live.base);
  document.getElementById('collections').replaceChildren(...order.map((each) => each.row.node));
}

function removeCollection(id) {
  const { live, row, poller } = shown.get(id);
  poller?.stop();
  map.removeLayer(live.layer);
  row.node.remove();
  shown.delete(id);
  troubles.delete(id);
}

async function refreshCounts(signal) {
  let failure;
  for (const [id, each] of shown) {
    const before = JSON.stringify(each.live.counts);
    await each.live.count(signal).catch((error) => { failure ??= error; });
    signal.throwIfAborted();
    each.row.update(troubles.get(id));
    if (!each.live.geometryType) continue; // nothing in it yet
    if (!each.poller) each.poller = startPolling(each);
    else if (each.live.base && JSON.stringify(each.live.counts) !== before) each.poller.wake();
  }
  if (failure) throw failure;
}

function startPolling({ live, row }) {
  return poll((signal) => live.refresh(signal), live.periodMs, (error) => {
    if (!error) lastUpdate = Date.now();
    report(live.id, error);
    row.update(error);
    featurePanel.update();
  });
}

// ---- what the connection does ----------------------------------------------------------------------------

function report(what, error) {
  if (!error) troubles.delete(what);
  else {
    troubles.set(what, error);
    if (error.status === undefined && !(error instanceof ConnectionLost)) console.error(what, error); // a fault of this page
  }
  const errors = [...troubles.values()];
  const unready = errors.find((each) => each.status === 503);
  if (errors.some((each) => each instanceof ConnectionLost)) banner('No connection to the server. Trying again …');
  else banner(unready && `The server can't answer everything now: ${unready.message}. Trying again …`);
  if (lastUpdate) clock(`${errors.length ? 'as of' : 'live'} ${new Date(lastUpdate).toLocaleTimeString()}`);
}

// ---- where one looks ---------------------------------------------------------------------------------------

function padding() {
  const panel = document.getElementById('panel').getBoundingClientRect();
  return wide.matches ? [20, 20, 40, panel.right + 20] : [20, 20, panel.height + 20, 20];
}

function fit(lonLatExtent) {
  const extent = ol.proj.transformExtent(lonLatExtent, 'EPSG:4326', 'EPSG:3857');
  map.getView().fit(extent, { padding: padding(), maxZoom: 12 });
}

/** `#zoom/lat/lon` in the address, else everything. */
function firstView() {
  placed = true;
  const [zoom, lat, lon] = location.hash.slice(1).split('/').map(Number);
  if (Number.isFinite(lon) && Math.abs(lat) < 86) {
    map.getView().setCenter(ol.proj.fromLonLat([lon, lat]));
    map.getView().setZoom(zoom);
  } else showEverything();
}

/** The extent of the ships, where it is known and is not half the world; else the United States. */
function showEverything() {
  const boxes = shown.get(LIVELY)?.live.description.extent?.spatial?.bbox;
  const box = boxes?.[0]?.length === 6 ? [0, 1, 3, 4].map((i) => boxes[0][i]) : boxes?.[0];
  const usable = box?.every(Number.isFinite) && box[2] - box[0] > 0 && box[2] - box[0] < 180;
  fit(usable ? [box[0], Math.max(box[1], -80), box[2], Math.min(box[3], 80)] : HOME);
}

function rememberView() {
  const view = map.getView();
  const [lon, lat] = ol.proj.toLonLat(view.getCenter());
  history.replaceState(null, '', `#${view.getZoom().toFixed(2)}/${lat.toFixed(4)}/${lon.toFixed(4)}`);
}

/** Goes to where most points are drawn that changed lately. */
function goToBusiest() {
  const cellSize = 100_000; // EPSG:3857 metres
  const cells = new Map();
  for (const { live } of shown.values()) {
    for (const entry of live.entries.values()) {
      if (entry.x === undefined || entry.tier !== 'transient') continue;
      const key = `${Math.floor(entry.x / cellSize)} ${Math.floor(entry.y / cellSize)}`;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(entry);
    }
  }
  const busiest = [...cells.values()].sort((a, b) => b.length - a.length)[0];
  if (!busiest) return;
  const mean = (axis) => busiest.reduce((sum, entry) => sum + entry[axis], 0) / busiest.length;
  map.getView().animate({ center: [mean('x'), mean('y')], zoom: BUSY_ZOOM, duration: 600 });
}

// ---- selection ---------------------------------------------------------------------------------------------

/** What is drawn at a coordinate; the base map only where nothing else is. */
function pick(coordinate, tolerancePx) {
  const topFirst = [...shown.values()].map(({ live }) => live).sort((a, b) => rank(a) - rank(b));
  for (const live of topFirst) {
    const entry = live.pick(coordinate, tolerancePx);
    if (entry) return entry;
  }
  return null;
}

function rank(live) {
  if (live.base) return 2;
  return live.geometryType === 'Point' ? 0 : 1;
}

function select(entry) {
  for (const { live } of shown.values()) {
    live.points.selected = entry;
    live.points.changed();
  }
  if (!entry) return;
  if (!wide.matches) document.getElementById('panel').open = false; // no room for both
  featurePanel.show(entry);
}

function selectAt(coordinate, tolerancePx) {
  const entry = pick(coordinate, tolerancePx);
  if (entry) select(entry);
  else featurePanel.close();
}

// ---- start ---------------------------------------------------------------------------------------------------

map.on('moveend', () => {
  if (!placed) return;
  rememberView();
  for (const { live, poller } of shown.values()) if (!live.base) poller?.wake();
});
map.on('singleclick', (event) => selectAt(event.coordinate, matchMedia('(pointer: coarse)').matches ? 18 : 9));
map.on('pointermove', (event) => {
  if (!event.dragging) map.getTargetElement().classList.toggle('pointing', pick(event.coordinate, 9)?.collection.base === false);
});
map.getTargetElement().addEventListener('keydown', (event) => {
  if (event.key === 'Enter') selectAt(map.getView().getCenter(), 60);
});
document.getElementById('busiest').onclick = goToBusiest;
document.getElementById('everything').onclick = showEverything;
document.getElementById('panel').open = wide.matches;
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const { live } of shown.values()) live.setPalette(palette());
});

poll(async (signal) => {
  const { delegate } = await landingPage(signal);
  if (delegate) nameDelegate(delegate);
}, 60_000, (error) => report('landing page', error));
const counting = poll(refreshCounts, COUNTS_EVERY_MS, (error) => report('counts', error));
poll(async (signal) => {
  const before = shown.size;
  await refreshCollections(signal);
  if (shown.size !== before) counting.wake();
}, COLLECTIONS_EVERY_MS, (error) => report('collections', error));

const watching = poll(async (signal) => {
  try {
    showState(await status(signal));
  } catch (error) {
    if (error.status !== 401 && error.status !== 403) throw error;
    showState(null);
    watching.stop();
  }
}, STATE_EVERY_MS, (error) => report('state', error));

/** For browser tests: read-only. Positions are EPSG:3857 as drawn at the moment. */
window.alluvium = {
  map,
  get layers() {
    return Object.fromEntries([...shown].map(([id, { live }]) => [id, live.layer]));
  },
  stats() {
    const collectionsNow = [...shown].map(([id, { live }]) => [id, { ...live.counts, drawn: live.entries.size }]);
    return { ...Object.fromEntries(collectionsNow), lastUpdate };
  },
  positions(id) {
    const now = performance.now();
    const points = [...(shown.get(id)?.live.entries.values() ?? [])].filter((entry) => entry.x !== undefined);
    return Object.fromEntries(points.map((entry) => [entry.id, position(entry, now)]));
  },
};
