/* Buttons and sliders as the page's own elements, which a keyboard and a screen reader reach. */
function button(label, title, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  if (title) made.title = title;
  made.addEventListener("click", action);
  return made;
}

function group(name, ...inside) {
  const made = document.createElement("div");
  made.className = "group";
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", name);
  made.append(...inside);
  return made;
}

/* The row of buttons between a figure's caption and its panels. */
function tools(figure) {
  const row = document.createElement("div");
  row.className = "tools";
  figure.menus.forEach((menu, m) => {
    const choices = menu.buttons.map((one, b) => button(one.label, "", () => figure.press(m, b)));
    if (isSwitch(menu)) {
      const mark = () => choices.forEach((made, b) => made.setAttribute("aria-pressed", String(figure.chosen[m] === b)));
      figure.frame.addEventListener("pressed", mark);
      mark();
    }
    row.append(group(isScale(menu) ? "scale" : "choices", ...choices));
  });
  for (const slider of figure.sliders) row.append(slide(figure, slider));
  row.append(group(
    "take along",
    button("PNG", "Save this figure as a picture, with its settings", () => figure.save("png")),
    button("SVG", "Save this figure as vectors (a 3-D scene is a picture inside)", () => figure.save("svg")),
    button("CSV", "Save the numbers of this figure", () => download(new Blob([csv(figureRows(figure))]), figure.name + ".csv"))
  ));
  row.lastChild.classList.add("take");
  figure.element.before(row);
}

function slide(figure, slider) {
  const steps = slider.steps, last = steps.length - 1;
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: 0, max: last, step: 1, value: slider.active ?? last });
  const prefix = (slider.currentvalue || {}).prefix || "";
  input.setAttribute("aria-label", prefix.trim() || "step");
  const told = document.createElement("output");
  const frame = (step) => [].concat(step.args[0])[0];
  const go = (i) => {
    input.value = i;
    told.textContent = prefix + steps[i].label;
    return figure.show(frame(steps[i]));
  };
  told.textContent = prefix + steps[input.value].label;
  input.addEventListener("input", () => go(Number(input.value)));
  let playing = null;
  const play = button("▶", "Play or pause", () => {
    if (playing) { clearInterval(playing); playing = null; play.textContent = "▶"; return; }
    play.textContent = "⏸";
    let i = Number(input.value) >= last ? 0 : Number(input.value);
    go(i);
    playing = setInterval(() => {
      if (i >= last) { clearInterval(playing); playing = null; play.textContent = "▶"; return; }
      go(++i);
    }, 350);
  });
  play.setAttribute("aria-label", "play or pause");
  const whole = group("along " + (prefix.trim() || "steps"), play, input, told);
  whole.classList.add("slider");
  return whole;
}
