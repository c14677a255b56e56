// The user interface beside the map: the list of collections with the counts of both tiers, the banner, and
// the attributes of the selected feature. Text from the server only ever becomes text nodes.

import { item } from './api.js';

const TIER_NAMES = { transient: 'transient index', persistent: 'long-term store' };
const byId = (id) => document.getElementById(id);
const number = (n) => (n === undefined ? '–' : n.toLocaleString());

function element(name, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children);
  return node;
}

/** Names the tier `persistent` after what it is here, such as GeoPackage or PostGIS. */
export function nameDelegate(name) {
  TIER_NAMES.persistent = `long-term store, ${name}`;
  byId('delegate').textContent = `Long-term store: ${name}`;
}

/** One line of the list; `onToggle(visible)` hears the check box. Returns `{node, update}`. */
export function collectionRow(live, onToggle) {
  const { id, title, description } = live.description;
  const box = element('input', { type: 'checkbox', checked: live.visible, onchange: () => onToggle(box.checked) });
  const total = element('span', { className: 'total' });
  const bars = element('div', { className: 'bar' });
  bars.setAttribute('aria-hidden', 'true');
  const counts = element('p', { className: 'counts' });
  const note = element('p', { className: 'note' });
  const node = element('li', {}, element('label', {}, box, title || id, total), bars, counts, note, element('p', { textContent: description ?? '' }));
  const parts = ['transient', 'persistent'].map((tier) => {
    const part = { tier, bar: element('div', { className: tier }), text: element('span', { className: tier }) };
    part.text.dataset.count = tier;
    bars.append(part.bar);
    counts.append(part.text);
    return part;
  });

  function update(error) {
    const sum = (live.counts.transient ?? 0) + (live.counts.persistent ?? 0);
    total.textContent = number(sum);
    for (const { tier, bar, text } of parts) {
      const count = live.counts[tier];
      bar.style.width = sum ? `${(100 * (count ?? 0)) / sum}%` : 0;
      text.textContent = `${number(count)} ${tier}`;
    }
    note.textContent = error ? error.message : live.visible ? live.note : '';
    note.className = error ? 'error' : 'note';
  }
  update();
  return { node, update };
}

/** Says that something is wrong with the connection; no text: all is well. */
export function banner(text) {
  byId('banner').hidden = !text;
  if (byId('banner').textContent !== text) byId('banner').textContent = text ?? '';
}

export function clock(text) {
  byId('clock').textContent = text;
}

/** The state of the server; none: it is not for this caller. */
export function showState(status) {
  byId('state').hidden = !status;
  if (!status) return;
  const failing = status.tasks.filter((task) => task.state !== 'running');
  byId('health').textContent = failing.length ? `${failing.length} of ${status.tasks.length} tasks are failing` : 'all is well';
  const heads = ['', 'behind', 'in memory', 'unpersisted', 'unresolved', 'refused', 'skipped'];
  const row = (name, cells) => element('tr', {}, ...cells.map((textContent) => element(name, { textContent })));
  const partitions = status.partitions.map((p) => row('td', [
    `${p.feature_type}/${p.partition}`,
    number(p.end - p.applied),
    p.partition === 0 ? number(p.index_features) : '',
    p.oldest_unpersisted_ms ? `${Math.round(p.oldest_unpersisted_ms / 1000)} s` : '',
    p.unresolved || '',
    p.refused || '',
    p.poison_records || '',
  ]));
  byId('partitions').replaceChildren(row('th', heads), ...partitions);
  const told = (task) => element('li', { textContent: `${task.name}: ${task.state}, ${task.restarts} restarts, ${task.last_error}` });
  byId('tasks').replaceChildren(...failing.map(told));
}

/** The attributes of one feature, which follow its changes on the map. */
export class FeaturePanel {
  constructor(onClose) {
    this.onClose = onClose;
    byId('close').onclick = () => this.close();
    document.addEventListener('keydown', (event) => event.key === 'Escape' && this.close());
  }

  async show(entry) {
    this.entry = entry;
    this.headers = {};
    byId('feature').hidden = false;
    this.update();
    await this.#readHeaders(entry);
  }

  close() {
    if (!this.entry) return;
    this.entry = null;
    byId('feature').hidden = true;
    this.onClose();
  }

  /** To be called after each round. */
  update() {
    const { entry } = this;
    if (!entry) return;
    const gone = entry.collection.entries.get(entry.id) !== entry;
    const properties = Object.entries(entry.properties);
    const name = entry.properties.name ?? entry.properties.NAME;
    byId('feature-title').textContent = name || entry.id;
    const rows = [
      ['Collection', entry.collection.description.title || entry.collection.id],
      ['Id', entry.id],
      ['Kept in', gone ? 'no longer in view' : swatched(entry.tier)],
      ['Last change', this.#lastChange(entry)],
      ...(this.headers.version ? [['Version', this.headers.version.replaceAll('"', '')]] : []),
      ...properties.map(([key, value]) => [key, shown(value)]),
    ];
    byId('attributes').replaceChildren(...rows.map(([key, value]) => {
      const head = element('th', { textContent: key });
      head.scope = 'row';
      return element('tr', {}, head, element('td', {}, value));
    }));
    if (entry.changed !== this.readFor) this.#readHeaders(entry);
  }

  #lastChange(entry) {
    if (entry.changed) return `${Math.round((Date.now() - entry.changed) / 1000)} s ago`;
    if (this.headers.modified) return new Date(this.headers.modified).toLocaleString();
    return 'not since the page was opened';
  }

  /** The version comes with the feature itself, not with the lists that the map reads. */
  async #readHeaders(entry) {
    this.readFor = entry.changed;
    try {
      const { version, modified } = await item(entry.collection.id, entry.id, new AbortController().signal);
      if (this.entry !== entry) return;
      this.headers = { version, modified };
      this.update();
    } catch {
      // Gone, or the connection is: the map's own rounds say so.
    }
  }
}

function swatched(tier) {
  return element('span', {}, element('span', { className: `swatch ${tier}` }), ` ${TIER_NAMES[tier]}`);
}

function shown(value) {
  if (value === null || value === undefined) return '–';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
