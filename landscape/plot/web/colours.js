/* Light and dark: every colour of a figure has its counterpart. */
const triple = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",");

/* Colours by name of the light theme -> the dark one's, and back. */
function palette(pairs) {
  for (const [light, dark] of Object.entries(pairs)) {
    for (const [map, from, to] of [[page.dark, light, dark], [page.light, dark, light]]) {
      map.set(from.toLowerCase(), to);
      map.set(triple(from), triple(to));
    }
  }
}

function recoloured(value, colours) {
  if (typeof value === "string") {
    if (value.length > 4000) return value; // numbers as base64
    return value
      .replace(/#[0-9a-f]{6}\b/gi, (hex) => colours.get(hex.toLowerCase()) || hex)
      .replace(/rgba\((\d+),\s*(\d+),\s*(\d+)/g, (text, r, g, b) => {
        const found = colours.get([r, g, b].join(","));
        return found ? "rgba(" + found : text;
      });
  }
  if (Array.isArray(value)) {
    return typeof value[0] === "number" ? value : value.map((one) => recoloured(one, colours));
  }
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recoloured(v, colours)]));
}

const isDark = () => getComputedStyle(document.documentElement).getPropertyValue("--theme").trim() === "dark";

function themed(drawing) {
  const whole = isDark() ? recoloured(drawing, page.dark) : structuredClone(drawing);
  const css = getComputedStyle(document.documentElement);
  const of = (name) => css.getPropertyValue(name).trim();
  whole.layout.hoverlabel = {
    ...(whole.layout.hoverlabel || {}), bgcolor: of("--card"), bordercolor: of("--line"),
    font: { ...((whole.layout.hoverlabel || {}).font || {}), color: of("--ink"), size: 12 },
  };
  whole.layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: of("--muted"), activecolor: of("--ink") };
  return whole;
}
