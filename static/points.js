// A map layer for points that move: drawn straight onto a canvas from small pre-rendered sprites, one per
// (tier, direction), so that ten thousand of them glide without a vector layer's indexes being rebuilt.

const ol = globalThis.ol;

const DIRECTIONS = 64;
const FRAME_MS = 33;
const LONGEST_GLIDE_PX = 200; // beyond this it is a jump, not a movement
const WORLD = 2 * Math.PI * 6378137; // width of EPSG:3857
const stillness = matchMedia('(prefers-reduced-motion: reduce)');

/** Radians clockwise from north in which an AIS-like point looks, or undefined: "not available" is 511 or 360. */
function direction({ heading, cog, sog }) {
  if (heading != null && heading >= 0 && heading < 360) return (heading * Math.PI) / 180;
  const underWay = sog == null || sog >= 0.5; // a drifting GPS makes up a course for a ship at rest
  if (cog != null && cog >= 0 && cog < 360 && underWay) return (cog * Math.PI) / 180;
  return undefined;
}

/** Where an entry is drawn at time `now` (ms), on its way from the last place to the present one. */
export function position(entry, now) {
  if (now >= entry.arrives) return [entry.x, entry.y];
  const left = (entry.arrives - now) / (entry.arrives - entry.leaves);
  return [entry.x + (entry.fromX - entry.x) * left, entry.y + (entry.fromY - entry.y) * left];
}

/** Draws those of `entries` (id -> entry) that have been given a place by `place`. */
export class PointLayer extends ol.layer.Layer {
  constructor(entries, palette) {
    super({});
    this.entries = entries;
    this.palette = palette;
    this.sprites = new Map();
    this.resolution = Infinity;
    this.selected = null;
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'ol-layer';
    Object.assign(this.canvas.style, { position: 'absolute', inset: 0, width: '100%', height: '100%' });
  }

  /** Puts an entry at an EPSG:3857 coordinate, gliding there in `glideMs`; tells whether that is a new place. */
  place(entry, [x, y], glideMs) {
    if (entry.x === x && entry.y === y) return false;
    const now = performance.now();
    const known = entry.x !== undefined;
    [entry.fromX, entry.fromY] = known ? position(entry, now) : [x, y];
    const distancePx = Math.hypot(x - entry.fromX, y - entry.fromY) / this.resolution;
    const glides = !stillness.matches && distancePx > 0.3 && distancePx < LONGEST_GLIDE_PX;
    entry.leaves = now;
    entry.arrives = glides ? now + glideMs : now;
    entry.x = x;
    entry.y = y;
    return known;
  }

  setPalette(palette) {
    this.palette = palette;
    this.sprites.clear();
    this.changed();
  }

  render(frame) {
    const { size, pixelRatio, viewState } = frame;
    const { resolution, center } = viewState;
    const width = Math.round(size[0] * pixelRatio);
    const height = Math.round(size[1] * pixelRatio);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext('2d');
    context.clearRect(0, 0, width, height);

    this.resolution = resolution;
    const scale = pixelRatio / resolution;
    const left = center[0] - width / 2 / scale;
    const top = center[1] + height / 2 / scale;
    const radius = Math.round(2 * Math.min(8, Math.max(2.6, viewState.zoom * 0.95 - 1.6)) * pixelRatio) / 2;
    const now = performance.now();
    let moving = false;

    for (const tier of ['persistent', 'transient']) {
      for (const entry of this.entries.values()) {
        if (entry.tier !== tier || entry.x === undefined) continue;
        moving ||= entry.arrives > now;
        const [x, y] = position(entry, now);
        const py = (top - y) * scale;
        if (py < -radius || py > height + radius) continue;
        const sprite = this.#sprite(tier, entry.direction, radius, pixelRatio);
        // Every copy of the world in view, when one has panned across the antimeridian or zoomed far out.
        for (let px = ((((x - left) % WORLD) + WORLD) % WORLD) * scale; px < width + radius; px += WORLD * scale) {
          context.drawImage(sprite, px - sprite.width / 2, py - sprite.height / 2);
          if (entry === this.selected) this.#ring(context, px, py, radius + 4 * pixelRatio);
        }
      }
    }
    if (moving) setTimeout(() => this.changed(), FRAME_MS);
    return this.canvas;
  }

  /** The entry nearest to a coordinate, at most `tolerancePx` away. */
  pick([x, y], tolerancePx) {
    const now = performance.now();
    let best = tolerancePx * this.resolution;
    let nearest;
    for (const entry of this.entries.values()) {
      if (entry.x === undefined) continue;
      const [ex, ey] = position(entry, now);
      const dx = Math.abs(ex - x) % WORLD;
      const distance = Math.hypot(Math.min(dx, WORLD - dx), ey - y);
      if (distance <= best) [best, nearest] = [distance, entry];
    }
    return nearest;
  }

  /** What direction an entry's properties give it, as a sprite number; undefined: a dot. */
  static directionOf(properties) {
    const radians = direction(properties);
    return radians === undefined ? undefined : Math.round((radians / (2 * Math.PI)) * DIRECTIONS) % DIRECTIONS;
  }

  #sprite(tier, directionNumber, radius, pixelRatio) {
    const key = `${tier} ${directionNumber} ${radius} ${pixelRatio}`;
    let sprite = this.sprites.get(key);
    if (!sprite) {
      if (this.sprites.size > 1000) this.sprites.clear(); // sizes of zoom levels passed by
      sprite = drawSprite(this.palette, tier, directionNumber, radius, pixelRatio);
      this.sprites.set(key, sprite);
    }
    return sprite;
  }

  #ring(context, x, y, radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = radius / 4;
    context.strokeStyle = this.palette.ink;
    context.stroke();
  }
}

function drawSprite(palette, tier, directionNumber, radius, pixelRatio) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 2 * Math.ceil(radius * 1.5 + 1);
  const context = canvas.getContext('2d');
  context.translate(canvas.width / 2, canvas.height / 2);
  context.beginPath();
  if (directionNumber === undefined) {
    context.arc(0, 0, radius * 0.62, 0, 2 * Math.PI);
  } else {
    context.rotate((directionNumber / DIRECTIONS) * 2 * Math.PI);
    context.moveTo(0, -1.35 * radius);
    context.lineTo(0.8 * radius, radius);
    context.lineTo(0, 0.6 * radius);
    context.lineTo(-0.8 * radius, radius);
    context.closePath();
  }
  context.fillStyle = palette[tier];
  context.fill();
  if (radius > 5 * pixelRatio) { // in a crowd of small ones the outlines would drown the colours
    context.lineWidth = radius / 8;
    context.strokeStyle = palette.halo;
    context.stroke();
  }
  return canvas;
}
