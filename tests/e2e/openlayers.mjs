// What a page made with OpenLayers does with a WFS: node openlayers.mjs MODULES URL VERSION. Prints what it read, as JSON.
import {pathToFileURL} from 'node:url';

const [modules, url, version] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${modules}/${path}`));
const {JSDOM} = (await load('jsdom/lib/api.js')).default;
const {window} = new JSDOM('');
for (const name of ['document', 'Node', 'DOMParser', 'XMLSerializer']) globalThis[name] = window[name];

const {default: WFS} = await load('ol/format/WFS.js');
const gml = {'1.0.0': 'GML2', '1.1.0': 'GML3', '2.0.0': 'GML32'}[version];
const {default: GML} = await load(`ol/format/${gml}.js`);
const {default: Feature} = await load('ol/Feature.js');
const {default: Point} = await load('ol/geom/Point.js');
const {equalTo, and, bbox, like} = await load('ol/format/filter.js');

const featureNS = 'urn:alluvium:app';
const srsName = 'EPSG:3857';
const format = new WFS({version, featureNS, featureType: 'ships', gmlFormat: new GML({featureNS, featureType: 'ships', srsName})});
const options = {featureNS, featurePrefix: 'app', featureType: 'ships', srsName, version, gmlOptions: {srsName}};
const text = (node) => new window.XMLSerializer().serializeToString(node);

async function post(node) {
  // As fetch sends a string: text/plain.
  const answer = await fetch(url, {method: 'POST', body: text(node)});
  return answer.text();
}

async function transaction(...actions) {
  const answer = await post(format.writeTransaction(...actions, options));
  // It cannot read what 1.0.0 answers.
  if (version === '1.0.0') {
    if (!answer.includes('SUCCESS')) throw new Error(`refused: ${answer}`);
    return {};
  }
  const told = format.readTransactionResponse(answer);
  if (!told?.transactionSummary) throw new Error(`no answer to a transaction: ${answer}`);
  return told;
}

async function read(filter) {
  const request = {srsName, featureNS, featurePrefix: 'app', featureTypes: ['ships'], filter};
  const answer = await post(format.writeGetFeature(request));
  return format.readFeatures(answer, {dataProjection: srsName, featureProjection: srsName}).map((f) => ({
    id: f.getId(), name: f.get('name'), speed: f.get('speed'), at: f.getGeometry()?.getCoordinates().slice(0, 2),
  }));
}

function ship(name, speed, at) {
  const feature = new Feature({name, speed});
  feature.setGeometryName('geom');
  feature.setGeometry(new Point(at));
  return feature;
}

const found = {};
const inserted = await transaction([ship('first & <last>', 1.5, [1000, 2000]), ship('second', 2.5, [3000, 4000])], null, null);
found.all = await read();
found.filtered = await read(and(like('name', 'sec*'), bbox('geom', [2900, 3900, 3100, 4100], srsName)));
// In 2.0.0 it looks for the ids in a namespace that no version has.
found.told = version === '1.1.0' ? inserted.insertIds : null;
found.ids = ['first & <last>', 'second'].map((name) => found.all.find((f) => f.name === name)?.id);

const changed = ship('changed', null, [5000, 6000]);
changed.setId(found.ids[0]);
const updated = await transaction(null, [changed], null);
found.changed = await read(equalTo('name', 'changed'));

const gone = new Feature();
gone.setId(found.ids[1]);
const deleted = await transaction(null, null, [gone]);
found.rest = await read();
found.summaries = [inserted, updated, deleted].map((told) => told.transactionSummary);
console.log(JSON.stringify(found));
