/* Draws the figures of the gallery. They carry arrangements of their panels for narrower pages. */
const changed = (layout, changes) => {
  const copy = structuredClone(layout);
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.match(/[^.[\]]+/g);
    const last = keys.pop();
    keys.reduce((part, key) => (part[key] ??= {}), copy)[last] = value;
  }
  return copy;
};

for (const place of document.querySelectorAll(".interactive")) {
  const { data, layout, frames } = JSON.parse(place.querySelector("script").textContent);
  const plot = place.querySelector("div");
  const choices = layout.meta?.arrangements ?? [];
  const share = layout.scene2 ? 0.7 : 1; // two scenes need more room than two panels
  let present = null;
  const draw = () => {
    const choice = choices.find(({ below }) => plot.clientWidth * share < below) ?? { layout: {} };
    if (choice === present || (present && !choices.length)) return;
    present = choice;
    const arranged = changed(layout, choice.layout);
    plot.style.height = `${arranged.height}px`;
    Plotly.newPlot(plot, structuredClone(data), arranged, { displaylogo: false, responsive: true })
      .then(() => frames && Plotly.addFrames(plot, frames));
  };
  draw();
  window.addEventListener("resize", draw);
}
