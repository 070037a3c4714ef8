/* Cameras: all scenes of a page turn together, by hand or by key. */

let turning = null; // the frame in which the page will turn

/* When one scene is turned, turn all others of the page. While they turn, only the reader's hand counts. */
function follow(figure, event, byHand) {
  if (figure.busy && !byHand) return;
  const [key] = Object.keys(event || {}).map((k) => (k.match(/^(scene\d*)\.camera/) || [])[1]).filter(Boolean);
  if (!key) return;
  page.camera = structuredClone(event[key + ".camera"] || figure.element.layout[key].camera);
  if (turning) return;
  turning = requestAnimationFrame(() => { turning = null; turn(); });
}

/* Give every scene of the page its camera. The one that the reader holds is told too: plotly would put it back. */
function turn() {
  const done = [];
  for (const figure of figures.values()) {
    if (!figure.drawn || !figure.scenes.length) continue;
    const update = Object.fromEntries(figure.scenes.map((key) => [key + ".camera", structuredClone(page.camera)]));
    figure.busy = true;
    done.push(during(Plotly.relayout(figure.element, update)).finally(() => { figure.busy = false; }));
  }
  return Promise.all(done);
}

/* Keys for a figure that has the focus. */
function keyed(figure, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key;
  if (key === "l" || key === "L") {
    const menu = figure.menus.findIndex(isScale);
    if (menu >= 0) figure.press(menu, 1 - figure.chosen[menu]);
  } else if (figure.scenes.length && figure.drawn) {
    const first = figure.scenes[0];
    const camera = structuredClone(figure.element.layout[first].camera || figure.source.layout[first].camera);
    const eye = camera.eye;
    const flat = Math.hypot(eye.x, eye.y), length = Math.hypot(flat, eye.z);
    let around = Math.atan2(eye.y, eye.x), up = Math.atan2(eye.z, flat), far = length;
    if (key === "ArrowLeft") around -= 0.1;
    else if (key === "ArrowRight") around += 0.1;
    else if (key === "ArrowUp") up = Math.min(up + 0.1, 1.5);
    else if (key === "ArrowDown") up = Math.max(up - 0.1, -1.5);
    else if (key === "+" || key === "=") far = length / 1.1;
    else if (key === "-") far = length * 1.1;
    else if (key === "r" || key === "R") { reset(); event.preventDefault(); return; }
    else return;
    camera.eye = { x: far * Math.cos(up) * Math.cos(around), y: far * Math.cos(up) * Math.sin(around), z: far * Math.sin(up) };
    page.camera = camera;
    turn();
  } else return;
  event.preventDefault();
}

function reset() {
  const [one] = [...figures.values()].filter((figure) => figure.scenes.length);
  if (!one) return;
  page.camera = structuredClone(one.source.layout[one.scenes[0]].camera);
  return turn();
}
