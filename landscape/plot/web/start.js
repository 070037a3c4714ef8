/* The page: what concerns all figures at once. */
function scaleAll(log) {
  for (const figure of figures.values()) {
    figure.menus.forEach((menu, m) => { if (isScale(menu)) figure.press(m, Number(log)); });
  }
}

function theme(name) {
  const root = document.documentElement;
  if (name === "auto") delete root.dataset.theme;
  else root.dataset.theme = name;
  redraw();
}

const redraw = () => { for (const figure of figures.values()) if (figure.drawn) figure.draw(); };

function bar() {
  const place = document.querySelector(".bar");
  if (!place) return;
  const all = [...figures.values()];
  if (all.some((figure) => figure.menus.some(isScale))) {
    const choices = ["linear", "log"].map((label, i) => button(label, "Draw the losses of every figure on a " + label + " scale", () => {
      scaleAll(Boolean(i));
      choices.forEach((made, b) => made.setAttribute("aria-pressed", String(b === i)));
    }));
    place.append(group("scale of all figures", ...choices));
  }
  if (all.some((figure) => figure.scenes.length)) {
    place.append(group("view", button("Reset view", "Turn every scene back (key r)", reset)));
  }
  const names = ["auto", "light", "dark"];
  const themes = names.map((name) => button(name, "Colours of the page", () => {
    theme(name);
    themes.forEach((made, i) => made.setAttribute("aria-pressed", String(names[i] === name)));
  }));
  themes[0].setAttribute("aria-pressed", "true");
  place.append(group("colours", ...themes));
  place.append(group("numbers", button(
    "All numbers (JSON)", "Everything on this page: tables, figures, settings",
    () => download(new Blob([everything()], { type: "application/json" }), slug(document.title) + ".json")
  )));
}

function tables() {
  for (const frame of document.querySelectorAll("figure.table")) {
    const script = frame.nextElementSibling;
    if (!script || !script.matches("script.table-data")) continue;
    const told = JSON.parse(script.textContent);
    const name = slug(frame.querySelector("figcaption b").textContent);
    const row = document.createElement("div");
    row.className = "tools";
    row.append(group(
      "take along",
      button("CSV", "Save the numbers of this table", () => download(new Blob([told.csv]), name + ".csv")),
      button("LaTeX", "Save this table for a paper (booktabs)", () => download(new Blob([told.latex]), name + ".tex"))
    ));
    row.lastChild.classList.add("take");
    frame.append(row);
  }
}

let sighted = null; // ends the wait for what is in sight at first

/* Draw what comes into sight; let go of scenes far away when there are too many. */
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) figures.get(entry.target.id).near = entry.isIntersecting;
  for (const entry of entries) {
    const figure = figures.get(entry.target.id);
    if (!figure.near || figure.drawn) continue;
    if (figure.scenes.length) makeRoom(figure.scenes.length);
    figure.draw();
  }
  if (sighted) sighted();
}, { rootMargin: "300px 0px" });

function makeRoom(more) {
  const live = [...figures.values()].filter((one) => one.drawn && one.scenes.length);
  const away = (one) => Math.abs(one.element.getBoundingClientRect().top);
  let count = live.reduce((sum, one) => sum + one.scenes.length, more);
  for (const one of live.filter((other) => !other.near).sort((a, b) => away(b) - away(a))) {
    if (count <= MOST_SCENES) return;
    count -= one.scenes.length;
    one.forget();
  }
}

/* Plotly's script, which the page holds compressed: a third of the size to store and to mail. */
async function unpack() {
  const packed = document.getElementById("plotly");
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function start() {
  try {
    await during(unpack());
  } catch (error) {
    for (const element of document.querySelectorAll(".canvas")) {
      element.textContent = "This browser cannot draw the figures (" + error + "): use one of 2023 or later.";
    }
    return;
  }
  palette(JSON.parse(document.getElementById("dark-colours")?.textContent || "{}"));
  for (const element of document.querySelectorAll(".canvas")) {
    const figure = new Figure(element);
    figures.set(element.id, figure);
    element.addEventListener("keydown", (event) => keyed(figure, event));
    watch.observe(element);
  }
  if (figures.size) during(new Promise((next) => { sighted = next; })); // the page is not idle before it has looked
  bar();
  tables();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => figures.forEach((figure) => figure.ensure()));
  let waiting = null, looked = null;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    if (!looked) during(new Promise((next) => { looked = next; }));
    waiting = setTimeout(() => {
      for (const figure of figures.values()) {
        if (figure.fit() && figure.drawn) during(Plotly.relayout(figure.element, structuredClone(figure.arrangement.layout)));
      }
      looked();
      looked = null;
    }, 120);
  });
}

document.addEventListener("DOMContentLoaded", start);
