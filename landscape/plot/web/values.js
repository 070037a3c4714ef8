/* Values of plotly's JSON, and what the whole page shares. */
const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false, // a page that works offline offers no upload
  plotlyServerURL: "",
  modeBarButtonsToRemove: [
    "toImage", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "resetCameraLastSave3d",
  ],
};
const MOST_SCENES = 8; // browsers drop the oldest of more than 8 to 16 WebGL contexts
const CALLS = { update: "update", restyle: "restyle", relayout: "relayout", animate: "animate" };
const SCENE = /^scene\d*$/;

const figures = new Map(); // id -> Figure
const page = { camera: null, dark: new Map(), light: new Map() };

/* What is still being drawn; programs that take pictures of a page wait for `pageIdle()`. */
const pending = new Set();
function during(work) {
  const done = Promise.resolve(work).finally(() => pending.delete(done));
  pending.add(done);
  return done;
}
window.pageIdle = async function () {
  while (pending.size || turning) {
    await Promise.allSettled([...pending]);
    await new Promise((next) => requestAnimationFrame(next));
  }
};

/* Set target["a"]["b"][0] from the key "a.b[0]". */
function assign(target, key, value) {
  const steps = key.replace(/\[(\d+)\]/g, ".$1").split(".");
  const last = steps.pop();
  for (const step of steps) target = target[step] = target[step] || {};
  target[last] = value;
}

/* An array as plotly's JSON holds it ({dtype, bdata, shape}), as nested plain arrays. */
function plain(value) {
  if (!value || value.bdata === undefined) return value;
  const kinds = {
    f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array,
    i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array,
  };
  const bytes = Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0));
  const flat = Array.from(new kinds[value.dtype](bytes.buffer));
  const shape = value.shape ? String(value.shape).split(",").map(Number) : [flat.length];
  return shape.slice(1).reverse().reduce(
    (list, size) => Array.from({ length: list.length / size }, (_, i) => list.slice(i * size, (i + 1) * size)),
    flat
  );
}
