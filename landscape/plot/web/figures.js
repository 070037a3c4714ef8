/* One figure: drawn when it comes into sight, in the reader's colours, at the width there is. */
const sceneKeys = (layout) => Object.keys(layout).filter((key) => SCENE.test(key));

class Figure {
  constructor(element) {
    this.element = element;
    this.frame = element.closest("figure");
    this.source = JSON.parse(this.frame.querySelector("script.drawing").textContent);
    this.drawn = false;
    this.busy = false;
    this.chosen = {}; // number of a menu -> its pressed button
    this.menus = this.source.layout.updatemenus || [];
    this.sliders = this.source.layout.sliders || [];
    delete this.source.layout.updatemenus;
    delete this.source.layout.sliders;
    this.menus.forEach((menu, i) => { if (isSwitch(menu)) this.chosen[i] = menu.active || 0; });
    this.fit();
    tools(this);
  }

  get scenes() { return sceneKeys(this.source.layout); }

  /* The arrangement of panels for this width. */
  fit() {
    const all = (this.source.layout.meta || {}).arrangements || [];
    const width = this.element.clientWidth;
    const better = all.find((one) => width < one.below);
    const changed = better && better !== this.arrangement;
    if (changed) {
      this.arrangement = better;
      for (const [key, value] of Object.entries(better.layout)) assign(this.source.layout, key, value);
    }
    this.element.style.height = (this.source.layout.height || 450) + "px";
    return changed;
  }

  draw() { return during(this.redraw()); }

  async redraw() {
    const { data, layout, frames } = themed(this.source);
    if (page.camera) for (const key of sceneKeys(layout)) layout[key].camera = structuredClone(page.camera);
    this.drawn = true;
    // The arguments of pressed buttons are part of what is drawn, also after a change of theme.
    await Plotly.newPlot(this.element, data, layout, CONFIG);
    if (frames && frames.length) await Plotly.addFrames(this.element, frames);
    for (const [menu, button] of Object.entries(this.chosen)) {
      if (button !== (this.menus[menu].active || 0)) await this.call(this.menus[menu].buttons[button]);
    }
    if (this.scenes.length) {
      this.element.on("plotly_relayouting", (event) => follow(this, event, true));
      this.element.on("plotly_relayout", (event) => follow(this, event, false));
    }
    if (this.frameName) this.show(this.frameName);
  }

  forget() {
    Plotly.purge(this.element);
    this.drawn = false;
  }

  call(button) {
    const args = structuredClone(isDark() ? recoloured(button.args, page.dark) : button.args);
    return Plotly[CALLS[button.method]](this.element, ...args);
  }

  press(menu, button) {
    if (isSwitch(this.menus[menu])) this.chosen[menu] = button;
    this.frame.dispatchEvent(new CustomEvent("pressed"));
    return this.drawn ? during(this.call(this.menus[menu].buttons[button])) : null;
  }

  show(name) {
    this.frameName = name;
    const options = { mode: "immediate", frame: { duration: 0, redraw: true }, transition: { duration: 0 } };
    return this.drawn ? during(Plotly.animate(this.element, [name], options)) : null;
  }

  /* The figure as it stands, in light colours and with its settings on it: it must not travel without them. */
  portable() {
    const now = { data: this.element.data, layout: this.element.layout };
    const whole = isDark() ? recoloured(now, page.light) : structuredClone(now);
    const { title, title_height: spare } = whole.layout.meta || {};
    whole.layout.paper_bgcolor = "#ffffff";
    delete whole.layout.hoverlabel;
    const width = Math.max(this.element.clientWidth, 700), height = (whole.layout.height || 450) + (spare || 0);
    if (title) {
      whole.layout.title = title;
      whole.layout.margin = { ...whole.layout.margin, t: (whole.layout.margin.t || 80) + spare };
    }
    Object.assign(whole.layout, { width: width, height: height });
    return { figure: whole, width: width, height: height };
  }

  async save(format) {
    await this.ensure();
    const { figure, width, height } = this.portable();
    const url = await Plotly.toImage(figure, { format: format, width: width, height: height, scale: format === "png" ? 3 : 1 });
    download(await (await blobOf(url)), this.name + "." + format);
  }

  async ensure() { if (!this.drawn) await this.draw(); }

  get name() { return slug(this.frame.querySelector("figcaption b")?.textContent || this.element.id); }
}

const isSwitch = (menu) => menu.buttons.every((one) => one.method !== "animate");
const isScale = (menu) => isSwitch(menu) && menu.buttons.map((one) => one.label).join() === "linear,log";
