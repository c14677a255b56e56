// Colours and line styles. The colours themselves are custom properties in style.css, light and dark.

const ol = globalThis.ol;

const NAMES = ['transient', 'persistent', 'land', 'border', 'label', 'halo', 'ink'];

/** The present colours, by name. */
export function palette() {
  const css = getComputedStyle(document.documentElement);
  return Object.fromEntries(NAMES.map((name) => [name, css.getPropertyValue(`--${name}`).trim()]));
}

/** The style of lines and polygons: by tier, or plain for the base map, whose countries bear their names. */
export function shapeStyle(colours, base) {
  return base ? baseStyle(colours) : tierStyle(colours);
}

function tierStyle(colours) {
  const styles = {};
  for (const tier of ['transient', 'persistent']) {
    styles[tier] = new ol.style.Style({
      stroke: new ol.style.Stroke({ color: `${colours[tier]}a0`, width: 1.6 }), // #rrggbb and an alpha
      fill: new ol.style.Fill({ color: `${colours[tier]}30` }),
      image: new ol.style.Circle({ radius: 4, fill: new ol.style.Fill({ color: colours[tier] }) }),
      zIndex: tier === 'transient' ? 1 : 0,
    });
  }
  return (feature) => styles[feature.get('entry').tier];
}

function baseStyle(colours) {
  const text = new ol.style.Text({
    font: '12px system-ui, sans-serif',
    fill: new ol.style.Fill({ color: colours.label }),
    stroke: new ol.style.Stroke({ color: colours.halo, width: 2 }),
  });
  const style = new ol.style.Style({
    fill: new ol.style.Fill({ color: colours.land }),
    stroke: new ol.style.Stroke({ color: colours.border, width: 1 }),
    text,
  });
  return (feature) => {
    const { NAME, name } = feature.get('entry').properties;
    text.setText(NAME ?? name ?? '');
    return style;
  };
}
